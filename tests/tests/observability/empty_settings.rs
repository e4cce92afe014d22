//! Settings as compositions, charts and Kubernetes set them: empty, or without effect beside others.

use std::time::Duration;

use serde_json::json;
use tepal_tests::{
    http::Client,
    ports::{free_port, on_ipv6},
    process::{Service, ServiceBuilder, binary_path},
    redis::RedisServer,
    wait::eventually,
};

use crate::{root, settings};

const SOON: Duration = Duration::from_secs(30);

/// The program with each of its settings there, and empty.
fn with_empty_settings(program: &str) -> ServiceBuilder {
    assert!(binary_path(program).is_file());
    let names = settings::of_program(program);
    let builder = Service::binary(program)
        .arg("--models-dir")
        .arg(&root().join("compose/models").display().to_string());
    names.keys().fold(builder, |builder, name| builder.env(name, ""))
}

/// A proxy and a worker with these flags complete a job.
async fn complete_a_job(add: impl Fn(ServiceBuilder) -> ServiceBuilder) {
    let (api, metrics) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let proxy = add(with_empty_settings("tepal-proxy")).arg("--listen-addr").arg(&api).start();
    let worker = add(with_empty_settings("tepal-worker")).arg("--metrics-addr").arg(&metrics).start();
    let client = Client::new(&format!("http://{api}"));
    let is_ready = async || {
        let ready = client.try_get("/readyz").await;
        if ready.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        Err(format!("{}\n{}", proxy.logs().tail(9), worker.logs().tail(9)))
    };
    eventually(SOON, "the proxy to be ready", is_ready).await;
    let id = client.predict(&json!([[5.1, 3.5, 1.4, 0.2]])).await;
    assert_eq!(client.finished(&id, SOON).await["status"], "completed", "{}", worker.logs().tail(9));
}

#[tokio::test]
async fn an_empty_variable_counts_as_missing() {
    let redis = RedisServer::start().await;
    let port = redis.port().to_string();
    complete_a_job(|program| program.arg("--redis-port").arg(&port)).await;
}

#[tokio::test]
async fn a_setting_that_another_overrides_may_be_anything() {
    let redis = RedisServer::start().await;
    complete_a_job(|program| {
        let program = program.env("REDIS_URL", redis.url()).env("REDIS_PORT", "tcp://10.96.0.11:6379");
        program.env("REDIS_HOST", "http://redis")
    })
    .await;
}

#[tokio::test]
async fn redis_may_have_an_ipv6_address() {
    let redis = RedisServer::start().await;
    let port = on_ipv6(redis.addr()).await.to_string();
    for host in ["::1", "[::1]"] {
        complete_a_job(|program| program.env("REDIS_HOST", host).arg("--redis-port").arg(&port)).await;
    }
}
