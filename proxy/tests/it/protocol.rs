//! HTTP as it comes from other programs: other versions of it, and requests that do not say for whom they are.

use serde_json::{Value, json};
use tepal_tests::{
    http::{Answer, Method, raw},
    process::Proxy,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    expect::{assert_json, problem},
    gateway::{FLOWER, Gateway, JSON, SOON, accepted},
};

/// What a client sends that takes it for granted that the server speaks HTTP/2: the preface and empty SETTINGS.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The one answer in these bytes.
#[track_caller]
fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse().unwrap(), value.parse().unwrap())
    };
    Answer { status, headers: lines.map(header).collect(), body: body.to_owned().into() }
}

/// The answer is the problem for a request that is no HTTP/1.1: all of it, and nothing else.
#[track_caller]
fn assert_refused(answer: &Answer) {
    let id = answer.header("x-request-id").unwrap().to_owned();
    let body = json!({
        "type": "/problems/malformed-request",
        "title": "Malformed request",
        "status": 400,
        "detail": "The request is not well-formed HTTP",
        "code": "malformed_request",
        "request_id": id,
    });
    assert_eq!((answer.status, answer.json()), (400, body));
    let names: Vec<&str> = answer.headers.keys().map(|name| name.as_str()).collect();
    let expected = [
        "connection",
        "content-type",
        "content-length",
        "cache-control",
        "x-request-id",
        "x-content-type-options",
        "referrer-policy",
        "content-security-policy",
        "date",
    ];
    assert!(expected.iter().all(|name| names.contains(name)) && names.len() == expected.len(), "{names:?}");
    assert_eq!(answer.header("connection"), Some("close"));
}

/// All that comes back for these parts, each of which is sent by itself.
async fn asked(proxy: &Proxy, parts: &[&[u8]]) -> Vec<u8> {
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    connection.set_nodelay(true).unwrap();
    for part in parts {
        // It may be closed before the last part.
        let _ = connection.write_all(part).await;
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let end = timeout(SOON, connection.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "the proxy closes the connection");
    answer
}

#[tokio::test]
async fn a_client_that_speaks_http2_is_refused_with_a_problem() {
    let gateway = Gateway::start().await;
    for length in [HTTP2.len(), 24, 18] {
        assert_refused(&answer(&asked(&gateway.proxy, &[&HTTP2[..length]]).await));
    }
    // The proxy answers as soon as it knows, so only the beginning may come in parts.
    assert_refused(&answer(&asked(&gateway.proxy, &[&HTTP2[..3], &HTTP2[3..9], &HTTP2[9..]]).await));
    // Something else that begins like it.
    assert_refused(&answer(&asked(&gateway.proxy, &[b"PRI * HTTP/1.9\r\n\r\n"]).await));
    assert_eq!(gateway.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let gateway = Gateway::start().await;
    let ask = async |version: &str, hosts: &str| {
        let head = format!("GET /livez {version}\r\nx-request-id: r-1\r\nconnection: close\r\n{hosts}\r\n");
        answer(&raw(gateway.proxy.addr(), head.as_bytes()).await)
    };
    for good in ["host: tepal\r\n", "host: [::1]:8000\r\n", "host:\r\n"] {
        let answer = ask("HTTP/1.1", good).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{good}");
    }
    assert_eq!(ask("HTTP/1.0", "").await.status, 200, "only HTTP/1.1 asks for it");
    let expected = problem(400, "malformed_request", "Malformed request").header("connection", "close");
    let detail = "The request must have exactly one Host header, with a host and an optional port";
    for bad in ["", "host: a\r\nhost: a\r\n", "host: a\r\nhost: b\r\n", "host: http://a\r\n", "host: a b\r\n"]
    {
        expected.assert(&ask("HTTP/1.1", bad).await, "/livez", detail);
    }
    expected.assert(&ask("HTTP/1.0", "host: a\r\nhost: b\r\n").await, "/livez", detail);
}

#[tokio::test]
async fn a_body_that_is_not_compressed_may_say_so_in_any_case() {
    let gateway = Gateway::start().await;
    for coding in ["identity", "Identity", "IDENTITY"] {
        let headers = [JSON, ("content-encoding", coding)];
        accepted(&gateway.send(Method::POST, "/predict", &headers, FLOWER).await);
    }
    let expected = problem(415, "unsupported_media_type", "Unsupported media type");
    let detail = "The body must be sent as Content-Type: application/json, not compressed";
    for coding in ["gzip", "identity, gzip", "identityx"] {
        let headers = [JSON, ("content-encoding", coding)];
        expected.assert(&gateway.send(Method::POST, "/predict", &headers, FLOWER).await, "/predict", detail);
    }
}

#[tokio::test]
async fn the_letters_of_a_time_may_be_small() {
    let gateway = Gateway::start().await;
    let id = accepted(&gateway.predict(FLOWER).await);
    let job = gateway.get(&format!("/job/{id}")).await.json();
    for time in ["1999-12-31T23:59:59Z", "1999-12-31t23:59:59.5z"] {
        let after = gateway.get(&format!("/jobs?created_after={time}")).await;
        assert_json(&after, 200, &[], &json!({"jobs": [job]}));
        let before = gateway.get(&format!("/jobs?created_before={time}")).await;
        assert_json(&before, 200, &[], &json!({"jobs": Value::Array(Vec::new())}));
    }
}
