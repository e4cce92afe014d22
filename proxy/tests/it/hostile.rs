//! Hostile clients, by the hundred, against the real proxy: each is refused or cut off in bounded time, memory stays
//! within a stated bound, nothing of what they send reaches Redis, and others are served meanwhile.
//!
//! Each test prints what it measured; docs/operations.md has the figures:
//! `cargo test --release -p tepal-proxy --test it hostile -- --nocapture --test-threads 1`.

mod answers;
mod bodies;
mod connections;
mod heads;
mod json;
mod slots;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::Value;
use tepal_shared::{
    job::{JobId, Priority},
    queue::work::Settlement,
};
use tepal_tests::http::Client;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::gateway::{FLOWER, Gateway, SOON};

/// What one of the others may wait for an answer: far more than it takes, on a machine that does much else.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

/// A proxy under attack.
struct Siege {
    what: &'static str,
    gateway: Gateway,
    /// The most memory that the proxy held before the attack, MiB.
    before: u64,
    submitted: u64,
    slowest: Duration,
}

impl Siege {
    async fn lay(what: &'static str, settings: &[(&str, &str)]) -> Self {
        let gateway = Gateway::with(settings).await;
        let before = peak_mib(gateway.proxy.pid());
        let siege = Self { what, gateway, before, submitted: 0, slowest: Duration::ZERO };
        assert_eq!(siege.gateway.log_length(), 0);
        siege
    }

    /// Where the attackers connect.
    fn addr(&self) -> SocketAddr {
        self.gateway.proxy.addr().parse().unwrap()
    }

    /// A job with a result of 100 KB.
    async fn large_job(&mut self) -> JobId {
        let id = self.gateway.store_job(Priority::Normal).await;
        let result = serde_json::json!({"prediction": 0, "text": "x".repeat(100_000)}).to_string();
        self.gateway.settle(&self.gateway.take_one().await, Settlement::Complete(result)).await;
        self.submitted += 1;
        id
    }

    /// Others come, one after the other, each with a connection of its own, and get what they ask for.
    async fn others_are_served(&mut self) {
        for _ in 0..5 {
            let started = Instant::now();
            let other = Client::new(self.gateway.proxy.base_url()).with_timeout(SERVED_WITHIN);
            let answer = other.post_raw("/predict", FLOWER).await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            self.submitted += 1;
            let id = answer.json()["job_id"].as_str().unwrap().to_owned();
            assert_eq!(other.job(&id).await["status"], "pending");
            assert_eq!(other.get("/job/a1b2c3").await.status, 404);
            self.slowest = self.slowest.max(started.elapsed());
        }
    }

    /// Says how it went. The proxy must not have grown by more than `most` MiB, nor Redis have got anything of the
    /// attackers.
    #[allow(clippy::print_stdout, reason = "docs/operations.md has the figures")]
    fn held(&self, attackers: usize, most: u64) {
        let now = peak_mib(self.gateway.proxy.pid());
        println!(
            "{}: {attackers} attackers, peak of memory {} -> {now} MiB, slowest three requests of another {:?}",
            self.what, self.before, self.slowest
        );
        assert!(now <= self.before + most, "{}: {} -> {now} MiB", self.what, self.before);
        assert_eq!(self.gateway.log_length(), self.submitted, "jobs of the others, and no more");
        assert!(self.gateway.proxy.is_running());
    }
}

/// The most memory that a process has held so far, MiB; see proc(5).
pub(crate) fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

/// `wanted` attackers, or as many as this process and the proxy may have files open, beside what else runs here.
fn attackers(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft = line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    wanted.min(soft.saturating_sub(300) / 2)
}

/// So many connections. On Linux all of 127.0.0.0/8 is this machine, so that they need not share ports.
async fn connect(count: usize, addr: SocketAddr) -> Vec<TcpStream> {
    assert!(matches!(addr.ip(), IpAddr::V4(_)));
    let mut connections = Vec::with_capacity(count);
    while connections.len() < count {
        let some = (count - connections.len()).min(100);
        let opened = join_all((0..some).map(|_| TcpStream::connect(addr))).await;
        connections.extend(opened.into_iter().map(Result::unwrap));
    }
    connections
}

/// Reads until the proxy closes the connection, in whatever way.
async fn to_the_end(mut connection: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let end = timeout(SOON, connection.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "the proxy closes the connection; so far {}", String::from_utf8_lossy(&answer));
    answer
}

/// Sends bytes, which may be refused before they are all sent, and reads the answer to its end.
async fn ask(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let connection = TcpStream::connect(addr).await.unwrap();
    let (mut reader, mut writer) = connection.into_split();
    let mut answer = Vec::new();
    let write = async {
        let _ = writer.write_all(bytes).await;
        std::future::pending::<()>().await;
    };
    let read = timeout(SOON, reader.read_to_end(&mut answer));
    tokio::select! {
        end = read => assert!(end.is_ok(), "the proxy closes the connection"),
        () = write => {}
    }
    answer
}

/// Status and code of an answer; a bare status, and a closed connection, have no code.
fn outcome(answer: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return (0, text.into_owned()) };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

/// The head of a request that ends its connection.
fn head(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: tepal\r\nconnection: close\r\n{more}\r\n")
}

/// A whole `POST` of JSON.
fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let more = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    [head(&format!("POST {path}"), &more).as_bytes(), body].concat()
}
