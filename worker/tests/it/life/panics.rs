//! A bug that panics while jobs run.

use std::{sync::Arc, time::Duration};

use clap::Parser as _;
use futures_util::future::BoxFuture;
use tepal_shared::{
    shutdown,
    store::Policy,
    tensor::{Batch, Tensor, Values},
};
use tepal_tests::redis::RedisServer;
use tepal_worker::{
    backend::{self, Backend, BackendError},
    config::{Args, Config},
};

use crate::{flowers::input, queue::Queue};

const POISON: f32 = 9.5;

/// The iris model with a bug: it panics at one input, in the task that runs the batch.
struct Brittle(Arc<dyn Backend>);

impl Backend for Brittle {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn predict(&self, batch: Batch) -> BoxFuture<'_, Result<Tensor, BackendError>> {
        if matches!(&batch.inputs[0].values, Values::Float(values) if values.contains(&POISON)) {
            panic!("a bug of the test's own");
        }
        self.0.predict(batch)
    }

    fn probe(&self) -> BoxFuture<'_, Result<serde_json::Value, BackendError>> {
        self.0.probe()
    }
}

#[tokio::test]
async fn a_batch_that_panics_keeps_no_job_for_ever_and_stops_no_consumer() {
    let policy = Policy { lease: Duration::from_millis(300), ..Policy::default() };
    let queue = Queue::with_policy(RedisServer::start().await, policy);
    let url = queue.redis.url();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let args = ["tepal-worker", "--redis-url", &url, "--models-dir", models, "--num-workers", "1"];
    let often = ["--lease-ms", "300", "--reclaim-interval-ms", "100"];
    let config = Config::try_from(Args::try_parse_from(args.into_iter().chain(often)).unwrap()).unwrap();
    let poison = queue.submit(input(POISON)).await;
    let others = queue.submit_all((0..10).map(|_| input(5.1))).await;

    let backend = Arc::new(Brittle(backend::open(&config).unwrap()));
    let (trigger, shutdown) = shutdown::channel();
    let worker = tokio::spawn(tepal_worker::run_with(config, backend, shutdown));

    queue.all_completed(&others).await;
    let error = "The worker was lost 3 times while running the job";
    assert_eq!(queue.failed(poison).await, (error.to_owned(), "worker_lost".to_owned(), 3));
    queue.assert_drained().await;
    trigger.begin();
    worker.await.unwrap().unwrap();
}
