//! Heads of requests that are slow, large, or no HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, interval},
};

use super::{Siege, ask, attackers, connect, head, outcome, to_the_end};
use crate::gateway::SOON;

#[tokio::test]
async fn heads_that_come_byte_by_byte() {
    let mut siege = Siege::lay("slow heads", &[("HEADER_TIMEOUT_MS", "2000")]).await;
    let count = attackers(500);
    let text = head("GET /livez", &format!("x: {}\r\n", "a".repeat(4000)));
    let slow = connect(count, siege.addr()).await.into_iter().map(|mut connection| {
        let text = text.clone();
        tokio::spawn(async move {
            let (started, mut pace) = (Instant::now(), interval(Duration::from_millis(100)));
            for byte in text.as_bytes() {
                pace.tick().await;
                if connection.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            started.elapsed()
        })
    });
    let slow: Vec<_> = slow.collect();
    siege.others_are_served().await;
    siege.held(count, 32);
    for ended in join_all(slow).await {
        assert!(ended.unwrap() < SOON, "cut off long before the 400 s that the head would take");
    }
}

#[tokio::test]
async fn heads_that_do_not_end() {
    let mut siege = Siege::lay("endless heads", &[("HEADER_TIMEOUT_MS", "5000")]).await;
    // 125 MiB together, of which the proxy holds at most 8, and 8 KiB of each.
    let count = attackers(2000);
    let line = format!("x: {}\r\n", "a".repeat(8000));
    let flood = format!("GET / HTTP/1.1\r\n{}", line.repeat(8));
    let mut flooding = connect(count, siege.addr()).await;
    join_all(flooding.iter_mut().map(|connection| connection.write_all(flood.as_bytes()))).await;
    siege.others_are_served().await;
    siege.held(count, 128);
    join_all(flooding.into_iter().map(to_the_end)).await;
}

#[tokio::test]
async fn heads_beyond_a_limit_get_the_error_of_that_limit() {
    let mut siege = Siege::lay("heads beyond the limits", &[]).await;
    let header = |count: usize, length: usize| {
        (0..count).fold(String::new(), |all, number| all + &format!("x-{number}: {}\r\n", "a".repeat(length)))
    };
    let cases = [
        (head("GET /livez", &header(150, 1)), (431, "headers_too_large")),
        (head("GET /livez", &header(5, 8000)), (431, "headers_too_large")),
        (head("GET /livez", &header(1, 500_000)), (431, "headers_too_large")),
        (head(&format!("GET /jobs?cursor={}", "1".repeat(9_000)), ""), (414, "uri_too_long")),
        (head(&format!("GET /{}", "a".repeat(70_000)), ""), (414, "uri_too_long")),
    ];
    let addr = siege.addr();
    for round in 0..10 {
        let (request, expected) = &cases[round % cases.len()];
        let answers = join_all((0..20).map(|_| ask(addr, request.as_bytes()))).await;
        for answer in answers {
            let (status, code) = outcome(&answer);
            assert_eq!((status, code.as_str()), *expected);
        }
    }
    siege.others_are_served().await;
    siege.held(200, 64);
}

#[tokio::test]
async fn garbage_after_a_request_ends_the_connection() {
    let mut siege = Siege::lay("pipelined garbage", &[]).await;
    let addr = siege.addr();
    let good = "GET /livez HTTP/1.1\r\nhost: tepal\r\n\r\n";
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0\0\0\0", b"{}\n", b"GET\r\n\r\n"]
    {
        let bytes = [good.repeat(100).as_bytes(), garbage, &b"\xff".repeat(100)].concat();
        let answers = join_all((0..20).map(|_| ask(addr, &bytes))).await;
        for answer in answers {
            let text = String::from_utf8_lossy(&answer);
            assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 100);
            assert_eq!(text.matches("\"code\":\"malformed_request\"").count(), 1, "{text}");
        }
    }
    siege.others_are_served().await;
    siege.held(80, 32);
}

#[tokio::test]
async fn bytes_that_are_no_text_in_paths_queries_and_headers() {
    let mut siege = Siege::lay("no UTF-8", &[]).await;
    let addr = siege.addr();
    let post = |header: &str| {
        let more = format!("content-type: application/json\r\ncontent-length: 32\r\n{header}");
        head("POST /predict", &more) + crate::gateway::FLOWER
    };
    let cases = [
        (head("GET /job/%ff%fe", ""), (404, "job_not_found")),
        (head("GET /jobs?status=%ff", ""), (422, "invalid_input")),
        (head("GET /jobs?%ff=1", ""), (422, "invalid_input")),
        (head("GET /%c0%af..%c0%af", ""), (404, "not_found")),
        (post("idempotency-key: \u{1}\r\n"), (400, "malformed_request")),
        (post("idempotency-key: \u{e9}\r\n"), (422, "invalid_input")),
    ];
    for (request, expected) in &cases {
        // Latin-1, so that the last ones are no UTF-8.
        let bytes: Vec<u8> = request.chars().map(|character| character as u8).collect();
        let (status, code) = outcome(&ask(addr, &bytes).await);
        assert_eq!((status, code.as_str()), *expected, "{request}");
    }
    for header in [
        "prefer: wait=\u{ff}\r\n",
        "traceparent: \u{ff}\r\n",
        "x-request-id: \u{ff}\r\n",
        "accept: \u{ff}\r\n",
    ] {
        let bytes: Vec<u8> = post(header).chars().map(|character| character as u8).collect();
        assert_eq!(
            outcome(&ask(addr, &bytes).await).0,
            202,
            "what is no text is as good as absent: {header}"
        );
        siege.submitted += 1;
    }
    siege.others_are_served().await;
    siege.held(10, 32);
}

#[tokio::test]
async fn a_raw_byte_in_a_path_is_no_http() {
    let siege = Siege::lay("a raw byte in a path", &[]).await;
    for line in [&b"GET /job/\xff HTTP/1.1\r\n\r\n"[..], b"GET /jobs?x=\0 HTTP/1.1\r\n\r\n"] {
        let mut connection = connect(1, siege.addr()).await.remove(0);
        connection.write_all(line).await.unwrap();
        let mut buffer = [0; 2048];
        let length = connection.read(&mut buffer).await.unwrap();
        let (status, code) = outcome(&buffer[..length]);
        assert!(
            (status, code.as_str()) == (400, "malformed_request")
                || (status, code.as_str()) == (404, "job_not_found"),
            "{status} {code}"
        );
    }
}
