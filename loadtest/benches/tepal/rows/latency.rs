//! Time from the scheduled submission of a job until its result is stored, with the ONNX Iris model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::aio::PubSub;
use tepal_shared::job::JobId;
use tepal_tests::http::Client;
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Measured, Row, Target, say};
use crate::series::Series;
use crate::tools::BODY;
use crate::{Scale, parts, queue::Queue};

const PER_SECOND: f64 = 100.0;
/// The longest wait for the last jobs.
const LAST_JOBS_TIMEOUT: Duration = Duration::from_secs(30);
/// The pacing thread sleeps until this long before a job is due, and then spins.
const SPIN: Duration = Duration::from_micros(150);

/// How jobs are submitted.
#[derive(Clone)]
pub(super) enum Via {
    /// `POST /predict` of a proxy.
    Http(Arc<Client>),
    /// The store, as the proxy uses it.
    Store(Arc<Queue>),
}

/// Milliseconds from the scheduled submission until the end was published.
pub(super) struct Latencies(Vec<f64>);

pub(super) async fn measure(measured: &mut Measured, scale: Scale) {
    let redis = parts::redis().await;
    let queue = Arc::new(Queue::of(&redis).await);
    let proxy = parts::proxy(&redis).await;
    let _worker = parts::worker(&redis, &[]).await;
    let vias = [Via::Http(Arc::new(Client::new(&proxy.url))), Via::Store(Arc::clone(&queue))];
    open_loop(&redis, &vias[0], PER_SECOND, Duration::from_secs(1)).await;
    let mut percentiles = [const { Series::new() }; 4];
    for round in 0..scale.rounds {
        for (number, via) in vias.iter().enumerate() {
            let latencies = open_loop(&redis, via, PER_SECOND, scale.length * 2).await;
            for (at, share) in [0.5, 0.99].into_iter().enumerate() {
                let value = latencies.percentile(share);
                say(round, &format!("{} p{}", via.name(), share * 100.0), value, "ms");
                percentiles[number * 2 + at].push(value);
            }
        }
    }
    let [http_p50, http_p99, store_p50, store_p99] = percentiles;
    let row = |what: &str, series, limit| Row::value(what, series, "ms", Target::AtMost(limit));
    measured.rows.extend([
        row("`POST /predict` to result stored, 100 jobs/s, ONNX Iris, p50", http_p50, 1.0),
        row("the same, p99", http_p99, 2.5),
        row("the store's submit to result stored, likewise, p50", store_p50, 0.8),
        row("the same, p99", store_p99, 2.5),
    ]);
}

/// Submits `per_second` jobs for `length` without waiting for their results, and then waits for the end of all.
pub(super) async fn open_loop(
    redis: &RedisServer,
    via: &Via,
    per_second: f64,
    length: Duration,
) -> Latencies {
    let count = (per_second * length.as_secs_f64()) as usize;
    let ended = Arc::<Mutex<HashMap<JobId, Instant>>>::default();
    let listening = tokio::spawn(collect(subscribe(redis).await, Arc::clone(&ended)));
    let mut submissions = JoinSet::new();
    let mut due = pace(count, per_second);
    while let Some(intended) = due.recv().await {
        let via = via.clone();
        submissions.spawn(async move { (via.submit().await, intended) });
    }
    let intended = submissions.join_all().await;
    // Other jobs may end meanwhile.
    eventually(LAST_JOBS_TIMEOUT, "the end of every job", async || {
        let ended = ended.lock().expect("no panic while held");
        intended.iter().all(|(id, _)| ended.contains_key(id))
    })
    .await;
    listening.abort();
    let ended = ended.lock().expect("no panic while held");
    let times = intended.into_iter().map(|(id, intended)| (ended[&id] - intended).as_secs_f64() * 1_000.0);
    let mut times: Vec<_> = times.collect();
    times.sort_by(f64::total_cmp);
    Latencies(times)
}

impl Latencies {
    pub(super) fn percentile(&self, share: f64) -> f64 {
        self.0[((self.0.len() as f64 * share) as usize).min(self.0.len() - 1)]
    }
}

impl Via {
    fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "POST /predict to result,",
            Self::Store(_) => "submit to result,",
        }
    }

    async fn submit(&self) -> JobId {
        match self {
            Self::Store(queue) => queue.submit().await,
            Self::Http(client) => {
                let headers = [("content-type", "application/json")];
                let answer =
                    client.request(tepal_tests::http::Method::POST, "/predict", &headers, BODY).await;
                assert_eq!(answer.status, 202, "{}", answer.text());
                answer.json()["job_id"].as_str().expect("a job id").parse().expect("a job id")
            }
        }
    }
}

/// Redis publishes when a job gets its lifetime, which is when it ends. Nobody can follow the channels of all jobs.
async fn subscribe(redis: &RedisServer) -> PubSub {
    redis.cli(&["CONFIG", "SET", "notify-keyspace-events", "Kg"]);
    let client = redis::Client::open(redis.url()).expect("a valid address");
    let mut ends = client.get_async_pubsub().await.expect("Redis answers");
    ends.psubscribe("__keyspace@0__:*:job:*").await.expect("Redis answers");
    ends
}

/// Notes when jobs complete.
async fn collect(mut ends: PubSub, ended: Arc<Mutex<HashMap<JobId, Instant>>>) {
    let mut messages = ends.on_message();
    while let Some(message) = messages.next().await {
        let now = Instant::now();
        if message.get_payload_bytes() != b"expire" {
            continue;
        }
        let id = message.get_channel_name().rsplit(':').next().unwrap_or_default();
        let id = id.parse().expect("a job's channel");
        ended.lock().expect("no panic while held").insert(id, now);
    }
}

/// Sends the scheduled time of each job when it has come.
fn pace(count: usize, per_second: f64) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let started = Instant::now();
        for number in 0..count {
            let due = started + Duration::from_secs_f64(number as f64 / per_second);
            std::thread::sleep(due.saturating_duration_since(Instant::now()).saturating_sub(SPIN));
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}
