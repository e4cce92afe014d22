//! The worker: claims jobs, calls the model with batches of them, and settles each outcome.
//!
//! | module | owns |
//! | --- | --- |
//! | [`fetch`] | lanes, one for each model: claim jobs, make batches of them, start each when a batch slot is free |
//! | [`lanes`] | starts, replaces and stops lanes as the repository changes |
//! | [`models`] | which models the worker serves |
//! | [`run`] | one batch from its start to its settled outcomes; read [`run::runner`] first |
//! | [`backend`] | the model behind one trait: in process, or a server |
//! | `client` | the HTTP client |
//! | [`upkeep`] | heartbeat, janitor, liveness, readiness, the port with /metrics, /livez and /readyz |
//! | [`settings`] | flags and environment variables |
//! | [`metrics`] | every metric of the worker |
//! | [`model_command`] | looks at models |
//! | [`doctor`] | checks what the worker needs, and reports what is wrong |

pub mod backend;
mod client;
pub mod doctor;
pub mod fetch;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod lanes;
pub mod metrics;
pub mod model_command;
pub mod models;
pub mod run;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod upkeep;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tepal_shared::{
    job::ModelName,
    process::supervisor::Tasks,
    queue::{Queue, doctor::warn_about_default_user, error::WrongTopology, link::Redis, work::Work},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    backend::Backend,
    fetch::{
        quarantine::Quarantine,
        reader::{Reader, ReaderSettings},
    },
    lanes::{LaneParts, Lanes, Open, Opened, Served},
    models::ModelFailure,
    run::{leases::Leases, slots::Slots},
    settings::Config,
    upkeep::{
        heartbeat::Heartbeat,
        janitor::Janitor,
        lease_keeper::{self, LeaseKeeper},
        liveness::Liveness,
        monitor::{Monitor, Probes},
        readiness::{Readiness, Started},
    },
};

/// The worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No model can be loaded, or the address of a model server is malformed.
    #[error("the model cannot be used")]
    Model(#[source] ModelFailure),
    /// The client library rejects the settings of Redis.
    #[error("the settings of Redis cannot be used")]
    Redis(#[source] tepal_shared::queue::RedisError),
    /// Another process listens there, or the address is not one of this machine.
    #[error("cannot serve metrics on {addr} ({error}); set METRICS_ADDR to a free address of this machine")]
    Monitor {
        /// Which address.
        addr: SocketAddr,
        /// Why not; it is part of the message.
        error: io::Error,
    },
    /// The jobs in Redis have another stored format, or are in more partitions.
    #[error("{}: {}", .0, .0.fix())]
    Refused(WrongTopology),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
}

/// Runs the worker until `shutdown` begins and its jobs are finished or released.
///
/// # Errors
/// When it cannot start. Once it runs, it outlives every failure of Redis and of the model server.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), StartError> {
    let probes = Probes::default();
    let metrics = metrics::install().map_err(StartError::Metrics)?;
    let addr = config.metrics_addr;
    let monitor = Monitor::open(addr, metrics.clone(), probes.clone()).await;
    let monitor = monitor.map_err(|error| StartError::Monitor { addr, error })?;
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.keep("monitor", move |_| monitor.clone().serve());
    tasks.keep("metrics_upkeep", move |_| metrics::upkeep(metrics.clone()));
    let backends = config.backend.clone();
    let open: Open = Arc::new(move |model| backend::open(&backends, &model.description));
    Box::pin(serve(config, open, probes, shutdown)).await
}

/// [`run`] with any other backend, the same for all models, and without the metrics port, of which a process can have only one.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    backend: Arc<dyn Backend>,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    Box::pin(run_with_each(config, move |_| Arc::clone(&backend), shutdown)).await
}

/// [`run_with`] with a backend for each model.
///
/// # Errors
/// As [`run`].
pub async fn run_with_each(
    config: Config,
    backend: impl Fn(ModelName) -> Arc<dyn Backend> + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let open: Open = Arc::new(move |model| Ok(backend(model.name)));
    Box::pin(serve(config, open, Probes::default(), shutdown)).await
}

/// Opens the models before anything else: without one there is nothing to do.
async fn serve(
    config: Config,
    open: Open,
    probes: Probes,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let opened = lanes::open_all(&config, &open).await.map_err(StartError::Model)?;
    Box::pin(Worker::new(config, open, probes)?.serve(opened, shutdown)).await
}

/// The parts of a worker.
struct Worker {
    config: Config,
    open: Open,
    work: Work,
    leases: Leases,
    served: Served,
    /// Notified when the heartbeat has something new to say.
    changed: Arc<Notify>,
    liveness: Liveness,
    readiness: Readiness,
}

