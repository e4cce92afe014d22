//! Heads that two programs could read differently: each has one whole answer, and the connection goes on or ends as it says.

use serde_json::{Value, json};
use tepal_tests::http::raw;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::gateway::{FLOWER, Gateway, SOON};

/// One answer.
#[derive(Debug)]
struct Received {
    status: String,
    headers: Vec<String>,
    body: String,
}

/// All answers in these bytes, each of which has a length.
fn answers(bytes: &[u8]) -> Vec<Received> {
    let mut rest = std::str::from_utf8(bytes).unwrap();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = rest.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {rest}"));
        let mut lines = head.split("\r\n").map(str::to_owned);
        let status = lines.next().unwrap();
        let headers: Vec<String> = lines.collect();
        let length = headers.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let (body, next) = behind.split_at(length.parse().unwrap());
        all.push(Received { status, headers, body: body.to_owned() });
        rest = next;
    }
    all
}

/// Asserts that the last of the answers is this problem, all of it, and that it ends the connection.
#[track_caller]
fn assert_refused(bytes: &[u8], before: usize, status: &str, code: &str, title: &str, detail: &str) {
    let mut all = answers(bytes);
    assert_eq!(all.len(), before + 1, "{all:?}");
    let Received { status: given, headers, body } = all.pop().unwrap();
    assert_eq!(given, format!("HTTP/1.1 {status}"));
    let names = |lines: &[String]| {
        let name = |line: &String| line.split_once(": ").unwrap().0.to_owned();
        let mut names: Vec<String> = lines.iter().map(name).collect();
        names.sort_unstable();
        names
    };
    let expected = [
        "cache-control",
        "connection",
        "content-length",
        "content-security-policy",
        "content-type",
        "date",
        "referrer-policy",
        "x-content-type-options",
        "x-request-id",
    ];
    assert_eq!(names(&headers), expected);
    assert!(headers.contains(&"connection: close".to_owned()), "{headers:?}");
    assert!(headers.contains(&"content-type: application/problem+json".to_owned()), "{headers:?}");
    let mut body: Value = serde_json::from_str(&body).unwrap();
    assert!(body.as_object_mut().unwrap().remove("request_id").is_some_and(|id| id.is_string()), "{body}");
    let number: u16 = status[..3].parse().unwrap();
    let kind = format!("/problems/{}", code.replace('_', "-"));
    assert_eq!(body, json!({"type": kind, "title": title, "status": number, "detail": detail, "code": code}));
}

