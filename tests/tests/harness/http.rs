//! The HTTP client against canned answers.

use std::time::Duration;

use serde_json::json;
use tepal_tests::http::{Client, NoAnswer, raw};
use tepal_tests::ports::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::SOON;

/// Answers each connection with these bytes, after the first bytes of a request.
async fn canned(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    addr
}

#[tokio::test]
async fn the_client_submits_and_waits_through_a_broken_answer() {
    let addr = canned(&[
        "HTTP/1.1 202 Accepted\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{\"job_id\": \"a\"}",
        "HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 22\r\nconnection: close\r\n\r\n{\"status\":\"completed\"}",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ntotal{a=\"1\"} 2\ntotal{a=\"2\"} 3\ntotal_b 9\n",
    ]);
    let client = Client::new(&format!("http://{}", addr.await));

    let id = client.predict(&json!([[1.0]])).await;
    let job = client.finished(&id, SOON).await;
    let metrics = client.get("/metrics").await;

    assert_eq!(job["status"], "completed");
    assert!((metrics.metric("total") - 5.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn the_client_distinguishes_unsent_from_unanswered() {
    let nobody = Client::new(&format!("http://127.0.0.1:{}", free_port()));
    assert!(matches!(nobody.try_get("/").await, Err(NoAnswer::NotSent(_))));

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Client::new(&format!("http://{}", silent.local_addr().unwrap()));
    let answer = silent.with_timeout(Duration::from_millis(30)).try_get("/").await;
    assert!(matches!(answer, Err(NoAnswer::Unknown(_))), "{answer:?}");

    let cut = canned(&["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"]).await;
    let answer = Client::new(&format!("http://{cut}")).try_get("/").await;
    assert!(matches!(answer, Err(NoAnswer::Unknown(_))), "{answer:?}");
}

#[tokio::test]
async fn raw_bytes_get_a_raw_answer() {
    let addr = canned(&["HTTP/1.1 400 Bad Request\r\n\r\n"]).await;

    assert_eq!(raw(&addr, b"\x00 nonsense").await, b"HTTP/1.1 400 Bad Request\r\n\r\n");
}
