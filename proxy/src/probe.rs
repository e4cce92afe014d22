//! A background task that looks at Redis and the workers once per second. /health, /metadata and the gauges are
//! answered from what it saw last, never by calling out.

mod data_watch;
mod drain_rate;
mod redis_gauges;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::body::Bytes;
use tepal_shared::{
    process::telemetry,
    queue::{
        error::StoreError,
        scripts::WorkerRecord,
        store::{JobStore, LogMark, Loss, QueueState, ServerState},
        worker_state::{BackendState, WorkerState},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, info, warn};

use self::{data_watch::DataWatch, drain_rate::DrainRate, redis_gauges::RedisWatch};
use crate::state::App;

const INTERVAL: Duration = Duration::from_secs(1);
/// A Redis that takes longer than this for a look counts as down.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long Redis counts as full after it refused a job for want of memory.
const FULL_FOR: Duration = Duration::from_secs(5);

/// What the last look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// `None` when Redis did not answer: then nothing is known of the workers either.
    pub(crate) workers: Option<Workers>,
    /// What is wrong with a Redis that answers.
    pub(crate) trouble: Option<Trouble>,
    /// When jobs were last found to be lost, and what is known of that.
    pub(crate) loss: Option<(SystemTime, Loss)>,
    /// In how many seconds a full queue may have room again, as far as that is known.
    pub(crate) full_retry_after: Option<u64>,
}

/// What is wrong with a Redis that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It refuses all changes, for this reason.
    ReadOnly(String),
    /// It may throw away accepted jobs when its memory is short.
    Misconfigured,
    /// It is at its memory limit and refuses new jobs; accepted ones go on.
    Full,
}

impl Trouble {
    fn of(store: &JobStore, server: ServerState, refusal: Option<&StoreError>) -> Option<Self> {
        let refusal = refusal.map(|error| Self::ReadOnly(telemetry::chain(error)));
        let is_full = server.is_full || store.ran_out_of_memory_within(FULL_FOR);
        refusal
            .or_else(|| server.may_evict.then_some(Self::Misconfigured))
            .or_else(|| is_full.then_some(Self::Full))
    }

    /// It in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::ReadOnly(_) => "read_only",
            Self::Misconfigured => "misconfigured",
            Self::Full => "full",
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::ReadOnly(reason) => reason,
            Self::Misconfigured => "maxmemory-policy must be noeviction",
            Self::Full => "Redis is at its memory limit and refuses new jobs",
        }
    }
}

/// What the live workers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workers {
    /// How many there are.
    pub(crate) live: usize,
    /// Each backend by its name, and whether a live worker can call it.
    pub(crate) backends: BTreeMap<String, bool>,
    /// The model's metadata as the worker heard of last tells it, JSON.
    pub(crate) metadata: Option<Bytes>,
}

/// The task.
pub(crate) struct Probe {
    app: Arc<App>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    drain_rate: DrainRate,
    redis: RedisWatch,
    data: DataWatch,
    /// Why the last look failed, if it did.
    failure: Option<String>,
}

impl Probe {
    /// A probe that tells `snapshots`.
    pub(crate) fn new(app: Arc<App>, snapshots: watch::Sender<Arc<Snapshot>>) -> Self {
        let (drain_rate, redis) = (DrainRate::default(), RedisWatch::default());
        Self { app, snapshots, drain_rate, redis, data: DataWatch::default(), failure: None }
    }

    /// Looks for ever.
    pub(crate) async fn run(mut self) {
        loop {
            let next = Instant::now() + INTERVAL;
            if self.app.store.redis().is_up() {
                self.look().await;
                sleep_until(next).await;
            } else {
                self.publish_down();
                // Looks again as soon as Redis is there.
                let app = Arc::clone(&self.app);
                let _ = timeout(INTERVAL, app.store.redis().up()).await;
            }
        }
    }

    async fn look(&mut self) {
        let looked = timeout(PATIENCE, async {
            let workers = self.app.store.workers().await?;
            let server = self.app.store.server_state().await?;
            let queues = Queues::look(&self.app).await?;
            let refusal = self.app.store.refusal().await?;
            let loss = self.data.look(&self.app.store, &queues.logs).await;
            // It writes once for each data set, and would wait for a Redis that takes no changes.
            let secret = match refusal {
                Some(_) => Ok(()),
                None => self.app.secret.refresh(&self.app.store).await.map(drop),
            };
            Ok::<_, StoreError>((workers, server, queues, refusal, loss, secret))
        });
        let outcome = looked.await.unwrap_or(Err(StoreError::Disconnected));
        let failure = match &outcome {
            Ok((.., loss, secret)) => loss.as_ref().err().or(secret.as_ref().err()),
            Err(error) => Some(error),
        };
        self.log_failure(failure);
        match outcome {
            Ok((workers, server, queues, refusal, loss, _)) => {
                if let Ok(Some(loss)) = loss {
                    self.report(loss);
                }
                let workers = Workers::from_records(workers);
                self.set_gauges(&workers, server, &queues);
                let full_retry_after =
                    self.drain_rate.retry_after(Instant::now(), queues.ended(), queues.outstanding());
                let trouble = Trouble::of(&self.app.store, server, refusal.as_ref());
                let loss = self.data.last(Instant::now());
                self.publish(Snapshot { workers: Some(workers), trouble, loss, full_retry_after });
            }
            Err(_) => self.publish_down(),
        }
    }

