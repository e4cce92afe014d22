//! A background task that reads the state of Redis and the workers once a second. /health, /metadata and the gauges show what it
//! saw last. A request for them calls nothing.

mod data_watch;
mod descriptions;
mod drain_rate;
mod outstanding;
mod queues;
mod redis_gauges;
mod workers;

use std::{error::Error, sync::Arc, time::Duration};

use tepal_shared::{
    job::ModelName,
    process::telemetry,
    queue::{error::StoreError, loss::Loss, views::ServerState},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, info, warn};

use self::{
    data_watch::DataWatch, descriptions::Descriptions, drain_rate::DrainRate, outstanding::Outstanding,
    queues::Queues, redis_gauges::RedisWatch, workers::sum_up,
};
use crate::{
    jobs::store::Store,
    secret::SecretError,
    snapshot::{ComponentState, ModelQueue, Snapshot, Trouble, Workers},
    state::App,
};

const INTERVAL: Duration = Duration::from_secs(1);
/// Redis counts as down when a read of its state takes longer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long Redis counts as full after it rejected a job for lack of memory.
const FULL_FOR: Duration = Duration::from_secs(5);

/// The task.
pub(crate) struct Probe {
    app: Arc<App>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    drain_rate: DrainRate,
    outstanding: Outstanding,
    redis: RedisWatch,
    data: DataWatch,
    descriptions: Descriptions,
    /// The models whose jobs were counted last.
    counted: Vec<ModelName>,
    /// The failure of the last read, if it failed.
    failure: Option<String>,
}

impl Probe {
    /// A probe that publishes to `snapshots`.
    pub(crate) fn new(app: Arc<App>, snapshots: watch::Sender<Arc<Snapshot>>) -> Self {
        let (drain_rate, redis) = (DrainRate::default(), RedisWatch::default());
        let (data, descriptions, outstanding) = Default::default();
        let counted = Vec::new();
        Self { app, snapshots, drain_rate, outstanding, redis, data, descriptions, counted, failure: None }
    }

    /// Runs as long as the service.
    pub(crate) async fn run(mut self) {
        loop {
            let next = Instant::now() + INTERVAL;
            if self.app.store.queue().redis().is_up() {
                self.look().await;
                sleep_until(next).await;
            } else {
                self.publish_down();
                // Reads again as soon as Redis is up.
                let app = Arc::clone(&self.app);
                let _ = timeout(INTERVAL, app.store.queue().redis().up()).await;
            }
        }
    }

    async fn look(&mut self) {
        let looked = timeout(TIMEOUT, async {
            let workers = self.app.store.views.workers().await?;
            let workers = sum_up(workers, self.app.models.registry().default_model());
            // A part of a cluster may be down.
            let is_up = self.app.store.queue().primary(0).is_up();
            let described = if is_up { self.descriptions.look(&self.app, &workers).await } else { Ok(()) };
            let server = self.app.store.views.server_state().await?;
            let queues = Queues::read(&self.app.store, &self.app.models.registry()).await?;
            let refusal = self.app.store.intake.refusal().await?;
            let loss = self.data.look(&self.app.store, &queues.logs).await;
            // The secret is written once for each data set. A Redis that rejects writes would make the probe wait.
            let secret = match refusal {
                None if is_up => self.app.secret.refresh(&self.app.store).await.map(drop),
                _ => Ok(()),
            };
            let parts = Parts { described, loss, secret };
            Ok::<_, StoreError>((workers, server, queues, refusal, parts))
        });
        let outcome = looked.await.unwrap_or(Err(StoreError::Disconnected));
        let failure = match &outcome {
            Ok((.., parts)) => parts.failure(),
            Err(error) => Some(error as &dyn Error),
        };
        self.log_failure(failure);
        match outcome {
            Ok((workers, server, queues, refusal, parts)) => {
                if let Ok(Some(loss)) = parts.loss {
                    self.report(loss);
                }
                self.app.store.intake.note_depths(queues.depths.clone());
                self.set_gauges(&workers, server, &queues);
                let full_retry_after =
                    self.drain_rate.retry_after(Instant::now(), queues.ended(), queues.outstanding());
                let trouble = trouble(&self.app.store, server, refusal.as_ref());
                let loss = self.data.last(Instant::now());
                let Queues { by_model, unreachable, .. } = queues;
                let (workers, queues) = (Some(workers), Arc::new(by_model));
                self.publish(Snapshot { workers, trouble, unreachable, loss, full_retry_after, queues });
            }
            Err(_) => self.publish_down(),
        }
    }

