//! Bodies that are too large, too slow or broken off, on the wire.

use std::time::Duration;

use serde_json::Value;
use tepal_tests::{
    http::{raw, raw_within},
    process::Proxy,
    redis::RedisServer,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    expect::problem,
    gateway::{FLOWER, Gateway, SOON},
    keys::Keys,
};

/// Smaller than the default.
const SMALL_BODIES: (&str, &str) = ("MAX_BODY_BYTES", "1048576");

/// A request for `/predict` in bytes; `more` are further header lines.
fn request(more: &str, body: &str) -> Vec<u8> {
    let head =
        "POST /predict HTTP/1.1\r\nhost: tepal\r\nconnection: close\r\ncontent-type: application/json\r\n";
    format!("{head}x-request-id: r-1\r\n{more}\r\n\r\n{body}").into_bytes()
}

/// Status and body of the answer in these bytes.
#[track_caller]
fn parsed(answer: &[u8]) -> (u16, Value) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("{text}")))
}

#[tokio::test]
async fn a_body_over_the_limit() {
    let gateway = Gateway::with(&[SMALL_BODIES]).await;
    let expected = problem(413, "payload_too_large", "Payload too large");
    let detail = "The body must hold at most 1048576 bytes";
    // Blanks around JSON are allowed, so that only the size is wrong.
    let padded = |size: usize| format!("{FLOWER}{}", " ".repeat(size - FLOWER.len()));
    expected.assert(&gateway.predict(&padded(1_048_577)).await, "/predict", detail);
    expected.assert(&gateway.predict(&padded(5_000_000)).await, "/predict", detail);
    assert!(gateway.keys().is_empty());
    assert_eq!(gateway.predict(&padded(1_048_576)).await.status, 202);
}

/// Sends a whole large body that no handler reads, and after it another request on the same connection. Both must be answered, the
/// first one with this status.
async fn answered(gateway: &Gateway, line: &str, length: &str, body: &[u8], status: u16) {
    let mut connection = TcpStream::connect(gateway.proxy.addr()).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nhost: tepal\r\ncontent-type: text/plain\r\n{length}\r\n\r\n");
    let next = b"GET /livez HTTP/1.1\r\nhost: tepal\r\nconnection: close\r\n\r\n";
    for part in [head.as_bytes(), body, next] {
        let sent = connection.write_all(part).await;
        assert!(sent.is_ok(), "{line}: the proxy takes no more: {sent:?}");
    }
    let mut answers = String::new();
    timeout(SOON, connection.read_to_string(&mut answers)).await.unwrap().unwrap();
    assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answers}");
    assert!(answers.ends_with("\r\n\r\nok"), "{line}: {answers}");
}

