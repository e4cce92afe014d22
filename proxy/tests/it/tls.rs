//! The API over TLS: handshakes, the exchange of the certificate, and what goes wrong.

use serde_json::Value;
use tepal_tests::{
    certificates::{Authority, Pair},
    http::{raw, raw_secured},
    process::{Proxy, Service},
    redis::RedisServer,
    wait::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::gateway::{FLOWER, SOON};

const HERE: &[&str] = &["127.0.0.1"];
const YEAR_2100: f64 = 4_102_444_800.0;
const YEAR_2090: f64 = 3_786_912_000.0;

/// A proxy that shows `pair`, from `authority`.
struct Site {
    authority: Authority,
    pair: Pair,
    proxy: Proxy,
    _redis: RedisServer,
}

impl Site {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let (redis, authority) = (RedisServer::shipped().start().await, Authority::new());
        let pair = authority.issue(HERE);
        let proxy = Proxy::start_secured(&redis.proxy_url(), &pair, &authority, settings).await;
        Self { authority, pair, proxy, _redis: redis }
    }

    /// Whether a new connection is shown this certificate.
    async fn shows(&self, pair: &Pair) -> bool {
        let connection = self.authority.connect(self.proxy.addr()).await;
        connection.get_ref().1.peer_certificates().unwrap()[0] == pair.der()
    }

    async fn metric(&self, name: &str) -> f64 {
        self.proxy.client().get("/metrics").await.metric(name)
    }

    async fn failures(&self, reason: &str) -> f64 {
        let page = self.proxy.client().get("/metrics").await.text();
        let name = format!("tepal_tls_handshakes_failed_total{{reason=\"{reason}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn the_api_answers_over_tls_and_asks_browsers_to_stay_there() {
    let site = Site::start(&[]).await;
    let listening: Value = serde_json::from_str(&site.proxy.wait_for_log("listening", SOON).await).unwrap();
    assert_eq!(listening["scheme"], "https");
    let client = site.proxy.client();
    for path in ["/livez", "/nowhere"] {
        let answer = client.get(path).await;
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"), "{path}");
    }
    assert_eq!(site.metric("tepal_tls_certificate_expires_seconds").await, YEAR_2100);
}

#[tokio::test]
async fn what_is_no_http_is_answered_with_a_problem_inside_of_tls_too() {
    let site = Site::start(&[]).await;
    let answer = raw_secured(site.proxy.addr(), &site.authority, b"HELLO\r\n\r\n").await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{text}");
    for line in [
        "content-type: application/problem+json",
        "x-content-type-options: nosniff",
        "strict-transport-security: ",
    ] {
        assert!(head.contains(line), "{text}");
    }
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["code"], "malformed_request");
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let site = Site::start(&[]).await;
    let mut old = site.authority.connect(site.proxy.addr()).await;
    let new = site.authority.issue_until(HERE, 2090);

    new.replace(&site.pair);

    eventually(SOON, "the new certificate", async || site.shows(&new).await).await;
    assert_eq!(site.metric("tepal_tls_certificate_expires_seconds").await, YEAR_2090);
    let ask = b"GET /livez HTTP/1.1\r\nhost: tepal\r\nconnection: close\r\n\r\n";
    old.write_all(ask).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, old.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_mismatched_pair_changes_nothing_and_is_reported_in_a_sentence() {
    let site = Site::start(&[]).await;
    let (kept, stranger) = (site.pair.der(), site.authority.issue(HERE));

    std::fs::copy(&stranger.key, &site.pair.key).unwrap();

    let line: Value =
        serde_json::from_str(&site.proxy.wait_for_log("certificate_rejected", SOON).await).unwrap();
    assert_eq!(line["level"], "ERROR");
    let error = line["error"].as_str().unwrap();
    assert!(error.ends_with("the private key is not the one of the certificate"), "{error}");
    let connection = site.authority.connect(site.proxy.addr()).await;
    assert_eq!(connection.get_ref().1.peer_certificates().unwrap()[0], kept);

    stranger.replace(&site.pair);
    eventually(SOON, "the mended pair", async || site.shows(&stranger).await).await;
}

#[tokio::test]
async fn a_certificate_that_is_gone_changes_nothing() {
    let site = Site::start(&[]).await;
    std::fs::remove_file(&site.pair.certificate).unwrap();
    let line = site.proxy.wait_for_log("certificate_rejected", SOON).await;
    assert!(line.contains("cannot read"), "{line}");
    assert_eq!(site.proxy.client().get("/livez").await.status, 200);
}

#[tokio::test]
async fn failed_handshakes_are_counted_by_reason_and_make_no_noise() {
    let site = Site::start(&[("HEADER_TIMEOUT_MS", "500")]).await;
    let addr = site.proxy.addr();

    let answer = raw(addr, b"GET /livez HTTP/1.1\r\nhost: tepal\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not answered");
    drop(TcpStream::connect(addr).await.unwrap()); // A port check is not a handshake.
    let mut broken = TcpStream::connect(addr).await.unwrap();
    broken.write_all(b"\x16\x03\x01").await.unwrap();
    drop(broken);
    let _silent = TcpStream::connect(addr).await.unwrap();

    for reason in ["not_tls", "broken", "timeout"] {
        eventually(SOON, reason, async || site.failures(reason).await == 1.0).await;
    }
    assert_eq!(site.proxy.logs().find("handshake_failed"), None);
}

#[tokio::test]
async fn silent_clients_hold_up_neither_others_nor_the_end() {
    let site = Site::start(&[("HEADER_TIMEOUT_MS", "3600000"), ("DRAIN_TIMEOUT_SECONDS", "3600")]).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(site.proxy.addr()).await.unwrap());
    }
    assert_eq!(site.proxy.client().get("/livez").await.status, 200);
    site.proxy.sigterm();
    assert!(site.proxy.wait_exit(SOON).await.success());
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_sigterm() {
    let site = Site::start(&[("DRAIN_TIMEOUT_SECONDS", "60")]).await;
    let mut stream = site.authority.connect(site.proxy.addr()).await;
    let head = "POST /predict HTTP/1.1\r\nhost: tepal\r\ncontent-type: application/json\r\n";
    let request = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", FLOWER.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut go_ahead = [0; 25];
    timeout(SOON, stream.read_exact(&mut go_ahead)).await.unwrap().unwrap();

    site.proxy.sigterm();
    site.proxy.wait_for_log("draining", SOON).await;
    stream.write_all(FLOWER.as_bytes()).await.unwrap();

    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 202 "), "{}", String::from_utf8_lossy(&answer));
    assert!(site.proxy.wait_exit(SOON).await.success());
}

/// What the proxy prints with these settings, and its exit code.
pub(crate) async fn run(
    redis_url: &str,
    settings: &[(&str, &str)],
    command: &[&str],
) -> (Option<i32>, String) {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let proxy = Service::binary("tepal-proxy")
        .env("MODELS_DIR", models)
        .env("REDIS_URL", redis_url)
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .envs(settings);
    let proxy = command.iter().fold(proxy, |proxy, arg| proxy.arg(arg)).start();
    let status = proxy.wait_exit(SOON).await;
    (status.code(), proxy.logs().lines().join("\n"))
}

/// [`run`] with this certificate.
async fn run_with(pair: &Pair, redis_url: &str, command: &[&str]) -> (Option<i32>, String) {
    let [certificate, key] = [&pair.certificate, &pair.key].map(|path| path.to_str().unwrap());
    run(redis_url, &[("TLS_CERT_FILE", certificate), ("TLS_KEY_FILE", key)], command).await
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_told_at_the_start() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(HERE), authority.issue(HERE));
    let (_, nobody) = (RedisServer::shipped().start().await, "redis://127.0.0.1:1");
    let mixed = Pair { key: other.key.clone(), ..one.clone() };
    let swapped = Pair { certificate: one.key.clone(), key: one.certificate.clone() };
    let missing = Pair { certificate: "/nowhere.pem".into(), ..one };
    for (pair, expected) in [
        (mixed, "the private key is not the one of the certificate"),
        (swapped, "it holds no certificate (PEM"),
        (missing, "cannot read /nowhere.pem"),
    ] {
        let (code, text) = run_with(&pair, nobody, &[]).await;
        assert_eq!(code, Some(1), "{text}");
        // Log and error come from two pipes, in any order.
        let error = text.lines().find(|line| line.starts_with("tepal-proxy: "));
        assert!(error.is_some_and(|error| error.contains(expected)), "{text}");
    }
}

#[tokio::test]
async fn the_doctor_looks_at_the_pair_and_its_end() {
    let (redis, authority) = (RedisServer::shipped().start().await, Authority::new());
    let mixed = Pair { key: authority.issue(HERE).key, ..authority.issue(HERE) };
    for (pair, expected) in [
        (authority.issue(HERE), "ok     certificate: it has its key and is valid until 2100-01-01T00:00:00Z"),
        (
            authority.issue_until(HERE, 2021),
            "WRONG  certificate: it expired 2021-01-01T00:00:00Z. To fix it: renew it",
        ),
        (mixed, "WRONG  certificate: TLS_CERT_FILE and TLS_KEY_FILE cannot be used"),
    ] {
        let (_, text) = run_with(&pair, &redis.proxy_url(), &["doctor"]).await;
        assert!(text.lines().any(|line| line.starts_with(expected)), "{text}");
    }
}
