//! Redis over TLS: the log and the doctor report why a connection fails, and what to do. The end-to-end tests show that everything
//! works over TLS.

use tepal_tests::{
    certificates::{Authority, Pair},
    process::{Proxy, Service},
    redis::RedisServer,
    wait::eventually,
};

use crate::gateway::SOON;

/// The settings that name these certificates.
fn settings(authority: &Authority, client: Option<&Pair>) -> Vec<(&'static str, String)> {
    let mut settings = vec![("REDIS_CA_FILE", authority.certificate().display().to_string())];
    if let Some(pair) = client {
        settings.push(("REDIS_CERT_FILE", pair.certificate.display().to_string()));
        settings.push(("REDIS_KEY_FILE", pair.key.display().to_string()));
    }
    settings
}

/// Asserts that the log and the doctor report this reason.
async fn assert_told(url: &str, settings: &[(&str, String)], reason: &str) {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let doctor = Service::binary("tepal-proxy").env("MODELS_DIR", models).env("REDIS_URL", url);
    let doctor = doctor.envs(&settings).arg("doctor").start();
    assert_eq!(doctor.wait_exit(SOON).await.code(), Some(1));
    let text = doctor.logs().lines().join("\n");
    assert!(text.starts_with("WRONG  Redis: ") && text.contains(reason), "{reason}: {text}");

    let proxy = Proxy::start(url, &settings).await;
    let is_logged = async || {
        let log = proxy.logs().lines().join("\n");
        let is_there = log.lines().any(|line| line.contains("redis_unreachable") && line.contains(reason));
        if is_there { Ok(()) } else { Err(log) }
    };
    eventually(SOON, reason, is_logged).await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_and_one_for_another_name_are_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let redis = RedisServer::shipped().tls(&authority, false).start().await;
    let untrusted = "is not from an authority that is trusted here";
    assert_told(&redis.proxy_url(), &settings(&stranger, None), untrusted).await;
    assert_told(&redis.proxy_url(), &[], untrusted).await;
    let by_name = redis.proxy_url().replace("127.0.0.1", "localhost");
    assert_told(&by_name, &settings(&authority, None), "is for another name").await;
}

#[tokio::test]
async fn a_client_certificate_that_is_missing_or_foreign_is_there() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let redis = RedisServer::shipped().tls(&authority, true).start().await;
    assert_told(&redis.proxy_url(), &settings(&authority, None), "REDIS_CERT_FILE and REDIS_KEY_FILE").await;
    let foreign = stranger.issue(&["proxy"]);
    let refused = "does not accept the client certificate";
    assert_told(&redis.proxy_url(), &settings(&authority, Some(&foreign)), refused).await;
}
