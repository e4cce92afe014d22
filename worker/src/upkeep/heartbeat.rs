//! The heartbeat: writes to Redis that this worker lives, and the state of its backend.

use std::{
    collections::BTreeMap,
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
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    run::{
        breaker::{Breaker, BreakerState},
        leases::Leases,
    },
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
    /// The descriptions of the models, JSON.
    descriptions: Vec<(ModelName, String)>,
    published_at: Option<Instant>,
    work: Work,
    breaker: Breaker,
    leases: Leases,
}

impl Heartbeat {
    /// The heartbeat of this process.
    #[must_use]
    pub fn new(config: &Config, backend: &str, work: Work, breaker: Breaker, leases: Leases) -> Self {
        let state = WorkerState {
            host: config.host.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend.to_owned(),
            backend_state: BackendState::Down,
            backend_detail: None,
            metadata: None,
            models: BTreeMap::new(),
            consumers: 1,
            in_flight: 0,
        };
        let descriptions = vec![(config.common.model_name, config.common.model.published())];
        let (worker_id, published_at) = (config.worker_id.clone(), None);
        Self { worker_id, state, descriptions, published_at, work, breaker, leases }
    }

    /// Writes heartbeats until `shutdown` begins, also at once when the state of the backend changes. Then removes the worker
    /// from the list of live workers.
    pub async fn run(mut self, pulse: Pulse, shutdown: CancellationToken) {
        let mut breaker = self.breaker.watch();
        loop {
            pulse.set(Activity::Work);
            let latest = breaker.borrow_and_update().clone();
            self.publish().await;
            self.beat(latest).await;
            let pause = async {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    _ = breaker.changed() => {}
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

    async fn publish(&mut self) {
        if self.published_at.is_some_and(|at| at.elapsed() < PUBLISH_INTERVAL) {
            return;
        }
        match self.work.publish(&self.descriptions).await {
            Ok(()) => self.published_at = Some(Instant::now()),
            // The heartbeat fails, too, and reports it.
            Err(error) if error.is_retryable() => {}
            Err(StoreError::WrongTopology(_)) => {}
            Err(error) => warn!(action = "publish_failed", error = telemetry::chain(&error)),
        }
    }

    async fn beat(&mut self, latest: BreakerState) {
        match latest {
            BreakerState::Closed { metadata } => {
                (self.state.backend_state, self.state.backend_detail) = (BackendState::Ok, None);
                self.state.metadata = Some(metadata);
            }
            BreakerState::Open { reason } => {
                (self.state.backend_state, self.state.backend_detail) = (BackendState::Down, Some(reason));
            }
        }
        let (backend, state) = (&self.state.backend, self.state.backend_state);
        let served = |(name, description): &(ModelName, String)| {
            let description = Model::fingerprint(description);
            (name.to_string(), ServedModel { backend: backend.clone(), state, description })
        };
        self.state.models = self.descriptions.iter().map(served).collect();
        self.state.in_flight = self.leases.len() as u64;
        // A state of text and numbers always has a JSON form.
        let state = serde_json::to_string(&self.state).unwrap_or_default();
        match self.work.heartbeat(&self.worker_id, &state).await {
            // The connection itself logs a wrong topology, once.
            Ok(_) | Err(StoreError::WrongTopology(_)) => {}
            Err(error) => warn!(action = "heartbeat_failed", error = telemetry::chain(&error)),
        }
    }
}