    /// Reports a loss. Lost jobs cannot be restored, but the loss must be visible.
    fn report(&self, loss: Loss) {
        self.app.metrics.gauges.data_loss.increment(1);
        self.app.metrics.gauges.jobs_lost.increment(loss.at_least());
        error!(action = "redis_data_lost", jobs = loss.at_least(), reason = %loss);
    }

    fn publish_down(&self) {
        let loss = self.data.last(Instant::now());
        self.publish(Snapshot { loss, ..Snapshot::default() });
    }

    /// Logs a failure, unless the last read failed for the same reason.
    fn log_failure(&mut self, failure: Option<&dyn Error>) {
        let failure = failure.map(telemetry::chain);
        if let Some(error) = failure.as_ref().filter(|error| self.failure.as_ref() != Some(error)) {
            warn!(action = "probe_failed", %error);
        }
        self.failure = failure;
    }

    fn publish(&self, snapshot: Snapshot) {
        self.app.metrics.gauges.redis_up.set(f64::from(u8::from(snapshot.workers.is_some())));
        let last = self.snapshots.send_replace(Arc::new(snapshot.clone()));
        let health = |snapshot: &Snapshot| {
            let workers = snapshot.workers.as_ref();
            let workers = workers.map(|workers| (workers.live > 0, workers.backends.clone()));
            (workers, snapshot.trouble.clone(), snapshot.unreachable.clone())
        };
        if health(&last) != health(&snapshot) {
            log_change(&snapshot, self.app.workers_expected);
        }
    }

    fn set_gauges(&mut self, workers: &Workers, server: ServerState, queues: &Queues) {
        let gauges = &self.app.metrics.gauges;
        self.outstanding.saw(queues);
        self.app.metrics.models_known(queues.by_model.keys().copied());
        for (model, queue) in &queues.by_model {
            self.app.metrics.queue(*model, queue, self.outstanding.of(*model));
        }
        // A gauge that keeps its last value would be an alert that never ends.
        for removed in self.counted.iter().filter(|model| !queues.by_model.contains_key(model)) {
            self.app.metrics.queue(*removed, &ModelQueue::default(), self.outstanding.of(*removed));
        }
        self.counted = queues.by_model.keys().copied().collect();
        gauges.outstanding.set(self.outstanding.all() as f64);
        gauges.workers_live.set(workers.live as f64);
        self.redis.saw(&gauges.redis, server);
        self.app.charges.quota.saw(server.max_memory_bytes);
    }
}

/// Parts of a look that may fail while the others succeed.
struct Parts {
    described: Result<(), StoreError>,
    loss: Result<Option<Loss>, StoreError>,
    secret: Result<(), SecretError>,
}

impl Parts {
    fn failure(&self) -> Option<&dyn Error> {
        let described = self.described.as_ref().err().map(|error| error as &dyn Error);
        let loss = self.loss.as_ref().err().map(|error| error as &dyn Error);
        let secret = self.secret.as_ref().err().map(|error| error as &dyn Error);
        described.or(loss).or(secret)
    }
}

/// What is wrong with a Redis that answers.
fn trouble(store: &Store, server: ServerState, refusal: Option<&StoreError>) -> Option<Trouble> {
    let refusal = refusal.map(|error| Trouble::ReadOnly(telemetry::chain(error)));
    let is_full = server.is_full || store.intake.ran_out_of_memory_within(FULL_FOR);
    refusal
        .or_else(|| server.may_evict.then_some(Trouble::Misconfigured))
        .or_else(|| is_full.then_some(Trouble::Full))
}

fn log_change(snapshot: &Snapshot, workers_expected: usize) {
    let Some(workers) = &snapshot.workers else {
        return warn!(action = "health_changed", redis = "down");
    };
    let live = workers.live;
    let down: Vec<_> =
        workers.backends.iter().filter(|(_, is_ok)| !**is_ok).map(|(name, _)| name.as_str()).collect();
    let trouble = snapshot.trouble.as_ref();
    let are_missing = live == 0 && workers_expected > 0;
    if are_missing || !down.is_empty() || trouble.is_some() || !snapshot.unreachable.is_empty() {
        let redis = trouble.map_or(ComponentState::Ok, Trouble::state).as_str();
        let reason = trouble.map(Trouble::reason);
        let backends_down = down.join(",");
        let partitions_down =
            (!snapshot.unreachable.is_empty()).then(|| format!("{:?}", snapshot.unreachable));
        warn!(action = "health_changed", redis, reason, workers = live, backends_down, partitions_down);
    } else {
        info!(action = "health_changed", redis = "ok", workers = live);
    }
}