impl Worker {
    fn new(config: Config, open: Open, probes: Probes) -> Result<Self, StartError> {
        let redis = Redis::open(config.common.redis.clone()).map_err(StartError::Redis)?;
        let queue = Queue::new(redis, config.common.keys.clone(), config.common.policy.clone());
        let served = Served::new(config.common.model_name);
        let (work, leases, changed) = (Work::new(queue), Leases::default(), Arc::default());
        let Probes { liveness, readiness } = probes;
        Ok(Self { config, open, work, leases, served, changed, liveness, readiness })
    }

    /// Runs, unless the queue has another stored format.
    async fn serve(self, opened: Opened, shutdown: CancellationToken) -> Result<(), StartError> {
        let queue = self.work.queue().clone();
        tokio::select! {
            () = self.run(opened, shutdown) => Ok(()),
            refused = queue.refused() => Err(StartError::Refused(refused)),
        }
    }

    async fn run(self, opened: Opened, shutdown: CancellationToken) {
        let worker = &self.config.worker_id;
        let consumer: Arc<str> = format!("{worker}-0").into();
        // The helpers run while lanes drain, so that leases are renewed and the breakers work.
        let helpers_stop = CancellationToken::new();
        let (mut helpers, mut reading) = (Tasks::new(helpers_stop.clone()), Tasks::new(shutdown.clone()));
        let lanes = Lanes::start(self.start_reader(&consumer, &mut reading), opened, &shutdown);
        self.start_helpers(consumer, &mut helpers);
        let (redis, served) = (self.work.queue().redis().clone(), self.served.clone());
        self.readiness.started(Started { redis, served, shutdown: shutdown.clone() });
        lanes.run(shutdown).await;
        reading.ended().await;
        helpers_stop.cancel();
        // A helper may be in the middle of a call to an unreachable Redis. Its outcome is no longer needed.
        let _ = tokio::time::timeout(Duration::from_secs(2), helpers.ended()).await;
        info!(action = "worker_stopped", worker);
    }

    fn start_helpers(&self, consumer: Arc<str>, helpers: &mut Tasks) {
        let (work, leases, served) = (self.work.clone(), self.leases.clone(), self.served.clone());
        let heartbeat = Heartbeat::new(
            &self.config,
            work.clone(),
            leases.clone(),
            served.clone(),
            Arc::clone(&self.changed),
        );
        let pulse = self.liveness.watch("heartbeat".to_owned(), upkeep::heartbeat::INTERVAL);
        helpers.keep("heartbeat", move |stop| heartbeat.clone().run(pulse.clone(), stop));
        let pulse = self.liveness.watch("lease keeper".to_owned(), lease_keeper::interval(&work));
        let keeper = LeaseKeeper {
            consumer: Arc::clone(&consumer),
            leases: leases.clone(),
            work: work.clone(),
            pulse,
        };
        helpers.keep("lease_keeper", move |stop| keeper.clone().run(stop));
        let (redis, keys) = (work.queue().redis().clone(), work.queue().keys().clone());
        helpers.finish("default_user_check", move || warn_about_default_user(redis.clone(), keys.clone()));
        let (setting, consumer) = (self.config.models.removed_model_jobs, Arc::clone(&consumer));
        helpers.keep("janitor", move |stop| {
            Janitor::new(work.clone(), leases.clone(), served.clone())
                .with_removed_models(setting, Arc::clone(&consumer))
                .run(stop)
        });
    }

    fn start_reader(&self, consumer: &Arc<str>, reading: &mut Tasks) -> LaneParts {
        let quarantine = Quarantine::new(self.config.common.policy.max_lost);
        let (reader, arrivals) = Reader::new(ReaderSettings {
            consumer: Arc::clone(consumer),
            work: self.work.clone(),
            quarantine: quarantine.clone(),
            interval: self.config.fetch.reclaim_interval,
            max_bytes: self.config.run.limits.bytes,
            pulse: self.liveness.watch("reader".to_owned(), self.config.fetch.reclaim_interval),
        });
        reading.keep("reader", move |shutdown| reader.clone().run(shutdown));
        LaneParts {
            slots: Slots::new(self.config.fetch.slots),
            config: self.config.clone(),
            open: Arc::clone(&self.open),
            consumer: Arc::clone(consumer),
            work: self.work.clone(),
            leases: self.leases.clone(),
            quarantine,
            arrivals,
            changed: Arc::clone(&self.changed),
            liveness: self.liveness.clone(),
            served: self.served.clone(),
        }
    }
}
