//! SIGTERM and Ctrl-C: requests in flight are answered, then the process ends; and what hinders a start.

use std::time::Duration;

use tepal_tests::{
    http::Client,
    process::{Service, Signal},
    redis::RedisServer,
    wait::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    expect::{UNAVAILABLE, unavailable},
    gateway::{FLOWER, Gateway, SOON, accepted},
};

/// A connection on which a submission has been sent but for the end of its body.
async fn half_a_request(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.proxy.addr()).await.unwrap();
    let head = "POST /predict HTTP/1.1\r\nhost: tepal\r\ncontent-type: application/json\r\n";
    let (begin, length) = (&FLOWER[..10], FLOWER.len());
    // The proxy asks for the body once it has read the headers: then the request is in flight for sure.
    let request = format!("{head}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut go_ahead = [0; 25];
    timeout(SOON, stream.read_exact(&mut go_ahead)).await.unwrap().unwrap();
    assert_eq!(&go_ahead, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(begin.as_bytes()).await.unwrap();
    stream
}

async fn a_request_in_flight_is_answered(signal: Signal) {
    let gateway = Gateway::with(&[("DRAIN_TIMEOUT_SECONDS", "60")]).await;
    let mut stream = half_a_request(&gateway).await;

    gateway.proxy.process().signal(signal);
    gateway.proxy.wait_for_log("draining", SOON).await;
    let refused = async || TcpStream::connect(gateway.proxy.addr()).await.is_err();
    eventually(SOON, "new connections to be refused", refused).await;
    assert!(gateway.proxy.is_running());

    stream.write_all(&FLOWER.as_bytes()[10..]).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n"), "{answer}");
    assert!(gateway.proxy.wait_exit(SOON).await.success());
    assert_eq!(gateway.log_length(), 1);
    assert!(gateway.proxy.logs().find("proxy_stopped").is_some());
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_sigterm() {
    a_request_in_flight_is_answered(Signal::Term).await;
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_ctrl_c() {
    a_request_in_flight_is_answered(Signal::Int).await;
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_end() {
    let gateway = Gateway::with(&[("DRAIN_TIMEOUT_SECONDS", "3600"), ("HEADER_TIMEOUT_MS", "3600000")]).await;
    let _unused = TcpStream::connect(gateway.proxy.addr()).await.unwrap();
    gateway.submit().await; // Its connection is kept by the client.
    gateway.proxy.sigterm();
    assert!(gateway.proxy.wait_exit(SOON).await.success());
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let gateway = Gateway::with(&[("DRAIN_TIMEOUT_SECONDS", "1"), ("BODY_TIMEOUT_MS", "3600000")]).await;
    let _stream = half_a_request(&gateway).await;
    gateway.proxy.sigterm();
    assert!(gateway.proxy.wait_exit(SOON).await.success());
    let line = gateway.proxy.logs().find("drain_timed_out").unwrap();
    assert!(line.contains(r#""connections":1"#), "{line}");
}

#[tokio::test]
async fn load_balancers_are_warned_before_the_end() {
    let gateway = Gateway::with(&[("SHUTDOWN_DELAY_MS", "5000")]).await;
    gateway.proxy.sigterm();
    let is_reported = async || gateway.get("/readyz").await.status == 503;
    eventually(Duration::from_secs(5), "/readyz to say so", is_reported).await;
    unavailable().assert(&gateway.get("/readyz").await, "/readyz", UNAVAILABLE);
    // Meanwhile new connections are served.
    let fresh = Client::new(gateway.proxy.base_url()).post_raw("/predict", FLOWER).await;
    assert_eq!(fresh.status, 202);
    accepted(&gateway.predict(FLOWER).await);
    assert!(gateway.proxy.wait_exit(SOON).await.success());
}

/// Starts a proxy that cannot start; what it prints.
async fn refused(settings: &[(&str, &str)]) -> String {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let proxy = Service::binary("tepal-proxy").env("MODELS_DIR", models).envs(settings).start();
    assert_eq!(proxy.wait_exit(SOON).await.code(), Some(1));
    proxy.logs().lines().join("\n")
}

#[tokio::test]
async fn a_queue_of_another_stored_format_is_refused_in_one_sentence() {
    let redis = RedisServer::shipped().start().await;
    redis.cli(&["SET", "{predict_queue:0}:format", "3"]);

    let text = refused(&[("REDIS_URL", &redis.url()), ("LISTEN_ADDR", "127.0.0.1:0")]).await;

    let expected = "tepal-proxy: the queue has jobs of the stored format 3, but this version reads and writes format 2: \
        start the version that wrote the queue, let its workers drain it while no proxy accepts jobs, then start this \
        version; or set another QUEUE_NAME";
    assert_eq!(text.lines().last(), Some(expected), "{text}");
}

#[tokio::test]
async fn a_port_in_use_is_reported_in_one_sentence() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let port = address.port();
    let expected = format!(
        "tepal-proxy: Port {port} on 127.0.0.1 is in use; set LISTEN_ADDR to another address or stop what listens there"
    );
    assert_eq!(refused(&[("LISTEN_ADDR", &address.to_string())]).await, expected);
}

#[tokio::test]
async fn all_wrong_settings_are_reported_at_once() {
    let text = refused(&[("REPLICAS_REQUIRED", "many"), ("PARTITIONS", "0"), ("MODEL_NAME", "a rose")]).await;
    for setting in ["REPLICAS_REQUIRED: `many`", "PARTITIONS: `0`", "MODEL_NAME: `a rose`"] {
        assert!(text.contains(setting), "{text}");
    }
}