/// What comes back for these bytes, sent in pieces of `size`.
async fn in_pieces(addr: &str, bytes: &[u8], size: usize) -> Vec<u8> {
    let mut connection = TcpStream::connect(addr).await.unwrap();
    connection.set_nodelay(true).unwrap();
    for piece in bytes.chunks(size) {
        if connection.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    assert!(timeout(SOON, connection.read_to_end(&mut answer)).await.is_ok(), "the connection is left open");
    answer
}

const GOOD: &str = "GET /livez HTTP/1.1\r\nhost: tepal\r\n\r\n";

#[tokio::test]
async fn a_line_feed_alone_ends_no_line_of_a_head() {
    let gateway = Gateway::start().await;
    let addr = gateway.proxy.addr();
    let detail = "Each line of the request's head must end with CRLF, not with LF alone";
    let (status, code, title) = ("400 Bad Request", "malformed_request", "Malformed request");
    let mut bad: Vec<String> =
        GOOD.match_indices("\r\n").map(|(at, _)| format!("{}{}", &GOOD[..at], &GOOD[at + 1..])).collect();
    bad.push(GOOD.replace("\r\n", "\n"));
    bad.push(format!("\n{GOOD}"));
    bad.push(GOOD.replace("\r\n\r\n", "\r\nx: 1\ncontent-length: 5\r\n\r\n"));
    for bad in &bad {
        for before in [0, 2] {
            let text = GOOD.repeat(before) + bad + GOOD;
            for size in [1, 7, text.len()] {
                let received = in_pieces(addr, text.as_bytes(), size).await;
                assert_refused(&received, before, status, code, title, detail);
            }
        }
    }
}

#[tokio::test]
async fn bodies_may_hold_any_bytes_and_the_next_request_is_found_behind_them() {
    let gateway = Gateway::start().await;
    let addr = gateway.proxy.addr();
    let body = FLOWER.replace(", ", ",\n\n");
    let post = |lines: &str| {
        format!("POST /predict HTTP/1.1\r\nhost: tepal\r\ncontent-type: application/json\r\n{lines}\r\n")
    };
    let (one, two) = body.split_at(9);
    let chunks = format!("{:x};a=\"b\"\r\n{one}\r\n{:X}\r\n{two}\r\n0\r\nx: y\r\n\r\n", one.len(), two.len());
    let text = [
        GOOD,
        &post(&format!("content-length: {}\r\n", body.len())),
        &body,
        GOOD,
        &post("Transfer-Encoding: Chunked\r\n"),
        &chunks,
        "\r\n",
        GOOD,
    ]
    .concat();
    for size in [1, 50, text.len()] {
        let received = in_pieces(addr, format!("{text}\n").as_bytes(), size).await;
        let statuses: Vec<String> =
            answers(&received).into_iter().map(|received| received.status[9..12].to_owned()).collect();
        assert_eq!(statuses, ["200", "202", "200", "202", "200", "400"], "in pieces of {size}");
    }
}

#[tokio::test]
async fn chunked_is_the_only_transfer_coding() {
    let gateway = Gateway::start().await;
    let addr = gateway.proxy.addr();
    let head = |lines: &str| {
        format!(
            "{GOOD}POST /predict HTTP/1.1\r\nhost: tepal\r\ncontent-type: application/json\r\n{lines}\r\n"
        )
    };
    for lines in [
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity\r\ncontent-length: 0\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "Transfer-Encoding:\r\n",
        "transfer-encoding: \u{b}chunked\r\n",
    ] {
        let text = head(lines) + "0\r\n\r\n";
        let received = in_pieces(addr, text.as_bytes(), text.len()).await;
        let detail = "The only Transfer-Encoding of a body is chunked";
        let (status, code) = ("501 Not Implemented", "unknown_transfer_coding");
        assert_refused(&received, 1, status, code, "Unknown transfer coding", detail);
    }
    assert_eq!(gateway.log_length(), 0);
}

#[tokio::test]
async fn a_header_that_counts_is_given_once() {
    let gateway = Gateway::start().await;
    let addr = gateway.proxy.addr();
    let length = format!("content-length: {}\r\n", FLOWER.len());
    let json = "content-type: application/json\r\n";
    let key = "idempotency-key: one\r\n";
    for (name, lines) in [
        ("Content-Type", format!("{json}{json}")),
        ("Content-Type", format!("{json}content-type: text/plain\r\n")),
        ("Idempotency-Key", format!("{json}{key}{key}")),
        ("Idempotency-Key", format!("{json}{key}idempotency-key: two\r\n")),
    ] {
        let head = "POST /predict HTTP/1.1\r\nhost: tepal\r\nx-request-id: r-1\r\nconnection: close\r\n";
        let received = raw(addr, format!("{head}{lines}{length}\r\n{FLOWER}").as_bytes()).await;
        let received = answers(&received).pop().unwrap();
        assert_eq!(received.status, "HTTP/1.1 400 Bad Request");
        let body: Value = serde_json::from_str(&received.body).unwrap();
        let expected = json!({
            "type": "/problems/repeated-header",
            "title": "Repeated header",
            "status": 400,
            "detail": format!("The header {name} must be given only once"),
            "instance": "/predict",
            "code": "repeated_header",
            "request_id": "r-1",
        });
        assert_eq!(body, expected);
    }
    assert_eq!(gateway.log_length(), 0);
}
