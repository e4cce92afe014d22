//! Panics in the tasks other than consumers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser as _;
use futures_util::future::BoxFuture;
use tepal_shared::{job::Priority, process::supervisor, tensor::Tensor};
use tepal_tests::{saboteur::Saboteur, wait::eventually};
use tepal_worker::{
    backend::{self, Backend, BackendError, ModelCall},
    settings::{Args, Config},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    flowers::input,
    queue::{Queue, SOON, stream},
};

/// Long enough for every task to fail once before the lease lapses; renewed every 4 s.
const LEASE_MS: &str = "12000";

/// The iris model, which answers when it may. Its second probe panics.
struct Patient {
    iris: Arc<dyn Backend>,
    may_answer: Semaphore,
    calls: AtomicUsize,
    probes: AtomicUsize,
}

impl Backend for Patient {
    fn name(&self) -> &'static str {
        self.iris.name()
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let _permit = self.may_answer.acquire().await.unwrap();
            self.iris.predict(call).await
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<serde_json::Value, BackendError>> {
        let earlier = self.probes.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            assert!(earlier != 1, "a bug of the test's own, in the probe");
            self.iris.probe().await
        })
    }
}

fn config(url: &str) -> Config {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let args = ["tepal-worker", "--redis-url", url, "--models-dir", models, "--lease-ms", LEASE_MS];
    let one = ["--num-workers", "1", "--max-in-flight", "1", "--inference-timeout-ms", "60000"];
    Config::try_from(Args::try_parse_from(args.into_iter().chain(one)).unwrap()).unwrap()
}

/// How long the oldest entry has not been renewed, ms.
fn idle_ms(queue: &Queue, stream: &str) -> u64 {
    let pending = queue.redis.cli(&["XPENDING", stream, "workers", "-", "+", "1"]);
    pending.lines().nth(2).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_task_that_panics_starts_again_and_does_its_work() {
    let queue = Queue::start().await;
    let stream = queue.store.queue.keys().stream(0, stream(Priority::Normal));
    queue.redis.cli(&["ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all"]);
    let config = config(&format!("redis://worker:secret@{}", queue.redis.addr()));
    let iris = backend::open(&config.backend, config.common.model.as_ref().unwrap()).unwrap();
    let (calls, probes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let backend = Arc::new(Patient { iris, may_answer: Semaphore::new(0), calls, probes });
    let (saboteur, _guard) = Saboteur::start(&["heartbeat_failed", "renew_failed", "upkeep_failed"]);
    let shutdown = CancellationToken::new();
    let worker =
        tokio::spawn(tepal_worker::run_with(config, Arc::<Patient>::clone(&backend), shutdown.clone()));
    let running = queue.submit(input(5.1)).await;
    let is_running = async || backend.calls.load(Ordering::Relaxed) == 1;
    eventually(SOON, "the job to run", is_running).await;
    let waiting = queue.submit(input(5.1)).await;

    // The worker may touch no key: each of its tasks fails, logs that, and panics.
    queue.redis.cli(&["ACL", "SETUSER", "worker", "resetkeys"]);
    eventually(SOON, "all tasks to panic", async || match saboteur.armed() {
        armed if armed.is_empty() => Ok(()),
        armed => Err(format!("{armed:?}")),
    })
    .await;
    let idle_before = idle_ms(&queue, &stream);
    let entries = queue.redis.cli(&["XRANGE", &stream, "-", "+"]);
    let last = entries.lines().rfind(|line| line.contains('-') && line.len() < 20).unwrap();
    queue.redis.cli(&["XDEL", &stream, last]);
    queue.redis.cli(&["ACL", "SETUSER", "worker", "~*"]);

    let renewed = async || idle_ms(&queue, &stream) < idle_before;
    eventually(SOON, "the lease to be renewed", renewed).await;
    let beats = async || {
        let workers = queue.store.views.workers().await.unwrap();
        workers.iter().any(|worker| worker.silence < Duration::from_secs(1))
    };
    eventually(SOON, "a heartbeat", beats).await;
    let repaired = async || queue.redis.cli(&["XLEN", &stream]) == "2";
    eventually(SOON, "the lost entry to be repaired", repaired).await;
    let probed = async || backend.probes.load(Ordering::Relaxed) >= 4;
    eventually(SOON, "more probes", probed).await;

    backend.may_answer.add_permits(Semaphore::MAX_PERMITS >> 4);
    let job = queue.completed(running).await;
    assert_eq!(job.attempts, 1, "its lease lapsed");
    queue.completed(waiting).await;
    let failures = supervisor::failures();
    for task in ["heartbeat", "lease_keeper", "janitor", "breaker"] {
        assert_eq!(failures[task], 1, "{task}");
    }
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}
