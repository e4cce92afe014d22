//! The heartbeat: writes to Redis that this worker lives, which models it serves, and the state of their backends.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tepal_shared::{
    job::ModelName,
    model::Model,
    process::telemetry,
    queue::{
        error::StoreError,
        heartbeat::{BackendState, ServedModel, WorkerState},
        work::Work,
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    lanes::Served,
    run::{breaker::BreakerState, leases::Leases, runner::Runner},
    settings::Config,
    upkeep::liveness::{Activity, Pulse},
};

/// A third of the default silence after which a worker counts as dead.
pub(crate) const INTERVAL: Duration = Duration::from_secs(3);

/// How often the descriptions are published: Redis may have lost them.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(60);

/// Writes the heartbeat.
#[derive(Clone)]
pub struct Heartbeat {
    worker_id: String,
    state: WorkerState,
    /// The descriptions that were published last, JSON, and when.
    published: Option<(Vec<(ModelName, String)>, Instant)>,
    work: Work,
    served: Served,
    changed: Arc<Notify>,
    leases: Leases,
}

impl Heartbeat {
    /// The heartbeat of this process.
    #[must_use]
    pub fn new(config: &Config, work: Work, leases: Leases, served: Served, changed: Arc<Notify>) -> Self {
        let state = WorkerState {
            host: config.host.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: config.backend.kind.as_str().to_owned(),
            backend_state: BackendState::Down,
            backend_detail: None,
            metadata: None,
            models: BTreeMap::new(),
            failed_models: Vec::new(),
            undescribed_models: Vec::new(),
            consumers: 1,
            partitions: config.common.policy.partitions,
            in_flight: 0,
        };
        Self { worker_id: config.worker_id.clone(), state, published: None, work, served, changed, leases }
    }

    /// Writes heartbeats until `shutdown` begins, also at once when the models or the states of their backends change. Then removes
    /// the worker from the list of live workers.
    pub async fn run(mut self, pulse: Pulse, shutdown: CancellationToken) {
        let changed = Arc::clone(&self.changed);
        loop {
            pulse.set(Activity::Work);
            self.beat().await;
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = changed.notified() => {}
                }
            };
            if shutdown.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        pulse.end();
        if let Err(error) = self.work.farewell(&self.worker_id).await {
            warn!(action = "farewell_failed", error = telemetry::chain(&error));
        }
    }

    async fn beat(&mut self) {
        let runners = self.served.runners();
        let descriptions = runners.iter().map(|runner| (runner.name, runner.model.published()));
        let descriptions: Vec<_> = descriptions.collect();
        if let Some(main) = self.served.main() {
            self.state.backend = main.backend.name().to_owned();
            self.describe(main.breaker.state());
        }
        let models = runners.iter().zip(&descriptions);
        self.state.models =
            models.map(|(runner, (name, text))| (name.to_string(), served(runner, text))).collect();
        self.state.failed_models = names(self.served.failed());
        self.state.undescribed_models = names(self.served.undescribed());
        self.publish(descriptions).await;
        self.state.in_flight = self.leases.len() as u64;
        // A state of text and numbers always has a JSON form.
        let state = serde_json::to_string(&self.state).unwrap_or_default();
        match self.work.heartbeat(&self.worker_id, &state).await {
            // The connection itself logs a wrong topology, once.
            Ok(_) | Err(StoreError::WrongTopology(_)) => {}
            Err(error) => warn!(action = "heartbeat_failed", error = telemetry::chain(&error)),
        }
    }

    async fn publish(&mut self, descriptions: Vec<(ModelName, String)>) {
        let is_recent =
            |(last, at): &(Vec<_>, Instant)| *last == descriptions && at.elapsed() < PUBLISH_INTERVAL;
        if self.published.as_ref().is_some_and(is_recent) {
            return;
        }
        match self.work.publish(&descriptions).await {
            Ok(()) => self.published = Some((descriptions, Instant::now())),
            // The heartbeat fails, too, and reports it.
            Err(error) if error.is_retryable() => {}
            Err(StoreError::WrongTopology(_)) => {}
            Err(error) => warn!(action = "publish_failed", error = telemetry::chain(&error)),
        }
    }

    fn describe(&mut self, backend: BreakerState) {
        match backend {
            BreakerState::Closed { metadata } => {
                (self.state.backend_state, self.state.backend_detail) = (BackendState::Ok, None);
                self.state.metadata = Some(metadata);
            }
            BreakerState::Open { reason } => {
                (self.state.backend_state, self.state.backend_detail) = (BackendState::Down, Some(reason));
            }
        }
    }
}

fn names(models: Vec<ModelName>) -> Vec<String> {
    models.iter().map(ToString::to_string).collect()
}

/// The state of a model whose description is this JSON.
fn served(runner: &Runner, description: &str) -> ServedModel {
    let state = if runner.breaker.is_closed() { BackendState::Ok } else { BackendState::Down };
    let backend = runner.backend.name().to_owned();
    ServedModel { backend, state, description: Model::fingerprint(description) }
}
