//! Clients of a queue that serves the toy model, with their history. Every job has a unique input and a score that is known
//! beforehand, so the checker notices a lost, doubled or mixed-up job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_tests::history::{Event, Final, History, Recorder, Rules, Verdict, now_us, worker_events};
use tepal_tests::http::{Bytes, Client, Method, is_terminal};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::{eventually, poll};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::{SOON, root};

/// Between two jobs of one client.
const PACE: Duration = Duration::from_millis(4);
/// Before a refused request is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A proxy that serves the toy model.
pub(crate) async fn toy_proxy(redis_url: &str) -> Proxy {
    Proxy::start(redis_url, &[("MODELS_DIR", &models()), ("MODEL_NAME", "toy")]).await
}

/// A worker that serves the toy model and logs every attempt, which the checker needs.
pub(crate) async fn toy_worker(redis_url: &str, env: &[(&str, &str)]) -> Worker {
    let models = models();
    let toy = [
        ("MODELS_DIR", models.as_str()),
        ("MODEL_NAME", "toy"),
        ("LOG_LEVEL", "info,tepal_worker=debug"),
        ("LEASE_MS", "2000"),
    ];
    Worker::start(redis_url, &[&toy, env].concat()).await
}

fn models() -> String {
    root().join("tests/models").display().to_string()
}

/// The clients and their history; clones share both.
#[derive(Clone)]
pub(crate) struct Run {
    client: Client,
    recorder: Recorder,
    dir: Arc<TempDir>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// Clients that submit one job after the other until they are stopped.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Run {
    pub(crate) fn new(client: Client) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let recorder = Recorder::open(&dir.path().join("history.jsonl")).unwrap();
        Self { client, recorder, dir, counts: Arc::default() }
    }

    /// Submits a job, and repeats that with its idempotency key until it is accepted. Returns the id and the input.
    pub(crate) async fn submit(&self) -> (String, Value) {
        let number = self.counts.begun.fetch_add(1, Ordering::Relaxed);
        let (input, key) = (json!([[[number, 0, 0], [0, 0, 0.5]]]), format!("job-{number}"));
        let accepted = poll(SOON, || async {
            let began_us = now_us();
            let answer = self.client.try_predict(&input, &[("idempotency-key", &key)]).await;
            let event = Event::of_submit(&answer, &input, Some(&key));
            self.recorder.record(began_us, event.clone());
            match event {
                Event::Submitted { id, .. } => return Ok(id),
                Event::Refused { status, .. } => assert!([0, 503].contains(&status), "{answer:?}"),
                _ => {}
            }
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            sleep(RETRY_AFTER).await;
            Err("not accepted")
        });
        let id = accepted.await.unwrap_or_else(|gave_up| panic!("{key}: {gave_up}"));
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        (id, input)
    }

    /// Starts that many clients.
    pub(crate) fn traffic(&self, clients: usize) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let (run, stop) = (self.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    run.submit().await;
                    sleep(PACE).await;
                }
            })
        };
        let clients = (0..clients).map(|_| client()).collect();
        Traffic { stop, clients }
    }

    /// Waits until `count` more jobs are accepted.
    pub(crate) async fn more_accepted(&self, count: u64) {
        self.more(&self.counts.accepted, count, "accepted jobs").await;
    }

    /// Waits until `count` more requests are refused.
    pub(crate) async fn more_refused(&self, count: u64) {
        self.more(&self.counts.refused, count, "refused requests").await;
    }

    async fn more(&self, counter: &AtomicU64, count: u64, what: &str) {
        let goal = counter.load(Ordering::Relaxed) + count;
        eventually(SOON, what, async || {
            let now = counter.load(Ordering::Relaxed);
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        })
        .await;
    }

    /// Records a fault that was injected.
    pub(crate) fn note_fault(&self, kind: &str) {
        self.recorder.note(Event::Fault { kind: kind.to_owned(), hits: 1 });
    }

    /// The ids of all accepted jobs.
    pub(crate) fn ids(&self) -> Vec<String> {
        let records = self.recorder.records().into_iter();
        let accepted = records.filter_map(|record| match record.event {
            Event::Submitted { id, .. } => Some(id),
            _ => None,
        });
        accepted.collect()
    }

    /// Waits until every accepted job is completed; returns the bodies.
    pub(crate) async fn all_completed(&self) -> Vec<Value> {
        let mut jobs = Vec::new();
        for id in self.ids() {
            let began_us = now_us();
            let body = self.client.finished(&id, SOON).await;
            assert!(is_terminal(&body) && body["status"] == "completed", "{body}");
            self.recorder.record(began_us, Event::Observed { id, status: 200, body: body.clone() });
            jobs.push(body);
        }
        jobs
    }

    /// Stops the workers, so that their logs are complete, reads everything once more and checks every invariant.
    pub(crate) async fn verdict(
        self,
        redis: &RedisServer,
        workers: &[&Worker],
        earlier: Vec<Final>,
    ) -> Verdict {
        for worker in workers.iter().filter(|worker| worker.is_running()) {
            worker.sigterm();
            worker.wait_exit(SOON).await;
        }
        for id in self.ids() {
            let began_us = now_us();
            let path = format!("/job/{id}");
            let answer = self.client.request(Method::GET, &path, &[], Bytes::new()).await;
            let (status, body) = (answer.status, answer.json());
            self.recorder.record(began_us, Event::Observed { id, status, body });
        }
        let mut records = self.recorder.records();
        records.extend(
            workers.iter().flat_map(|worker| worker.logs().json()).flat_map(|line| worker_events(&[line])),
        );
        let history = History { records, earlier, last: dump(redis).await };
        let verdict = history.check(Rules::default(), is_score);
        drop(self.dir);
        verdict
    }
}

impl Traffic {
    /// Lets every client finish its last job.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

/// All that Redis holds of the queue.
pub(crate) async fn dump(redis: &RedisServer) -> Final {
    Final::read(&mut redis.connection().await, "predict_queue").await.unwrap()
}

/// Whether the result is half the sum of the row, plus 1.
fn is_score(input: &Value, result: &Value) -> bool {
    let sum: f64 = input[0]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|axis| axis.as_array().unwrap())
        .map(|value| value.as_f64().unwrap())
        .sum();
    *result == json!({"prediction": [sum / 2.0 + 1.0]})
}
