//! Every metric of the proxy: one table with names and help texts, and the handles that the code counts with. The
//! recorder is the proxy's own, not the process's, so that several proxies can live in one process.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Bytes,
    http::{Method, StatusCode},
};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram, with_local_recorder,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tepal_shared::{
    job::Priority,
    process::{supervisor, telemetry},
};

use crate::edge::access::Refusal;

const REQUESTS: &str = "tepal_http_requests_total";
const UNAUTHORIZED: &str = "tepal_http_unauthorized_total";
const DURATION: &str = "tepal_http_request_duration_seconds";
const CONNECTIONS: &str = "tepal_http_connections";
const CONNECTIONS_LIMIT: &str = "tepal_http_connections_limit";
const DISPLACED: &str = "tepal_http_connections_displaced_total";
const POSTPONED: &str = "tepal_http_requests_postponed_total";
const SUBMITTED: &str = "tepal_jobs_submitted_total";
const REPEATED: &str = "tepal_jobs_repeated_total";
const REFUSED: &str = "tepal_jobs_refused_total";
const REQUEUED: &str = "tepal_jobs_requeued_total";
const CANCELLED: &str = "tepal_jobs_cancelled_total";
const QUEUE_LENGTH: &str = "tepal_queue_length";
const IN_FLIGHT: &str = "tepal_jobs_in_flight";
const WAITING_RETRY: &str = "tepal_jobs_waiting_retry";
const OLDEST_WAITING: &str = "tepal_oldest_waiting_job_seconds";
const DEAD_LETTERS: &str = "tepal_dead_letters";
const WORKERS_LIVE: &str = "tepal_workers_live";
const REDIS_UP: &str = "tepal_redis_up";
const REDIS_MEMORY: &str = "tepal_redis_memory_bytes";
const REDIS_MAX_MEMORY: &str = "tepal_redis_max_memory_bytes";
const REDIS_KEYS: &str = "tepal_redis_keys";
const REDIS_EXPIRED: &str = "tepal_redis_expired_keys_total";
const DATA_LOSS: &str = "tepal_data_loss_total";
const JOBS_LOST: &str = "tepal_jobs_lost_total";
const REDIS_EVICTED: &str = "tepal_redis_evicted_keys_total";
const REDIS_COMMANDS: &str = "tepal_redis_commands_total";
const REDIS_CLIENTS: &str = "tepal_redis_clients";
const REDIS_UPTIME: &str = "tepal_redis_uptime_seconds";
const REDIS_AOF_OK: &str = "tepal_redis_aof_ok";
const REDIS_AOF_BYTES: &str = "tepal_redis_aof_bytes";
const TLS_FAILED: &str = "tepal_tls_handshakes_failed_total";
const TLS_EXPIRES: &str = "tepal_tls_certificate_expires_seconds";
const TASK_FAILURES: &str = "tepal_task_failures_total";
const LOG_DROPPED: &str = "tepal_log_lines_dropped_total";
const BUILD: &str = "tepal_build_info";
/// The name that every Prometheus client library uses.
const STARTED: &str = "process_start_time_seconds";

