//! How long a connection may wait: for its first request, for the next one, and for the rest of one.

use std::time::Duration;

use tepal_tests::process::Proxy;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::gateway::{Gateway, SOON};

const SHORT: (&str, &str) = ("IDLE_TIMEOUT_MS", "300");
const LONG: (&str, &str) = ("IDLE_TIMEOUT_MS", "3600000");
const SHORT_HEADER: (&str, &str) = ("HEADER_TIMEOUT_MS", "300");
const LONG_HEADER: (&str, &str) = ("HEADER_TIMEOUT_MS", "3600000");
const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nhost: tepal\r\n\r\n";

/// One client's connection.
struct Connection(TcpStream);

impl Connection {
    async fn open(proxy: &Proxy) -> Self {
        Self(TcpStream::connect(proxy.addr()).await.unwrap())
    }

    /// A connection whose first request was answered.
    async fn used(proxy: &Proxy) -> Self {
        let mut connection = Self::open(proxy).await;
        connection.send(ASK).await;
        connection.is_answered().await;
        connection
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The whole answer to [`ASK`].
    async fn is_answered(&mut self) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let read = timeout(SOON, self.0.read_buf(&mut answer)).await.unwrap();
            assert!(read.is_ok_and(|count| count > 0), "closed: {}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    }

    /// The proxy closes the connection, and says nothing more.
    async fn closes(mut self) {
        let mut rest = Vec::new();
        let end = timeout(SOON, self.0.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the proxy keeps the connection");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[tokio::test]
async fn a_connection_may_wait_longer_for_its_next_request_than_for_its_first() {
    let gateway = Gateway::with(&[SHORT_HEADER, LONG]).await;
    let mut used = Connection::used(&gateway.proxy).await;
    // Opened later, and closed since it sends nothing.
    Connection::open(&gateway.proxy).await.closes().await;
    used.send(ASK).await;
    used.is_answered().await;
}

#[tokio::test]
async fn a_connection_that_asks_no_more_is_closed() {
    let gateway = Gateway::with(&[LONG_HEADER, SHORT]).await;
    let mut unused = Connection::open(&gateway.proxy).await;
    for _ in 0..2 {
        Connection::used(&gateway.proxy).await.closes().await;
    }
    unused.send(ASK).await;
    unused.is_answered().await;
    unused.closes().await;
}

#[tokio::test]
async fn the_head_of_a_later_request_must_arrive_as_fast_as_that_of_the_first() {
    let gateway = Gateway::with(&[SHORT_HEADER, LONG]).await;
    let mut slow = Connection::used(&gateway.proxy).await;
    slow.send(&ASK[..10]).await;
    slow.closes().await;

    // Nor may it begin before the answer.
    let mut slow = Connection::open(&gateway.proxy).await;
    slow.send(&[ASK, &ASK[..10]].concat()).await;
    slow.is_answered().await;
    slow.closes().await;

    // Byte after byte does not help.
    let mut slow = Connection::used(&gateway.proxy).await;
    let mut sent = 0;
    let mut byte = [0];
    while timeout(Duration::from_millis(50), slow.0.read(&mut byte)).await.is_err() {
        // It may be closed between two looks.
        let _ = slow.0.write_all(&ASK[sent..=sent]).await;
        sent += 1;
        assert!(sent < ASK.len() - 1, "it has had {} ms", sent * 50);
    }
}

#[tokio::test]
async fn a_head_that_has_begun_is_not_idle() {
    let gateway = Gateway::with(&[LONG_HEADER, SHORT]).await;
    let mut slow = Connection::used(&gateway.proxy).await;
    slow.send(&ASK[..10]).await;
    // Idle since later.
    Connection::used(&gateway.proxy).await.closes().await;
    slow.send(&ASK[10..]).await;
    slow.is_answered().await;
}

#[tokio::test]
async fn who_waits_for_an_answer_is_not_idle() {
    let gateway = Gateway::with(&[SHORT_HEADER, SHORT]).await;
    let id = gateway.store_job(tepal_shared::job::Priority::Normal).await;
    let mut waiting = Vec::new();
    for header in ["accept: text/event-stream", "prefer: wait=60"] {
        let mut connection = Connection::open(&gateway.proxy).await;
        let ask = format!("GET /job/{id} HTTP/1.1\r\nhost: tepal\r\nconnection: close\r\n{header}\r\n\r\n");
        connection.send(ask.as_bytes()).await;
        waiting.push(connection);
    }
    // Idle since later.
    Connection::used(&gateway.proxy).await.closes().await;
    gateway.delete(&format!("/job/{id}")).await;
    for mut connection in waiting {
        let mut answer = String::new();
        timeout(SOON, connection.0.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.contains("\"cancelled\""), "{answer}");
    }
}
