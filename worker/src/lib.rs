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
//! | [`doctor`] | checks what the worker needs, and reports what is wrong |

pub mod backend;
pub mod doctor;
pub mod fetch;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod metrics;
pub mod run;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod upkeep;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tepal_shared::{
    process::{
        shutdown::{self, Shutdown},
        supervisor::Tasks,
    },
    queue::{doctor::warn_about_default_user, link::Redis, store::JobStore},
};
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
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
}

/// Runs the worker until `shutdown` begins and its jobs are finished or released.
///
/// # Errors
/// When it cannot start. Once it runs, it outlives every failure of Redis and of the model server.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), StartError> {
    let liveness = Liveness::default();
    let metrics = metrics::install().map_err(StartError::Metrics)?;
    let addr = config.metrics_addr;
    let monitor = Monitor::open(addr, metrics.clone(), liveness.clone()).await;
    let monitor = monitor.map_err(|error| StartError::Monitor { addr, error })?;
    let mut tasks = Tasks::new(shutdown.clone());
    tasks.keep("monitor", move |_| monitor.clone().serve());
    tasks.keep("metrics_upkeep", move |_| metrics::upkeep(metrics.clone()));
    let backend = backend::open(&config).map_err(StartError::Backend)?;
    work(config, backend, liveness, shutdown).await
}

/// [`run`] with any other backend, and without the metrics port, of which a process can have only one.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    backend: Arc<dyn Backend>,
    shutdown: Shutdown,
) -> Result<(), StartError> {
    work(config, backend, Liveness::default(), shutdown).await
}

async fn work(
    config: Config,
    backend: Arc<dyn Backend>,
    liveness: Liveness,
    shutdown: Shutdown,
) -> Result<(), StartError> {
    let config = Arc::new(config);
    let redis = Redis::open(config.common.redis.clone()).map_err(StartError::Redis)?;
    let store = JobStore::new(redis, config.common.keys.clone(), config.common.policy.clone());
    let breaker = Breaker::new();
    let limiter = Limiter::new(config.num_workers * config.max_in_flight);
    let leases = Leases::default();
    let heartbeat = Heartbeat::new(&config, backend.name(), store.clone(), breaker.clone(), leases.clone());
    let sample =
        Sample::new(Arc::clone(&backend), config.common.model.clone(), config.retry.inference_timeout);
    let runner = Arc::new(Runner {
        model: config.common.model.clone(),
        backend: Arc::clone(&backend),
        store: store.clone(),
        breaker: breaker.clone(),
        limiter: limiter.clone(),
        leases: leases.clone(),
        batch_limit: BatchLimit::new(config.batch_max_rows),
        sample: sample.clone(),
        retry: config.retry.clone(),
        batch_max_bytes: config.batch_max_bytes,
        max_result_bytes: config.max_result_bytes,
    });
    info!(
        action = "worker_started",
        worker = config.worker_id,
        backend = backend.name(),
        model = config.common.model.name
    );

    // The helpers run while consumers drain, so that leases are renewed and the breaker works.
    let (stop_helpers, helpers_stop) = shutdown::channel();
    let (mut helpers, mut consumers) = (Tasks::new(helpers_stop), Tasks::new(shutdown));
    let probed = breaker.clone();
    helpers.keep("breaker", move |stop| probed.clone().run(Arc::clone(&backend), sample.clone(), stop));
    let pulse = liveness.watch("heartbeat".to_owned(), upkeep::heartbeat::INTERVAL);
    helpers.keep("heartbeat", move |stop| heartbeat.clone().run(pulse.clone(), stop));
    let (kept, held) = (store.clone(), leases.clone());
    helpers.keep("janitor", move |stop| Janitor::new(kept.clone(), held.clone()).run(stop));
    let (redis, keys) = (store.redis().clone(), config.common.keys.clone());
    helpers.finish("default_user_check", move || warn_about_default_user(redis.clone(), keys.clone()));

    let quarantine = Quarantine::new(config.common.policy.max_lost);
    for number in 0..config.num_workers {
        let name = format!("{}-{number}", config.worker_id);
        let pulse = liveness.watch(format!("lease keeper of {name}"), lease_keeper::interval(&store));
        let (leases, store, consumer) = (leases.clone(), store.clone(), name.clone());
        let keeper = LeaseKeeper { consumer, leases, store, pulse };
        helpers.keep("lease_keeper", move |stop| keeper.clone().run(stop));
        let pulse = liveness.watch(format!("consumer {name}"), config.batch_max_wait);
        let name: Arc<str> = name.into();
        let (config, runner, quarantine) = (Arc::clone(&config), Arc::clone(&runner), quarantine.clone());
        consumers.keep("consumer", move |shutdown| {
            let (config, runner, quarantine) = (Arc::clone(&config), Arc::clone(&runner), quarantine.clone());
            Consumer::run_or_fail(Arc::clone(&name), config, runner, quarantine, pulse.clone(), shutdown)
        });
    }
    consumers.ended().await;
    stop_helpers.begin();
    // A helper may be in the middle of a call to an unreachable Redis. Its outcome is no longer needed.
    let _ = tokio::time::timeout(Duration::from_secs(2), helpers.ended()).await;
    info!(action = "worker_stopped", worker = config.worker_id);
    Ok(())
}
