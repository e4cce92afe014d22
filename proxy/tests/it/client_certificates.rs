//! Client certificates of the API: which clients can connect, and how the authorities are replaced.

use std::fs;

use tepal_tests::{
    certificates::{Authority, Pair},
    process::Proxy,
    redis::RedisServer,
    wait::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{gateway::SOON, tls::run};

const HERE: &[&str] = &["127.0.0.1"];

/// A proxy that asks for certificates of an authority, whose file can be exchanged.
struct Site {
    authority: Authority,
    /// The file that the proxy reads.
    trusted: std::path::PathBuf,
    proxy: Proxy,
    _redis: RedisServer,
}

impl Site {
    async fn start(word: &str) -> Self {
        let (redis, authority) = (RedisServer::shipped().start().await, Authority::new());
        let pair = authority.issue(HERE);
        let trusted = authority.certificate().with_file_name("trusted.pem");
        fs::copy(authority.certificate(), &trusted).unwrap();
        let settings = [("TLS_CLIENT_CA_FILE", trusted.to_str().unwrap()), ("TLS_CLIENT_AUTH", word)];
        let proxy = Proxy::start_secured(&redis.proxy_url(), &pair, &authority, &settings).await;
        Self { authority, trusted, proxy, _redis: redis }
    }

    /// What a client is answered that shows this certificate; empty when the connection comes to nothing.
    async fn asks(&self, identity: Option<&Pair>) -> String {
        let config = self.authority.client_config(identity);
        let Ok(mut connection) = self.authority.try_connect(self.proxy.addr(), config).await else {
            return String::new();
        };
        let ask = b"GET /livez HTTP/1.1\r\nhost: tepal\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        // A client of TLS 1.3 learns that it was refused only when it reads.
        if connection.write_all(ask).await.is_ok() {
            let _ = timeout(SOON, connection.read_to_end(&mut answer)).await.unwrap();
        }
        String::from_utf8(answer).unwrap()
    }

    async fn lets_in(&self, identity: Option<&Pair>) -> bool {
        self.asks(identity).await.starts_with("HTTP/1.1 200 ")
    }

    async fn refused(&self) -> f64 {
        let page = self.proxy.client().get("/metrics").await.text();
        let name = "tepal_tls_handshakes_failed_total{reason=\"client_certificate\"} ";
        page.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_can_connect() {
    let site = Site::start("required").await;
    let other = Authority::new();
    let (stranger, expired) = (other.issue(HERE), site.authority.issue_until(HERE, 2021));
    assert!(site.lets_in(Some(&site.authority.issue(&["client"]))).await);
    for refused in [None, Some(&stranger), Some(&expired)] {
        assert_eq!(site.asks(refused).await, "", "{refused:?}");
    }
    eventually(SOON, "three refusals", async || site.refused().await == 3.0).await;
    assert_eq!(site.proxy.logs().find("handshake_failed"), None);
}

#[tokio::test]
async fn where_a_certificate_is_optional_one_that_is_shown_must_be_right() {
    let site = Site::start("optional").await;
    assert!(site.lets_in(None).await && site.lets_in(Some(&site.authority.issue(&["client"]))).await);
    assert_eq!(site.asks(Some(&Authority::new().issue(HERE))).await, "");
    eventually(SOON, "a refusal", async || site.refused().await == 1.0).await;
}

#[tokio::test]
async fn the_authorities_are_exchanged_without_a_restart_and_a_wrong_file_changes_nothing() {
    let site = Site::start("required").await;
    let (old, next) = (site.authority.issue(&["client"]), Authority::new());
    let new = next.issue(&["client"]);
    assert!(!site.lets_in(Some(&new)).await);

    // Both, so that clients can change one after the other.
    let both =
        [site.authority.certificate(), next.certificate()].map(|path| fs::read_to_string(path).unwrap());
    fs::write(&site.trusted, both.concat()).unwrap();
    eventually(SOON, "the new client to be let in", async || site.lets_in(Some(&new)).await).await;
    assert!(site.lets_in(Some(&old)).await);

    fs::write(&site.trusted, "nothing").unwrap();
    let line = site.proxy.wait_for_log("certificate_rejected", SOON).await;
    assert!(line.contains("TLS_CLIENT_CA_FILE cannot be used: it holds no certificate"), "{line}");
    assert!(site.lets_in(Some(&old)).await && site.lets_in(Some(&new)).await);

    fs::copy(next.certificate(), &site.trusted).unwrap();
    eventually(SOON, "the old client to be refused", async || !site.lets_in(Some(&old)).await).await;
    assert!(site.lets_in(Some(&new)).await);
}

#[tokio::test]
async fn a_file_without_authorities_is_reported_at_the_start_and_by_the_doctor() {
    let (redis, authority) = (RedisServer::shipped().start().await, Authority::new());
    let pair = authority.issue(HERE);
    let [certificate, key] = [&pair.certificate, &pair.key].map(|path| path.to_str().unwrap());
    let with = |authorities: &'static str| {
        [("TLS_CERT_FILE", certificate), ("TLS_KEY_FILE", key), ("TLS_CLIENT_CA_FILE", authorities)]
    };
    let mut settings = with("/nowhere.pem");
    let (code, text) = run(&redis.proxy_url(), &settings, &[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("tepal-proxy: cannot read /nowhere.pem"), "{text}");
    settings[2].1 = key;
    let (code, text) = run(&redis.proxy_url(), &settings, &[]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("TLS_CLIENT_CA_FILE cannot be used: it holds no certificate (PEM"), "{text}");
    let (_, text) = run(&redis.proxy_url(), &settings, &["doctor"]).await;
    assert!(text.contains("WRONG  client certificates: TLS_CLIENT_CA_FILE cannot be used"), "{text}");

    let authority = authority.certificate();
    settings[2].1 = authority.to_str().unwrap();
    let (_, text) = run(&redis.proxy_url(), &settings, &["doctor"]).await;
    let right = "ok     client certificates: clients must present one; authorities: 1, the first until ";
    assert!(text.contains(right), "{text}");
}
