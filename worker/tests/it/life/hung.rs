//! A model that accepts calls and answers none, not even a probe.

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
    job::{JobStatus, NewJob},
    queue::heartbeat::BackendState,
    tensor::Tensor,
};
use tepal_worker::{
    backend::{self, Backend, BackendError, ModelCall, Verdict},
    settings::{Args, Config},
};
use tokio_util::sync::CancellationToken;

use crate::{
    flowers::input,
    queue::{Queue, new_job},
};

/// The iris model, which hangs from its first call on.
struct Hung {
    iris: Arc<dyn Backend>,
    is_called: AtomicBool,
}

impl Backend for Hung {
    fn name(&self) -> &'static str {
        self.iris.name()
    }

    fn predict(&self, _: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        self.is_called.store(true, Ordering::Relaxed);
        Box::pin(std::future::pending())
    }

    fn probe(&self) -> BoxFuture<'_, Result<serde_json::Value, BackendError>> {
        if !self.is_called.load(Ordering::Relaxed) {
            return self.iris.probe();
        }
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(BackendError::new(Verdict::Silent, "model_unavailable", "It does not answer"))
        })
    }
}

fn config(queue: &Queue) -> Config {
    let url = queue.redis.worker_url();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let args = ["tepal-worker", "--redis-url", &url, "--models-dir", models, "--batch-max-rows", "1"];
    let limit = ["--inference-timeout-ms", "1000"];
    Config::try_from(Args::try_parse_from(args.into_iter().chain(limit)).unwrap()).unwrap()
}

#[tokio::test]
async fn a_model_that_hangs_is_down_although_no_job_has_the_time_to_wait_for_it() {
    let queue = Queue::start().await;
    let config = config(&queue);
    let mut ids = Vec::new();
    for _ in 0..2_000 {
        let timeout = Some(Duration::from_millis(300));
        ids.push(queue.submit_job(0, NewJob { timeout, ..new_job(input(5.1)) }).await);
    }
    let iris = backend::open(&config.backend, config.common.model.as_ref().unwrap()).unwrap();
    let backend = Arc::new(Hung { iris, is_called: AtomicBool::new(false) });
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(tepal_worker::run_with(config, Arc::<Hung>::clone(&backend), shutdown.clone()));
    let called = async || backend.is_called.load(Ordering::Relaxed);
    tepal_tests::wait::eventually(crate::queue::SOON, "a call", called).await;

    queue.backend_is(BackendState::Down).await;

    let last = queue.job(*ids.last().unwrap()).await;
    assert_eq!(last.status, JobStatus::Pending, "jobs wait for the model: {last:?}");
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}