const COUNTERS: &[(&str, &str)] = &[
    (REQUESTS, "HTTP requests answered, by method, route and status"),
    (
        UNAUTHORIZED,
        "Requests refused because of who sent them: without a key, with a wrong one, or with too small a scope",
    ),
    (DISPLACED, "Connections that were closed to make room for others, by what they did"),
    (POSTPONED, "Requests that waited because their address had as many in progress as it may have"),
    (SUBMITTED, "Jobs accepted, by priority"),
    (REPEATED, "Submissions that an idempotency key led to an existing job"),
    (REFUSED, "Submissions not accepted, by the code of the answer, such as queue_full or outcome_unknown"),
    (DATA_LOSS, "Times that Redis was found without jobs or log entries that it had before"),
    (JOBS_LOST, "Accepted jobs that Redis lost, as far as this process can know: at least so many"),
    (REQUEUED, "Failed or cancelled jobs that were submitted again as new ones"),
    (CANCELLED, "Cancellations confirmed, repeated ones included"),
    (TASK_FAILURES, "Times that a background task panicked or ended and was started again, by task"),
    (LOG_DROPPED, "Lines of the log that were dropped because the output did not take them"),
    (TLS_FAILED, "TLS handshakes that came to nothing, by reason"),
    (REDIS_EXPIRED, "Keys that expired in Redis since this proxy started"),
    (REDIS_EVICTED, "Keys that Redis threw away for lack of memory since this proxy started"),
    (REDIS_COMMANDS, "Commands that Redis executed since this proxy started"),
];
const GAUGES: &[(&str, &str)] = &[
    (CONNECTIONS, "Open connections of clients"),
    (CONNECTIONS_LIMIT, "Connections that may be open at a time"),
    (QUEUE_LENGTH, "Jobs that wait to be run, for a retry included, by priority"),
    (IN_FLIGHT, "Jobs that workers hold"),
    (WAITING_RETRY, "Jobs that wait for their next attempt or were given back"),
    (OLDEST_WAITING, "Time since the submission of the oldest job that nobody runs; 0 when none waits"),
    (DEAD_LETTERS, "Dead letters kept: jobs that failed for good"),
    (WORKERS_LIVE, "Workers with a recent heartbeat"),
    (
        REDIS_UP,
        "1 while Redis answers as a primary, else 0; the gauges about jobs and Redis keep their last value meanwhile",
    ),
    (REDIS_MEMORY, "Memory that Redis uses"),
    (REDIS_MAX_MEMORY, "Memory that Redis may use; 0 when it has no limit of its own"),
    (REDIS_KEYS, "Keys in Redis"),
    (REDIS_CLIENTS, "Connections to Redis"),
    (REDIS_UPTIME, "Time since Redis started"),
    (
        REDIS_AOF_OK,
        "1 when the append-only file is enabled, its last write succeeded, its last rewrite succeeded; else 0",
    ),
    (REDIS_AOF_BYTES, "Size of the append-only file"),
    (TLS_EXPIRES, "When the certificate of the API expires, Unix time; 0 without TLS"),
    (BUILD, "Always 1; the label tells the version"),
    (STARTED, "When this process started, Unix time"),
];
const HISTOGRAMS: &[(&str, &str)] =
    &[(DURATION, "Time from a request's headers to its answer, by method and route")];

/// From a tenth of a millisecond; finer around the specification's limits: 5, 10, 20, 30 and 50 ms. The last ones are
/// for requests that wait for a job.
const DURATION_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// Making the page takes milliseconds: who asks more often gets the same again.
const PAGE_LIFETIME: Duration = Duration::from_millis(100);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The label of requests that no route matched.
const UNMATCHED: &str = "unmatched";

/// Counts what the proxy does.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Series by route; found without making a key of owned texts.
    requests: RwLock<HashMap<String, Vec<RequestSeries>>>,
    /// In the order of [`Refusal::REASONS`].
    unauthorized: [Counter; 5],
    submitted: [Counter; 3],
    repeated: Counter,
    requeued: Counter,
    cancelled: Counter,
    log_dropped: Counter,
    /// The page as it was last made, and when.
    last_page: Mutex<Option<(Instant, Bytes)>>,
    /// What the probe sets.
    pub(crate) gauges: Gauges,
    pub(crate) tls: TlsMetrics,
    pub(crate) connections: ConnectionMetrics,
}

struct RequestSeries {
    method: &'static str,
    status: StatusCode,
    count: Counter,
    duration: Histogram,
}

/// Gauges of the state that all proxies share.
pub(crate) struct Gauges {
    pub(crate) queue_length: [Gauge; 3],
    pub(crate) in_flight: Gauge,
    pub(crate) waiting_retry: Gauge,
    pub(crate) oldest_waiting: Gauge,
    pub(crate) dead_letters: Gauge,
    pub(crate) workers_live: Gauge,
    pub(crate) redis_up: Gauge,
    pub(crate) data_loss: Counter,
    pub(crate) jobs_lost: Counter,
    pub(crate) redis: RedisGauges,
}

