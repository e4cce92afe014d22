//! A bug that panics while jobs run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Parser as _;
use futures_util::future::BoxFuture;
use tepal_shared::{
    process::supervisor,
    queue::{Policy, heartbeat::BackendState},
    tensor::{Element as _, Tensor},
};
use tepal_tests::redis::RedisServer;
use tepal_worker::{
    backend::{self, Backend, BackendError, ModelCall, Verdict},
    settings::{Args, Config},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{flowers::input, queue::Queue, settings::Settings};

const POISON: f32 = 9.5;

/// The iris model with a bug: it panics at one input, in the task that runs the batch, when `panic` has a permit.
struct Brittle {
    iris: Arc<dyn Backend>,
    /// Whether the model answers.
    is_up: AtomicBool,
    panic: Semaphore,
}

impl Brittle {
    fn new(config: &Config, is_let: bool) -> Arc<Self> {
        let iris = backend::open(&config.backend, config.common.model.as_ref().unwrap()).unwrap();
        let panic = Semaphore::new(if is_let { Semaphore::MAX_PERMITS } else { 0 });
        Arc::new(Self { iris, is_up: AtomicBool::new(true), panic })
    }
}

impl Backend for Brittle {
    fn name(&self) -> &'static str {
        self.iris.name()
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        if !f32::all(&call.batch.inputs[0].data).any(|value| value == POISON) {
            return self.iris.predict(call);
        }
        Box::pin(async {
            self.is_up.store(self.panic.available_permits() > 0, Ordering::Relaxed);
            let _permit = self.panic.acquire().await.unwrap();
            panic!("a bug of the test's own");
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<serde_json::Value, BackendError>> {
        if self.is_up.load(Ordering::Relaxed) {
            return self.iris.probe();
        }
        let gone = || BackendError::new(Verdict::Unavailable, "unavailable", "it went away");
        Box::pin(async move { Err(gone()) })
    }
}

async fn queue() -> Queue {
    let policy = Policy { lease: Duration::from_millis(300), ..Policy::default() };
    Queue::with_policy(RedisServer::shipped().start().await, policy)
}

fn config(queue: &Queue) -> Config {
    let url = queue.redis.worker_url();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let args = ["tepal-worker", "--redis-url", &url, "--models-dir", models, "--num-workers", "1"];
    let often = ["--lease-ms", "300", "--reclaim-interval-ms", "100"];
    Config::try_from(Args::try_parse_from(args.into_iter().chain(often)).unwrap()).unwrap()
}

#[tokio::test]
async fn a_batch_that_panics_keeps_no_job_for_ever_and_stops_no_consumer() {
    let queue = queue().await;
    let config = config(&queue);
    let poison = queue.submit(input(POISON)).await;
    let others = queue.submit_all((0..10).map(|_| input(5.1))).await;

    let backend = Brittle::new(&config, true);
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(tepal_worker::run_with(config, backend, shutdown.clone()));

    queue.all_completed(&others).await;
    let error = "The worker was lost 3 times while running the job";
    assert_eq!(queue.failed(poison).await, (error.to_owned(), "worker_lost".to_owned(), 3));
    queue.assert_drained().await;
    assert!(supervisor::failures()["consumer"] >= 3, "each panic is counted");
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_while_the_model_is_away_leaves_the_job_to_other_workers() {
    let queue = queue().await;
    let config = config(&queue);
    let backend = Brittle::new(&config, false);
    let shutdown = CancellationToken::new();
    let worker =
        tokio::spawn(tepal_worker::run_with(config, Arc::<Brittle>::clone(&backend), shutdown.clone()));
    let poison = queue.submit(input(POISON)).await;
    // Its consumer waits only for the model.
    queue.backend_is(BackendState::Down).await;

    backend.panic.add_permits(1);

    let _other = queue.worker(Settings::onnx().with_lease_ms(300)).await;
    assert!(queue.completed(poison).await.attempts > 1, "the attempt that panicked cannot have completed it");
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}
