//! What all handlers share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tepal_shared::{
    job::{JobId, MOST_PARTITIONS},
    model::Model,
    process::shutdown::Shutdown,
    queue::{RedisError, link::Redis, store::JobStore, views::Notifier},
};
use tokio::sync::watch;

use crate::{
    StartError,
    config::Config,
    edge::{access::Access, rate_limit::RateLimit},
    http::bodies::Bodies,
    jobs::{follow::Looks, quota::Quota, results::Results},
    metrics::Metrics,
    probe::Snapshot,
    secret::Secret,
};

/// One proxy.
pub(crate) struct App {
    pub(crate) store: JobStore,
    pub(crate) watchers: Notifier,
    pub(crate) looks: Looks,
    pub(crate) results: Results,
    pub(crate) model: Model,
    pub(crate) bodies: Bodies,
    pub(crate) metrics: Metrics,
    /// `None` when everybody may do everything.
    pub(crate) access: Option<Access>,
    /// `None` when no address is limited.
    pub(crate) rate_limit: Option<Arc<RateLimit>>,
    pub(crate) secret: Secret,
    pub(crate) quota: Quota,
    pub(crate) shutdown: Shutdown,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    next_partition: AtomicUsize,
}

impl App {
    /// Starts to connect to Redis.
    pub(crate) fn new(
        config: &Config,
        access: Option<Access>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        let store = store(config).map_err(StartError::Redis)?;
        let bodies = Bodies::new(config.body);
        Ok(Self {
            results: Results::new(store.clone(), Arc::clone(bodies.budget())),
            looks: Looks::default(),
            watchers: Notifier::new(store.redis().clone(), store.keys().clone()),
            store,
            model: config.common.model.clone(),
            bodies,
            metrics: Metrics::new().map_err(StartError::Metrics)?,
            access,
            rate_limit: config
                .rate_limit
                .map(|per_minute| Arc::new(RateLimit::new(per_minute, Arc::clone(&config.trusted_proxies)))),
            secret: Secret::default(),
            quota: Quota::new(
                config.owner_max_bytes,
                config.common.policy.partitions,
                &config.common.model,
                Arc::clone(&config.trusted_proxies),
            ),
            shutdown,
            snapshot,
            next_partition: AtomicUsize::new(0),
        })
    }

    /// What the probe saw last.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// An id for a new job; partitions take turns.
    pub(crate) fn new_job_id(&self) -> JobId {
        let turn = self.next_partition.fetch_add(1, Ordering::Relaxed);
        let partitions = usize::from(self.store.policy().partitions.clamp(1, MOST_PARTITIONS));
        JobId::new((turn % partitions) as u8)
    }
}

fn store(config: &Config) -> Result<JobStore, RedisError> {
    let common = &config.common;
    let redis = Redis::open(common.redis.clone())?;
    let store = JobStore::new(redis, common.keys.clone(), common.policy.clone());
    match config.replication {
        Some(policy) => store.with_replication(common.redis.clone(), policy),
        None => Ok(store),
    }
}
