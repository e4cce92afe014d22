//! The metrics of the proxy. `names` is the table of all of them. The recorder is the proxy's own, not the process's, so that
//! several proxies can run in one process.

mod connections;
mod gauges;
mod jobs;
mod names;
mod requests;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Bytes,
    http::{Method, StatusCode},
};
use metrics::{Counter, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tepal_shared::{
    job::{ModelName, Priority},
    process::{supervisor, telemetry},
};

use crate::snapshot::ModelQueue;

pub(crate) use self::{
    connections::{ConnectionMetrics, TlsMetrics},
    gauges::{Gauges, RedisGauges},
};
use self::{
    gauges::set_queue,
    jobs::{JobMetrics, UNKNOWN},
    names::{
        BUILD, DURATION, LOG_DROPPED, MODEL_FAILED, REFUSED, STARTED, TASK_FAILURES, UNAUTHORIZED, describe,
    },
    requests::{DURATION_SECONDS, Requests},
};

/// Rendering the page takes milliseconds, so it is kept for this time.
const PAGE_LIFETIME: Duration = Duration::from_millis(100);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Why callers are rejected: the labels of [`UNAUTHORIZED`].
pub(crate) const UNAUTHORIZED_REASONS: [&str; 5] =
    ["missing_key", "malformed_key", "unknown_key", "wrong_secret", "insufficient_scope"];

/// Counts what the proxy does.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    requests: Requests,
    /// In the order of [`UNAUTHORIZED_REASONS`].
    unauthorized: [Counter; 5],
    jobs: JobMetrics,
    log_dropped: Counter,
    /// The page as it was last rendered, and when.
    last_page: Mutex<Option<(Instant, Bytes)>>,
    /// The metrics that the probe sets.
    pub(crate) gauges: Gauges,
    pub(crate) tls: TlsMetrics,
    pub(crate) connections: ConnectionMetrics,
}

impl Metrics {
    /// A recorder with every metric described.
    pub(crate) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), DURATION_SECONDS)?
            .build_recorder();
        let handle = recorder.handle();
        let (unauthorized, log_dropped, gauges, tls, connections) = with_local_recorder(&recorder, || {
            describe();
            gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            gauge!(STARTED).set(unix_seconds());
            (
                UNAUTHORIZED_REASONS.map(|reason| counter!(UNAUTHORIZED, "reason" => reason)),
                counter!(LOG_DROPPED),
                Gauges::new(),
                TlsMetrics::new(),
                ConnectionMetrics::new(),
            )
        });
        Ok(Self {
            recorder,
            handle,
            requests: Requests::default(),
            unauthorized,
            jobs: JobMetrics::default(),
            log_dropped,
            last_page: Mutex::default(),
            gauges,
            tls,
            connections,
        })
    }

    /// The page for Prometheus.
    pub(crate) fn page(&self) -> Bytes {
        let mut last = self.last_page.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((made, page)) if made.elapsed() < PAGE_LIFETIME => page.clone(),
            _ => {
                let page = Bytes::from(self.render());
                *last = Some((Instant::now(), page.clone()));
                page
            }
        }
    }

    fn render(&self) -> String {
        self.log_dropped.absolute(telemetry::dropped_lines());
        with_local_recorder(&self.recorder, || {
            for (task, count) in supervisor::failures() {
                counter!(TASK_FAILURES, "task" => task).absolute(count);
            }
        });
        self.handle.render()
    }

    /// Moves recorded durations into their buckets, for as long as the process lives. Otherwise they would pile up until the next
    /// scrape.
    pub(crate) async fn upkeep(&self) {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tick.tick().await;
            self.handle.run_upkeep();
        }
    }

    /// A request was answered.
    pub(crate) fn request(&self, method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
        self.requests.count(&self.recorder, (method, route), status, took);
    }

    /// A request was rejected for its sender.
    pub(crate) fn unauthorized(&self, reason: &str) {
        let index = UNAUTHORIZED_REASONS.iter().position(|known| *known == reason);
        if let Some(counter) = index.and_then(|index| self.unauthorized.get(index)) {
            counter.increment(1);
        }
    }

    /// The proxy knows these models.
    pub(crate) fn models_known(&self, models: impl IntoIterator<Item = ModelName>) {
        models.into_iter().for_each(|model| self.jobs.add(&self.recorder, model));
    }

    /// A new job was accepted.
    pub(crate) fn submitted(&self, model: ModelName, priority: Priority) {
        self.jobs.count(&self.recorder, model, |counters| counters.submitted(priority));
    }

    /// A submission led to an existing job.
    pub(crate) fn repeated(&self, model: ModelName) {
        self.jobs.count(&self.recorder, model, |counters| &counters.repeated);
    }

    /// A failed or cancelled job was requeued.
    pub(crate) fn requeued(&self, model: ModelName) {
        self.jobs.count(&self.recorder, model, |counters| &counters.requeued);
    }

    /// A job was cancelled. One with a damaged record has no model.
    pub(crate) fn cancelled(&self, model: Option<ModelName>) {
        if let Some(model) = model {
            self.jobs.count(&self.recorder, model, |counters| &counters.cancelled);
        }
    }

    /// Whether the files of a model in MODELS_DIR cannot be read.
    pub(crate) fn model_failed(&self, model: ModelName, has_failed: bool) {
        with_local_recorder(&self.recorder, || {
            gauge!(MODEL_FAILED, "model" => model.as_str()).set(f64::from(u8::from(has_failed)));
        });
    }

    /// The probe counted the jobs of a model. Those that have not ended include those of partitions that cannot be read.
    pub(crate) fn queue(&self, model: ModelName, queue: &ModelQueue, outstanding: u64) {
        with_local_recorder(&self.recorder, || set_queue(model, queue, outstanding));
    }

    /// A submission was not accepted. Its model may be unknown.
    pub(crate) fn refused(&self, model: Option<ModelName>, code: &'static str) {
        let model = model.map_or(UNKNOWN, ModelName::as_str);
        with_local_recorder(&self.recorder, || {
            counter!(REFUSED, "model" => model, "reason" => code).increment(1);
        });
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
