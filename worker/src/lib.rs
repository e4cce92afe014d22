//! The worker: claims jobs, calls the model with batches of them, and settles each outcome.
//!
//! | module | owns |
//! | --- | --- |
//! | [`fetch`] | consumers: claim jobs, make batches of them, start each when a batch slot is free |
//! | [`run`] | one batch from its start to its settled outcomes; read [`run::runner`] first |
//! | [`backend`] | the model behind one trait: in process, or a server |
//! | [`upkeep`] | heartbeat, janitor, liveness, the port with /metrics and /livez |
//! | [`settings`] | flags and environment variables |
//! | [`metrics`] | every metric of the worker |
//! | [`model_command`] | looks at models |
//! | [`doctor`] | checks what the worker needs, and reports what is wrong |

pub mod backend;
pub mod doctor;
pub mod fetch;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod metrics;
pub mod model_command;
pub mod run;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod upkeep;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tepal_shared::{
    process::supervisor::Tasks,
    queue::{Queue, doctor::warn_about_default_user, error::WrongTopology, link::Redis, work::Work},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    backend::Backend,
    fetch::{consumer::Consumer, quarantine::Quarantine},
    run::{
        batch_limit::BatchLimit, breaker::Breaker, leases::Leases, limiter::Limiter, runner::Runner,
        sample::Sample,
    },
    settings::Config,
    upkeep::{
        heartbeat::Heartbeat,
        janitor::Janitor,
        lease_keeper::{self, LeaseKeeper},
        liveness::Liveness,
        monitor::Monitor,
    },
};

/// The worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The model cannot be loaded, or its server's address is malformed.
    #[error("the model cannot be used")]
    Backend(#[source] backend::OpenError),
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
    /// The jobs in Redis have another stored format.
    #[error("{}: {}", .0, .0.fix())]
    StoredFormat(WrongTopology),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
}

/// Runs the worker until `shutdown` begins and its jobs are finished or released.
///
/// # Errors
/// When it cannot start. Once it runs, it outlives every failure of Redis and of the model server.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), StartError> {
    config.common.report_broken_versions();
    let liveness = Liveness::default();
    let metrics = metrics::install().map_err(StartError::Metrics)?;
    let addr = config.metrics_addr;
    let monitor = Monitor::open(addr, metrics.clone(), liveness.clone()).await;
    let monitor = monitor.map_err(|error| StartError::Monitor { addr, error })?;
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.keep("monitor", move |_| monitor.clone().serve());
    tasks.keep("metrics_upkeep", move |_| metrics::upkeep(metrics.clone()));
    let backend = backend::open(&config.backend, &config.common.model).map_err(StartError::Backend)?;
    Worker::new(config, backend, liveness)?.serve(shutdown).await
}

/// [`run`] with any other backend, and without the metrics port, of which a process can have only one.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    backend: Arc<dyn Backend>,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    Worker::new(config, backend, Liveness::default())?.serve(shutdown).await
}

/// The parts of a worker.
struct Worker {
    config: Config,
    runner: Arc<Runner>,
    liveness: Liveness,
}

impl Worker {
    fn new(config: Config, backend: Arc<dyn Backend>, liveness: Liveness) -> Result<Self, StartError> {
        let redis = Redis::open(config.common.redis.clone()).map_err(StartError::Redis)?;
        let queue = Queue::new(redis, config.common.keys.clone(), config.common.policy.clone());
        let work = Work::new(queue);
        let (model, mut settings) = (config.common.model.clone(), config.run);
        settings.limits.rows = model.most_rows_of_call(settings.limits.rows);
        let runner = Runner {
            sample: Sample::new(Arc::clone(&backend), model.clone(), settings.inference_timeout),
            model,
            backend,
            work,
            breaker: Breaker::new(),
            limiter: Limiter::new(config.fetch.slots),
            batch_limit: BatchLimit::new(settings.limits.rows),
            leases: Leases::default(),
            settings,
        };
        Ok(Self { config, runner: Arc::new(runner), liveness })
    }

    /// Runs, unless the queue has another stored format.
    async fn serve(self, shutdown: CancellationToken) -> Result<(), StartError> {
        let redis = self.runner.work.queue().redis().clone();
        tokio::select! {
            () = self.run(shutdown) => Ok(()),
            format = redis.refused_format() => Err(StartError::StoredFormat(format)),
        }
    }

    async fn run(self, shutdown: CancellationToken) {
        let worker = &self.config.worker_id;
        let (backend, model) = (self.runner.backend.name(), &self.runner.model.name);
        info!(action = "worker_started", worker, backend, model);
        // The helpers run while consumers drain, so that leases are renewed and the breaker works.
        let helpers_stop = CancellationToken::new();
        let (mut helpers, mut consumers) = (Tasks::new(helpers_stop.clone()), Tasks::new(shutdown));
        self.start_helpers(&mut helpers);
        let quarantine = Quarantine::new(self.config.common.policy.max_lost);
        // One consumer reads for the whole process, so an idle process costs Redis the same whatever it may run at a time.
        let name: Arc<str> = format!("{worker}-0").into();
        self.start_lease_keeper(&name, &mut helpers);
        self.start_consumer(name, quarantine, &mut consumers);
        consumers.ended().await;
        helpers_stop.cancel();
        // A helper may be in the middle of a call to an unreachable Redis. Its outcome is no longer needed.
        let _ = tokio::time::timeout(Duration::from_secs(2), helpers.ended()).await;
        info!(action = "worker_stopped", worker);
    }

    fn start_helpers(&self, helpers: &mut Tasks) {
        let Runner { backend, work, breaker, sample, leases, .. } = &*self.runner;
        let heartbeat =
            Heartbeat::new(&self.config, backend.name(), work.clone(), breaker.clone(), leases.clone());
        let pulse = self.liveness.watch("heartbeat".to_owned(), upkeep::heartbeat::INTERVAL);
        helpers.keep("heartbeat", move |stop| heartbeat.clone().run(pulse.clone(), stop));
        let (probed, breaker, sample) = (Arc::clone(backend), breaker.clone(), sample.clone());
        helpers.keep("breaker", move |stop| breaker.clone().run(Arc::clone(&probed), sample.clone(), stop));
        let (kept, held) = (work.clone(), leases.clone());
        let model = self.config.common.model_name;
        helpers.keep("janitor", move |stop| Janitor::new(kept.clone(), held.clone(), model).run(stop));
        let (redis, keys) = (work.queue().redis().clone(), work.queue().keys().clone());
        helpers.finish("default_user_check", move || warn_about_default_user(redis.clone(), keys.clone()));
    }

    fn start_lease_keeper(&self, consumer: &Arc<str>, helpers: &mut Tasks) {
        let (leases, work) = (self.runner.leases.clone(), self.runner.work.clone());
        let name = format!("lease keeper of {consumer}");
        let pulse = self.liveness.watch(name, lease_keeper::interval(&work));
        let keeper = LeaseKeeper { consumer: consumer.to_string(), leases, work, pulse };
        helpers.keep("lease_keeper", move |stop| keeper.clone().run(stop));
    }

    fn start_consumer(&self, name: Arc<str>, quarantine: Quarantine, consumers: &mut Tasks) {
        let (settings, runner) = (self.config.fetch, Arc::clone(&self.runner));
        let pulse = self.liveness.watch(format!("consumer {name}"), settings.batch_max_wait);
        let model = self.config.common.model_name;
        let consumer = Consumer { name, model, settings, runner, quarantine, pulse };
        consumers.keep("consumer", move |shutdown| consumer.clone().run(shutdown));
    }
}