/// The connections of clients.
#[derive(Clone)]
pub(crate) struct ConnectionMetrics {
    pub(crate) open: Gauge,
    pub(crate) limit: Gauge,
    pub(crate) displaced_draining: Counter,
    pub(crate) displaced_waiting: Counter,
    pub(crate) displaced_streaming: Counter,
    pub(crate) postponed: Counter,
}

/// What is known of TLS.
#[derive(Clone)]
pub(crate) struct TlsMetrics {
    pub(crate) expires: Gauge,
    pub(crate) timeout: Counter,
    pub(crate) not_tls: Counter,
    pub(crate) client_certificate: Counter,
    pub(crate) broken: Counter,
}

/// What Redis says of itself.
pub(crate) struct RedisGauges {
    pub(crate) memory: Gauge,
    pub(crate) max_memory: Gauge,
    pub(crate) keys: Gauge,
    pub(crate) expired: Counter,
    pub(crate) evicted: Counter,
    pub(crate) commands: Counter,
    pub(crate) clients: Gauge,
    pub(crate) uptime: Gauge,
    pub(crate) aof_enabled: Gauge,
    pub(crate) aof_write_ok: Gauge,
    pub(crate) aof_rewrite_ok: Gauge,
    pub(crate) aof_bytes: Gauge,
}

impl Metrics {
    /// A recorder with every metric described.
    pub(crate) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), DURATION_SECONDS)?
            .build_recorder();
        let handle = recorder.handle();
        let (unauthorized, submitted, gauges, tls, connections) = with_local_recorder(&recorder, || {
            describe();
            gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            gauge!(STARTED).set(unix_seconds());
            (
                Refusal::REASONS.map(|reason| counter!(UNAUTHORIZED, "reason" => reason)),
                Priority::ALL.map(|priority| counter!(SUBMITTED, "priority" => priority.as_str())),
                Gauges::new(),
                TlsMetrics::new(),
                ConnectionMetrics::new(),
            )
        });
        let [repeated, requeued, cancelled, log_dropped] = [REPEATED, REQUEUED, CANCELLED, LOG_DROPPED]
            .map(|name| with_local_recorder(&recorder, || counter!(name)));
        let requests = RwLock::default();
        Ok(Self {
            recorder,
            handle,
            requests,
            unauthorized,
            submitted,
            repeated,
            requeued,
            cancelled,
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

    /// Moves recorded durations into their buckets for ever; without it they pile up until the next scrape.
    pub(crate) async fn upkeep(&self) {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tick.tick().await;
            self.handle.run_upkeep();
        }
    }

    /// A request was answered.
    pub(crate) fn request(&self, method: &Method, route: Option<&str>, status: StatusCode, took: Duration) {
        let (method, route) = (method_label(method), route.unwrap_or(UNMATCHED));
        let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(route).and_then(|all| find(all, method, status)) {
            return series.record(took);
        }
        drop(known);
        let mut known = self.requests.write().unwrap_or_else(PoisonError::into_inner);
        let all = known.entry(route.to_owned()).or_default();
        if find(all, method, status).is_none() {
            all.push(self.series(method, route, status));
        }
        if let Some(series) = find(all, method, status) {
            series.record(took);
        }
    }

    fn series(&self, method: &'static str, route: &str, status: StatusCode) -> RequestSeries {
        let route = route.to_owned();
        with_local_recorder(&self.recorder, || RequestSeries {
            method,
            status,
            count: counter!(
                REQUESTS, "method" => method, "route" => route.clone(), "status" => status.as_str().to_owned()
            ),
            duration: histogram!(DURATION, "method" => method, "route" => route),
        })
    }

    /// A request was refused because of who sent it.
    pub(crate) fn unauthorized(&self, refusal: Refusal) {
        let place = Refusal::REASONS.iter().position(|reason| *reason == refusal.reason());
        if let Some(counter) = place.and_then(|place| self.unauthorized.get(place)) {
            counter.increment(1);
        }
    }

    /// A new job was accepted.
    pub(crate) fn submitted(&self, priority: Priority) {
        let [high, normal, low] = &self.submitted;
        match priority {
            Priority::High => high.increment(1),
            Priority::Normal => normal.increment(1),
            Priority::Low => low.increment(1),
        }
    }

    /// A submission led to an existing job.
    pub(crate) fn repeated(&self) {
        self.repeated.increment(1);
    }

    /// A failed or cancelled job was submitted again.
    pub(crate) fn requeued(&self) {
        self.requeued.increment(1);
    }

    /// A job was cancelled.
    pub(crate) fn cancelled(&self) {
        self.cancelled.increment(1);
    }

    /// A submission was refused.
    pub(crate) fn refused(&self, code: &'static str) {
        with_local_recorder(&self.recorder, || counter!(REFUSED, "reason" => code).increment(1));
    }
}

