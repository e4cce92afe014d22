//! Large answers that many ask for and few read.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tepal_shared::{
    job::{JobId, Priority},
    queue::work::Settlement,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{interval, timeout},
};

use super::{Siege, attackers, connect, head, post};
use crate::gateway::SOON;

const MEMORY: (&str, &str) = ("BODY_MEMORY_BYTES", "16777216");
/// Smaller than the default, which needs more memory.
const LARGEST: (&str, &str) = ("MAX_BODY_BYTES", "1048576");
/// What the proxy may grow by: the 16 MiB, what it reads from Redis at a time, twice, and what each connection takes.
const MOST: u64 = 80;

impl Siege {
    /// A job with a result of this size.
    async fn job_of(&mut self, bytes: usize) -> JobId {
        let id = self.gateway.store_job(Priority::Normal).await;
        let result = json!({"prediction": 0, "text": "x".repeat(bytes)}).to_string();
        self.gateway.settle(&self.gateway.take_one().await, Settlement::Complete(result)).await;
        self.submitted += 1;
        id
    }
}

/// The status of an answer of which no more is read.
async fn status(connection: &mut TcpStream) -> u16 {
    let mut start = [0; 12];
    timeout(SOON, connection.read_exact(&mut start)).await.unwrap().unwrap();
    String::from_utf8_lossy(&start[9..]).parse().unwrap()
}

#[tokio::test]
async fn hundreds_who_ask_for_one_large_job_at_once_are_answered_from_the_same_bytes() {
    let settings = [("BODY_MEMORY_BYTES", "8388608"), LARGEST, ("BODY_TIMEOUT_MS", "600000")];
    let mut siege = Siege::lay("one large job", &settings).await;
    let id = siege.job_of(4_000_000).await;
    let count = attackers(500);
    let ask = head(&format!("GET /job/{id}"), "");
    let mut all = connect(count, siege.addr()).await;
    join_all(all.iter_mut().map(|connection| connection.write_all(ask.as_bytes()))).await;
    let statuses = join_all(all.iter_mut().map(status)).await;
    // On an overloaded machine, Redis may be out of reach for a moment. But no request is rejected for lack of memory.
    let answered = statuses.iter().filter(|status| **status == 200).count();
    let refused =
        siege.gateway.proxy.logs().json().into_iter().filter(|line| line["code"] == "overloaded").count();
    assert!(answered > 0 && refused == 0, "{answered} answered, {refused} refused");
    siege.others_are_served().await;
    siege.held(count, MOST);
}

#[tokio::test]
async fn large_jobs_whose_answers_are_read_slowly_hold_bounded_memory() {
    let mut siege = Siege::lay("large jobs, read slowly", &[MEMORY, LARGEST]).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(siege.job_of(1_000_000).await);
    }
    let count = attackers(400);
    let all = connect(count, siege.addr()).await;
    let slow = all.into_iter().enumerate().map(|(number, mut connection)| {
        let names: Vec<String> = (0..8).map(|next| ids[(number + next) % ids.len()].to_string()).collect();
        let ask = if number % 2 == 0 {
            head(&format!("GET /job/{}", names[0]), "").into_bytes()
        } else {
            post("/jobs/lookup", json!({"job_ids": names}).to_string().as_bytes())
        };
        tokio::spawn(async move {
            connection.write_all(&ask).await.unwrap();
            let status = status(&mut connection).await;
            let (mut pace, mut buffer) = (interval(Duration::from_millis(100)), [0; 4096]);
            // For at least 3 s, in which no answer is read to its end.
            for _ in 0..30 {
                pace.tick().await;
                if connection.read(&mut buffer).await.unwrap() == 0 {
                    break;
                }
            }
            status
        })
    });
    let slow: Vec<_> = slow.collect();
    siege.others_are_served().await;
    let statuses = join_all(slow).await.into_iter().map(Result::unwrap).collect::<Vec<u16>>();
    siege.held(count, MOST);
    let answered = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(answered > 0 && refused > 0 && answered + refused == count, "{answered} {refused}");
}

#[tokio::test]
async fn streams_of_large_jobs_hold_bounded_memory() {
    let mut siege =
        Siege::lay("streams of large jobs", &[MEMORY, LARGEST, ("BODY_TIMEOUT_MS", "600000")]).await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(siege.job_of(1_000_000).await);
    }
    let count = attackers(400);
    let mut all = connect(count, siege.addr()).await;
    let ask = |id: &JobId| head(&format!("GET /job/{id}"), "accept: text/event-stream\r\n").into_bytes();
    let asks: Vec<_> = ids.iter().map(ask).collect();
    join_all(all.iter_mut().zip(asks.iter().cycle()).map(|(connection, ask)| connection.write_all(ask)))
        .await;
    let statuses = join_all(all.iter_mut().map(status)).await;
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    siege.others_are_served().await;
    siege.held(count, MOST);
}
