//! The name and the help text of every metric of the proxy.

use metrics::{describe_counter, describe_gauge, describe_histogram};

pub(super) const REQUESTS: &str = "tepal_http_requests_total";
pub(super) const UNAUTHORIZED: &str = "tepal_http_unauthorized_total";
pub(super) const DURATION: &str = "tepal_http_request_duration_seconds";
pub(super) const CONNECTIONS: &str = "tepal_http_connections";
pub(super) const CONNECTIONS_LIMIT: &str = "tepal_http_connections_limit";
pub(super) const CONNECTIONS_WAITING: &str = "tepal_http_connections_waiting";
pub(super) const DISPLACED: &str = "tepal_http_connections_displaced_total";
pub(super) const POSTPONED: &str = "tepal_http_requests_postponed_total";
pub(super) const SUBMITTED: &str = "tepal_jobs_submitted_total";
pub(super) const REPEATED: &str = "tepal_jobs_repeated_total";
pub(super) const REFUSED: &str = "tepal_jobs_refused_total";
pub(super) const REQUEUED: &str = "tepal_jobs_requeued_total";
pub(super) const CANCELLED: &str = "tepal_jobs_cancelled_total";
pub(super) const QUEUE_LENGTH: &str = "tepal_queue_length";
pub(super) const IN_FLIGHT: &str = "tepal_jobs_in_flight";
pub(super) const WAITING_RETRY: &str = "tepal_jobs_waiting_retry";
pub(super) const OUTSTANDING: &str = "tepal_jobs_outstanding";
pub(super) const MODEL_OUTSTANDING: &str = "tepal_model_jobs_outstanding";
pub(super) const OLDEST_WAITING: &str = "tepal_oldest_waiting_job_seconds";
pub(super) const DEAD_LETTERS: &str = "tepal_dead_letters";
pub(super) const MODEL_FAILED: &str = "tepal_model_failed";
pub(super) const WORKERS_LIVE: &str = "tepal_workers_live";
pub(super) const WORKERS_EXPECTED: &str = "tepal_workers_expected";
pub(super) const REDIS_UP: &str = "tepal_redis_up";
pub(super) const REDIS_MEMORY: &str = "tepal_redis_memory_bytes";
pub(super) const REDIS_MAX_MEMORY: &str = "tepal_redis_max_memory_bytes";
pub(super) const REDIS_KEYS: &str = "tepal_redis_keys";
pub(super) const REDIS_EXPIRED: &str = "tepal_redis_expired_keys_total";
pub(super) const DATA_LOSS: &str = "tepal_data_loss_total";
pub(super) const JOBS_LOST: &str = "tepal_jobs_lost_total";
pub(super) const REDIS_EVICTED: &str = "tepal_redis_evicted_keys_total";
pub(super) const REDIS_COMMANDS: &str = "tepal_redis_commands_total";
pub(super) const REDIS_CLIENTS: &str = "tepal_redis_clients";
pub(super) const REDIS_UPTIME: &str = "tepal_redis_uptime_seconds";
pub(super) const REDIS_AOF_OK: &str = "tepal_redis_aof_ok";
pub(super) const REDIS_AOF_BYTES: &str = "tepal_redis_aof_bytes";
pub(super) const TLS_FAILED: &str = "tepal_tls_handshakes_failed_total";
pub(super) const TLS_EXPIRES: &str = "tepal_tls_certificate_expires_seconds";
pub(super) const TASK_FAILURES: &str = "tepal_task_failures_total";
pub(super) const LOG_DROPPED: &str = "tepal_log_lines_dropped_total";
pub(super) const BUILD: &str = "tepal_build_info";
/// The name that every Prometheus client library uses.
pub(super) const STARTED: &str = "process_start_time_seconds";

const COUNTERS: &[(&str, &str)] = &[
    (REQUESTS, "HTTP requests answered, by method, route and status"),
    (
        UNAUTHORIZED,
        "Requests rejected for their sender: no key, a wrong key, or a key without the scope, by reason",
    ),
    (DISPLACED, "Connections closed to make room for others, by what they did"),
    (POSTPONED, "Requests that waited because their address had too many in progress"),
    (SUBMITTED, "Jobs accepted, by model and priority"),
    (REPEATED, "Submissions whose idempotency key led to an existing job, by model"),
    (
        REFUSED,
        "Submissions that were not accepted, by model and the code of the answer, such as queue_full or outcome_unknown",
    ),
    (DATA_LOSS, "Times that jobs or log entries were found missing from Redis"),
    (JOBS_LOST, "Accepted jobs that Redis lost, at least, as far as this process knows"),
    (REQUEUED, "Failed or cancelled jobs that were requeued as new jobs, by model"),
    (CANCELLED, "Confirmed cancellations, repeated ones included, by model"),
    (TASK_FAILURES, "Times that a background task panicked or ended and was restarted, by task"),
    (LOG_DROPPED, "Log lines dropped because the output was too slow"),
    (TLS_FAILED, "Failed TLS handshakes, by reason"),
    (REDIS_EXPIRED, "Keys that expired in Redis since this proxy started"),
    (REDIS_EVICTED, "Keys that Redis evicted for lack of memory since this proxy started"),
    (REDIS_COMMANDS, "Commands that Redis executed since this proxy started"),
];
const GAUGES: &[(&str, &str)] = &[
    (CONNECTIONS, "Open connections of clients"),
    (CONNECTIONS_LIMIT, "Connections that may be open at a time"),
    (CONNECTIONS_WAITING, "Accepted connections that wait until they may be open"),
    (QUEUE_LENGTH, "Waiting jobs, jobs that wait for a retry included, by model and priority"),
    (IN_FLIGHT, "Jobs claimed by workers, by model"),
    (WAITING_RETRY, "Jobs that wait for their next attempt, released jobs included, by model"),
    (OUTSTANDING, "Jobs that have not ended: waiting and in flight, of all models"),
    (MODEL_OUTSTANDING, "Jobs that have not ended: waiting and in flight, by model"),
    (OLDEST_WAITING, "Time since the submission of the oldest waiting job of a model; 0 when none waits"),
    (DEAD_LETTERS, "Dead letters kept, by model"),
    (MODEL_FAILED, "1 if the files of the model in MODELS_DIR cannot be read, else 0"),
    (WORKERS_LIVE, "Workers with a recent heartbeat"),
    (WORKERS_EXPECTED, "Workers that should be alive (WORKERS_EXPECTED); 0 when none is needed"),
    (
        REDIS_UP,
        "1 while Redis answers as a primary, else 0; meanwhile the gauges of jobs and of Redis keep their last values",
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
    (BUILD, "Always 1; the label shows the version"),
    (STARTED, "When this process started, Unix time"),
];
const HISTOGRAMS: &[(&str, &str)] =
    &[(DURATION, "Time from a request's headers to its answer, by method and route")];

/// Registers the help texts with the recorder.
pub(super) fn describe() {
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