impl RequestSeries {
    fn record(&self, took: Duration) {
        self.count.increment(1);
        self.duration.record(took);
    }
}

fn find<'a>(all: &'a [RequestSeries], method: &str, status: StatusCode) -> Option<&'a RequestSeries> {
    all.iter().find(|series| series.status == status && series.method == method)
}

impl Gauges {
    fn new() -> Self {
        Self {
            queue_length: Priority::ALL.map(|priority| gauge!(QUEUE_LENGTH, "priority" => priority.as_str())),
            in_flight: gauge!(IN_FLIGHT),
            waiting_retry: gauge!(WAITING_RETRY),
            oldest_waiting: gauge!(OLDEST_WAITING),
            dead_letters: gauge!(DEAD_LETTERS),
            workers_live: gauge!(WORKERS_LIVE),
            redis_up: gauge!(REDIS_UP),
            data_loss: counter!(DATA_LOSS),
            jobs_lost: counter!(JOBS_LOST),
            redis: RedisGauges::new(),
        }
    }
}

impl ConnectionMetrics {
    fn new() -> Self {
        Self {
            open: gauge!(CONNECTIONS),
            limit: gauge!(CONNECTIONS_LIMIT),
            displaced_draining: counter!(DISPLACED, "while" => "draining"),
            displaced_waiting: counter!(DISPLACED, "while" => "waiting"),
            displaced_streaming: counter!(DISPLACED, "while" => "streaming"),
            postponed: counter!(POSTPONED),
        }
    }

    /// Counts nothing.
    #[cfg(test)]
    pub(crate) fn noop() -> Self {
        let (gauge, counter) = (Gauge::noop, Counter::noop);
        Self {
            open: gauge(),
            limit: gauge(),
            displaced_draining: counter(),
            displaced_waiting: counter(),
            displaced_streaming: counter(),
            postponed: counter(),
        }
    }
}

impl TlsMetrics {
    fn new() -> Self {
        Self {
            expires: gauge!(TLS_EXPIRES),
            timeout: counter!(TLS_FAILED, "reason" => "timeout"),
            not_tls: counter!(TLS_FAILED, "reason" => "not_tls"),
            client_certificate: counter!(TLS_FAILED, "reason" => "client_certificate"),
            broken: counter!(TLS_FAILED, "reason" => "broken"),
        }
    }
}

impl RedisGauges {
    fn new() -> Self {
        Self {
            memory: gauge!(REDIS_MEMORY),
            max_memory: gauge!(REDIS_MAX_MEMORY),
            keys: gauge!(REDIS_KEYS),
            expired: counter!(REDIS_EXPIRED),
            evicted: counter!(REDIS_EVICTED),
            commands: counter!(REDIS_COMMANDS),
            clients: gauge!(REDIS_CLIENTS),
            uptime: gauge!(REDIS_UPTIME),
            aof_enabled: gauge!(REDIS_AOF_OK, "check" => "enabled"),
            aof_write_ok: gauge!(REDIS_AOF_OK, "check" => "write"),
            aof_rewrite_ok: gauge!(REDIS_AOF_OK, "check" => "rewrite"),
            aof_bytes: gauge!(REDIS_AOF_BYTES),
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, *help);
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(*name, *help);
    }
}

/// Clients can send any word as a method; labels come from a closed set.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