#[tokio::test]
async fn a_body_that_takes_more_memory_than_there_is_need_not_be_sent_again() {
    let memory = 8 << 20;
    let settings = [("BODY_MEMORY_BYTES", memory.to_string()), ("MAX_BODY_BYTES", "1048576".to_owned())];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateway = Gateway::with(&settings).await;
    let list = |element: &str, count| format!(r#"{{"data": [[{}0]]}}"#, element.repeat(count));
    let detail = format!(
        "Reading this body takes more than the {memory} bytes of memory for all bodies; send fewer values, or tensors in binary form"
    );
    let refused = gateway.predict(&list("[],", 340_000)).await;
    problem(503, "overloaded", "Overloaded").assert(&refused, "/predict", &detail);
    assert_eq!(refused.header("retry-after"), None);
    let batch =
        gateway.proxy.client().post_raw("/predict/batch", format!("[{}]", list("[],", 340_000))).await;
    assert_eq!((batch.status, batch.json()["detail"].as_str()), (503, Some(detail.as_str())));
    assert_eq!(gateway.predict(&list("0,", 400_000)).await.status, 422, "its values are judged");
    assert!(gateway.keys().is_empty());
    assert_eq!(gateway.predict(FLOWER).await.status, 202);
}

#[tokio::test]
async fn a_client_that_still_sends_gets_an_answer_that_does_not_depend_on_the_body() {
    let keys = Keys::with("");
    keys.add("");
    let (open, closed) = (Gateway::start().await, keys.gateway(&[]).await);
    let limited = Gateway::with(&[("RATE_LIMIT_PER_MINUTE", "1")]).await;
    limited.get("/jobs").await;
    let body = vec![b' '; 1 << 20];
    for (gateway, line, status) in [
        (&open, "POST /predict", 415),
        (&open, "POST /predict/test", 202),
        (&open, "POST /nowhere", 404),
        (&open, "PUT /predict", 405),
        (&closed, "POST /predict", 401),
        (&limited, "POST /predict", 429),
    ] {
        answered(gateway, line, &format!("content-length: {}", body.len()), &body, status).await;
    }
    let chunks = [&b"100000\r\n"[..], &body, b"\r\n0\r\n\r\n"].concat();
    answered(&open, "POST /predict", "transfer-encoding: chunked", &chunks, 415).await;
}

#[tokio::test]
async fn a_body_over_the_limit_that_does_not_say_its_length() {
    let gateway = Gateway::with(&[("MAX_BODY_BYTES", "64")]).await;
    let chunks = format!("28\r\n{:40}\r\n28\r\n{:40}\r\n0\r\n\r\n", "", "");
    let answer = raw(gateway.proxy.addr(), &request("transfer-encoding: chunked", &chunks)).await;
    let (status, body) = parsed(&answer);
    assert_eq!(
        (status, &body["code"], &body["detail"]),
        (413, &Value::from("payload_too_large"), &Value::from("The body must hold at most 64 bytes"))
    );
}

#[tokio::test]
async fn a_client_that_asks_first_need_not_send_what_is_too_large() {
    let gateway = Gateway::with(&[SMALL_BODIES]).await;
    let asking = request("expect: 100-continue\r\ncontent-length: 2000000", "");
    let (status, body) = parsed(&raw_within(gateway.proxy.addr(), &asking, SOON).await);
    assert_eq!((status, &body["code"]), (413, &Value::from("payload_too_large")));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time() {
    let gateway = Gateway::with(&[("BODY_TIMEOUT_MS", "200")]).await;
    let slow = request(&format!("content-length: {}", FLOWER.len()), &FLOWER[..10]);
    let (status, body) = parsed(&raw_within(gateway.proxy.addr(), &slow, SOON).await);
    let expected = serde_json::json!({
        "type": "/problems/request-timeout",
        "title": "Request timeout",
        "status": 408,
        "detail": "The body did not arrive in time",
        "instance": "/predict",
        "code": "request_timeout",
        "request_id": "r-1",
    });
    assert_eq!((status, body), (408, expected));
    assert!(gateway.keys().is_empty());
}

#[tokio::test]
async fn a_malformed_chunk_is_an_incomplete_body() {
    let gateway = Gateway::start().await;
    let answer =
        raw(gateway.proxy.addr(), &request("transfer-encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n")).await;
    let (status, body) = parsed(&answer);
    assert_eq!(
        (status, &body["code"], &body["detail"]),
        (400, &Value::from("incomplete_body"), &Value::from("The body did not arrive completely"))
    );
}

#[tokio::test]
async fn a_connection_whose_headers_do_not_come_is_closed() {
    let gateway = Gateway::with(&[("HEADER_TIMEOUT_MS", "200")]).await;
    let started = std::time::Instant::now();
    let answer = raw_within(gateway.proxy.addr(), b"POST /predict HTTP/1.1\r\nhost: te", SOON).await;
    assert!(started.elapsed() < SOON, "the proxy closed it");
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
}

#[tokio::test]
async fn further_connections_wait_until_a_busy_one_is_done() {
    let ask = b"GET /livez HTTP/1.1\r\nhost: tepal\r\n\r\n";
    let redis = RedisServer::shipped().start().await;
    let proxy =
        Proxy::start(&redis.proxy_url(), &[("MAX_CONNECTIONS", "1"), ("BODY_TIMEOUT_MS", "60000")]).await;
    let mut buffer = [0; 1000];
    let mut first = TcpStream::connect(proxy.addr()).await.unwrap();
    first.write_all(&request("expect: 100-continue\r\ncontent-length: 2", "")).await.unwrap();
    let length = timeout(SOON, first.read(&mut buffer)).await.unwrap().unwrap();
    assert!(buffer[..length].starts_with(b"HTTP/1.1 100 Continue"), "it reads the body");

    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    second.write_all(ask).await.unwrap();
    let early = timeout(Duration::from_millis(300), second.read(&mut buffer)).await;
    assert!(early.is_err(), "nobody serves it while the first is at work");

    first.write_all(b"{}").await.unwrap();
    let length = timeout(SOON, second.read(&mut buffer)).await.unwrap().unwrap();
    assert!(buffer[..length].starts_with(b"HTTP/1.1 200 OK"));
}