    /// Jobs that Redis lost cannot be brought back, but it must not happen unseen.
    fn report(&self, loss: Loss) {
        self.app.metrics.gauges.data_loss.increment(1);
        self.app.metrics.gauges.jobs_lost.increment(loss.at_least());
        error!(action = "redis_data_lost", jobs = loss.at_least(), reason = %loss);
    }

    fn publish_down(&self) {
        let loss = self.data.last(Instant::now());
        self.publish(Snapshot { loss, ..Snapshot::default() });
    }

    /// Logs the first of several failures in a row that have the same cause.
    fn log_failure(&mut self, failure: Option<&StoreError>) {
        let failure = failure.map(|error| telemetry::chain(error));
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
            (workers.map(|workers| (workers.live > 0, workers.backends.clone())), snapshot.trouble.clone())
        };
        if health(&last) != health(&snapshot) {
            log_change(&snapshot);
        }
    }

    fn set_gauges(&mut self, workers: &Workers, server: ServerState, queues: &Queues) {
        let gauges = &self.app.metrics.gauges;
        for (gauge, state) in gauges.queue_length.iter().zip(queues.by_priority) {
            gauge.set((state.new + state.waiting) as f64);
        }
        gauges.in_flight.set(queues.total(|state| state.in_flight) as f64);
        gauges.waiting_retry.set(queues.total(|state| state.waiting) as f64);
        gauges.oldest_waiting.set(queues.oldest_waiting.unwrap_or_default().as_secs_f64());
        gauges.dead_letters.set(queues.dead_letters as f64);
        gauges.workers_live.set(workers.live as f64);
        self.redis.saw(&gauges.redis, server);
        self.app.quota.saw(server.max_memory_bytes);
    }
}

fn log_change(snapshot: &Snapshot) {
    let Some(workers) = &snapshot.workers else {
        return warn!(action = "health_changed", redis = "down");
    };
    let live = workers.live;
    let down: Vec<_> =
        workers.backends.iter().filter(|(_, is_ok)| !**is_ok).map(|(name, _)| name.as_str()).collect();
    let trouble = snapshot.trouble.as_ref();
    if live == 0 || !down.is_empty() || trouble.is_some() {
        let (redis, reason) = (trouble.map_or("ok", Trouble::word), trouble.map(Trouble::reason));
        let backends_down = down.join(",");
        warn!(action = "health_changed", redis, reason, workers = live, backends_down);
    } else {
        info!(action = "health_changed", redis = "ok", workers = live);
    }
}

impl Workers {
    fn from_records(mut records: Vec<WorkerRecord>) -> Self {
        records.sort_by_key(|record| record.silence);
        let mut workers = Self { live: records.len(), ..Self::default() };
        for record in records {
            // A worker of another version may say something else: it lives, but says nothing of its backend.
            let Ok(state) = serde_json::from_str::<WorkerState>(&record.state) else { continue };
            *workers.backends.entry(state.backend).or_default() |= state.backend_state == BackendState::Ok;
            let metadata = state.metadata.and_then(|metadata| serde_json::to_vec(&metadata).ok());
            workers.metadata = workers.metadata.or(metadata.map(Bytes::from));
        }
        workers
    }
}

/// The queues of all partitions together.
#[derive(Default)]
struct Queues {
    by_priority: [QueueState; 3],
    logs: Vec<(u8, LogMark)>,
    oldest_waiting: Option<Duration>,
    dead_letters: u64,
}

impl Queues {
    async fn look(app: &App) -> Result<Self, StoreError> {
        let mut queues = Self::default();
        for partition in app.store.partitions() {
            let partition_state = app.store.partition_state(partition).await?;
            queues.logs.push((partition, partition_state.log));
            for (total, state) in queues.by_priority.iter_mut().zip(partition_state.queues) {
                total.new += state.new;
                total.waiting += state.waiting;
                total.in_flight += state.in_flight;
            }
            queues.oldest_waiting = queues.oldest_waiting.max(app.store.oldest_waiting(partition).await?);
            queues.dead_letters += app.store.dead_letters(partition).await?;
        }
        Ok(queues)
    }

    fn total(&self, count: impl Fn(&QueueState) -> u64) -> u64 {
        self.by_priority.iter().map(count).sum()
    }

    fn outstanding(&self) -> u64 {
        self.total(|state| state.new + state.waiting + state.in_flight)
    }

    /// Jobs that ever ended, whoever accepted them.
    fn ended(&self) -> u64 {
        let accepted: u64 = self.logs.iter().map(|(_, log)| log.added).sum();
        accepted.saturating_sub(self.outstanding())
    }
}
