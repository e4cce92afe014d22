//! The worker as it ships, except for the model: a backend that answers at once, given to the worker's library through
//! its public trait. What is left is Tepal's own work: taking, reading the inputs, batching, fencing, results, logs.

use std::pin::Pin;
use std::sync::Arc;

use clap::Parser as _;
use serde_json::Value;
use tepal_shared::model::Model;
use tepal_shared::tensor::{Batch, Tensor, Values};
use tepal_shared::{shutdown, telemetry};
use tepal_worker::backend::{Backend, BackendError};
use tepal_worker::config::{Args, Config};

/// Answers the same probabilities for every row.
struct NoOp {
    model: Model,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

impl Backend for NoOp {
    fn name(&self) -> &'static str {
        "no_op"
    }

    fn predict(&self, batch: Batch) -> Answer<'_, Tensor> {
        let output = &self.model.output;
        let width = output.elements();
        let values = (0..batch.rows * width).map(|at| [0.993, 0.0063, 0.0007][at % width % 3]).collect();
        let shape = std::iter::once(batch.rows).chain(output.shape.iter().copied()).collect();
        let answer = Tensor { name: output.name.clone(), shape, values: Values::Float(values) };
        Box::pin(async move { Ok(answer) })
    }

    fn probe(&self) -> Answer<'_, Value> {
        let metadata = self.model.metadata();
        Box::pin(async move { Ok(metadata) })
    }
}

/// Does what the worker's `main` does, with this backend.
pub(crate) async fn run() {
    let config = Config::try_from(Args::parse_from(["tepal-worker"])).expect("settings in the environment");
    telemetry::start("worker", &config.common.log).expect("a log");
    tepal_worker::metrics::serve(config.metrics_addr).expect("a free address for the metrics");
    let backend = Arc::new(NoOp { model: config.common.model.clone() });
    let (_trigger, shutdown) = shutdown::channel();
    tepal_worker::run_with(config, backend, shutdown).await.expect("the worker runs");
}
