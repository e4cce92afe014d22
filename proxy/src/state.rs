//! What all handlers share.

use std::{sync::Arc, time::Duration};

use axum::extract::Request;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    edge::{
        access::{Access, Caller},
        admission::Admission,
        rate_limit::{Account, RateLimit},
    },
    http::{bodies::Bodies, conversions::Conversions, peer::TrustedProxies},
    jobs::{
        follow::Following,
        intake::Intake,
        known_models::Models,
        quota::{Charges, Quota},
        results::Results,
        store::Store,
    },
    metrics::Metrics,
    secret::Secret,
    snapshot::Snapshot,
    start_error::StartError,
};

/// One proxy.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) intake: Intake,
    pub(crate) following: Following,
    pub(crate) results: Results,
    pub(crate) charges: Charges,
    pub(crate) models: Arc<Models>,
    pub(crate) bodies: Bodies,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) secret: Arc<Secret>,
    /// How long a call of another protocol waits for its job.
    pub(crate) longest_call: Duration,
    /// Number of live workers that are expected; 0 = having none is healthy.
    pub(crate) workers_expected: usize,
    pub(crate) shutdown: CancellationToken,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl App {
    /// Starts to connect to Redis.
    pub(crate) fn new(
        config: &Config,
        access: Option<Access>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        conversions: Conversions,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let store = Store::open(&config.common, config.replication).map_err(StartError::Redis)?;
        let metrics = Arc::new(Metrics::new().map_err(StartError::Metrics)?);
        metrics.gauges.workers_expected.set(config.workers_expected as f64);
        metrics.models_known(config.own_models.models.iter().map(|served| served.name));
        let secret = Arc::new(Secret::default());
        let bodies = Bodies::new(config.body, conversions.clone());
        let has_rate_limit = config.rate_limit.is_some();
        let quota = Quota::new(config.owner_max_bytes, has_rate_limit, config.common.policy.partitions);
        let rate_limit = config
            .rate_limit
            .map(|per_minute| Arc::new(RateLimit::new(per_minute, config.trusted_proxies.clone())));
        Ok(Self {
            intake: Intake::new(store.clone(), Arc::clone(&metrics), snapshot.clone()),
            following: Following::new(store.clone(), shutdown.clone()),
            results: Results::new(store.clone(), Arc::clone(bodies.budget()), conversions),
            charges: Charges { quota, store: store.clone(), secret: Arc::clone(&secret) },
            store,
            models: Arc::new(Models::new(config.own_models.models.clone(), config.common.model_name)),
            bodies,
            admission: Arc::new(Admission { access, rate_limit, metrics: Arc::clone(&metrics) }),
            metrics,
            trusted_proxies: config.trusted_proxies.clone(),
            secret,
            longest_call: config.longest_call,
            workers_expected: config.workers_expected,
            shutdown,
            snapshot,
        })
    }

    /// What the probe saw last.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Whether a call of the model may be sent: a live worker can call it, or its first job starts a worker.
    pub(crate) fn is_model_ready(&self, model: &str) -> bool {
        let snapshot = self.snapshot();
        snapshot.is_ready(model) || (self.workers_expected == 0 && snapshot.is_unserved(model))
    }

    /// Where an admitted request is counted; `None` when its sender may send any number.
    pub(crate) fn account(&self, caller: &Caller, request: &Request) -> Option<Account> {
        self.admission.account(caller, request)
    }
}
