//! Every metric of the worker, with its help text and buckets, in one place.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::{Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tepal_shared::{
    job::{ModelName, Stream},
    process::{supervisor, telemetry},
    queue::work::{Fence, Granted, Settled, Settlement},
};

use crate::backend::Verdict;

const PROCESSED: &str = "tepal_jobs_processed_total";
const FAILED: &str = "tepal_jobs_failed_total";
const PROCESSING: &str = "tepal_job_processing_seconds";
const WAIT: &str = "tepal_job_wait_seconds";
const INFERENCE: &str = "tepal_inference_seconds";
const BATCH_ROWS: &str = "tepal_batch_rows";
const BATCH_JOBS: &str = "tepal_batch_jobs";
const RECLAIMED: &str = "tepal_jobs_reclaimed_total";
const FENCED: &str = "tepal_outcomes_fenced_total";
const REPAIRED: &str = "tepal_entries_repaired_total";
const STALE: &str = "tepal_entries_stale_total";
const GROUPS: &str = "tepal_groups_created_total";
const REPEATED: &str = "tepal_settle_repeats_total";
const TASK_FAILURES: &str = "tepal_task_failures_total";
const DATA_LOST: &str = "tepal_data_loss_total";
const LOG_DROPPED: &str = "tepal_log_lines_dropped_total";
const JOBS_LOST: &str = "tepal_jobs_lost_total";
const BREAKER: &str = "tepal_breaker_open";
const HELD: &str = "tepal_worker_jobs_held";
const BATCHES_RUNNING: &str = "tepal_worker_batches_running";
const BATCHES_LIMIT: &str = "tepal_worker_batches_limit";
const ROWS_LIMIT: &str = "tepal_worker_batch_rows_limit";
const MODEL_FAILED: &str = "tepal_model_failed";
const SPLITS: &str = "tepal_batch_splits_total";
const BUILD: &str = "tepal_build_info";
/// The name that every Prometheus client library uses.
const STARTED: &str = "process_start_time_seconds";

/// Every `error_code` of a job; docs/api.md says what each means.
const ERROR_CODES: [&str; 14] = [
    "bad_model_answer",
    "inference_timeout",
    "invalid_input",
    "model_error",
    "model_lost",
    "model_not_found",
    "model_overloaded",
    "model_rejected",
    "payload_too_large_for_model",
    "queue_timeout",
    "result_too_large",
    "timeout",
    "worker_lost",
    OTHER_CODE,
];
/// One that a later release made.
const OTHER_CODE: &str = "other";

/// From a tenth of a millisecond to half a minute.
const CALL_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0,
];
/// From a millisecond to an hour.
const WAIT_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the recorder, once per process. Returns the handle that renders the metrics.
///
/// # Errors
/// When a recorder was installed before.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets(CALL_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(WAIT.to_owned()), WAIT_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(PROCESSING.to_owned()), WAIT_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(BATCH_ROWS.to_owned()), COUNTS)?
        .set_buckets_for_metric(Matcher::Full(BATCH_JOBS.to_owned()), COUNTS)?
        .install_recorder()?;
    describe();
    initialise();
    Ok(handle)
}

/// The page for Prometheus.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> String {
    counter!(LOG_DROPPED).absolute(telemetry::dropped_lines());
    for (task, count) in supervisor::failures() {
        counter!(TASK_FAILURES, "task" => task).absolute(count);
    }
    handle.render()
}

/// Moves recorded durations into their buckets for ever. Without it they accumulate until the next scrape.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tick.tick().await;
        handle.run_upkeep();
    }
}

const COUNTERS: [(&str, &str); 13] = [
    (PROCESSED, "Attempts by model and outcome: completed, failed, retried, released, fenced"),
    (FAILED, "Jobs that failed, by model and error_code"),
    (RECLAIMED, "Jobs reclaimed because their worker's lease had lapsed, by model"),
    (
        FENCED,
        "Attempts that were rejected because they no longer held the job, by model and reason: lost, cancelled, missing",
    ),
    (REPAIRED, "Stream entries that were missing in Redis and were written again"),
    (STALE, "Stream entries without an unfinished job, removed"),
    (GROUPS, "Consumer groups that were missing in Redis and were created"),
    (REPEATED, "Times that outcomes had to be recorded again because Redis did not accept them, by model"),
    (TASK_FAILURES, "Times that a background task panicked or ended and was started again, by task"),
    (LOG_DROPPED, "Lines of the log that were dropped because the output did not accept them"),
    (DATA_LOST, "Times that Redis was found without jobs or log entries that it had before"),
    (JOBS_LOST, "Accepted jobs that Redis lost, as far as this process knows: at least so many"),
    (SPLITS, "Failed model calls whose jobs were called again in halves, by model and reason"),
];

const HISTOGRAMS: [(&str, &str); 5] = [
    (PROCESSING, "Time from the claim of a job to its recorded outcome, by model"),
    (WAIT, "Time from the submission of a job to its first claim, by model and priority"),
    (INFERENCE, "Time of one model call, by model and outcome: ok, error"),
    (BATCH_ROWS, "Rows of one model call, by model"),
    (BATCH_JOBS, "Jobs that shared one model call, by model"),
];

const GAUGES: [(&str, &str); 8] = [
    (MODEL_FAILED, "1 if the files of the model cannot be loaded, else 0"),
    (BREAKER, "1 while no jobs of the model are claimed because its backend does not answer, else 0"),
    (HELD, "Jobs that this worker holds, by model"),
    (BATCHES_RUNNING, "Batches that this worker runs, by model"),
    (BATCHES_LIMIT, "Batches of a model that this worker may run at a time; an overloaded backend halves it"),
    (
        ROWS_LIMIT,
        "Rows that one call of the model may have; halved for a while when the backend fails calls because of their size",
    ),
    (BUILD, "Always 1; the label is the version"),
    (STARTED, "When this process started, Unix time"),
];

fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
}

/// Gives each series of the process its first value. A rate over a counter that appears only with its first event misses that event.
fn initialise() {
    for name in [REPAIRED, STALE, GROUPS, DATA_LOST, JOBS_LOST] {
        counter!(name).absolute(0);
    }
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(STARTED).set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
}

/// Gives each series of a model its first value.
pub(crate) fn model_added(model: ModelName) {
    let name = model.as_str();
    for counter in [RECLAIMED, REPEATED] {
        counter!(counter, "model" => name).absolute(0);
    }
    HeldJobs::of(model).gauge.increment(0.0);
    for outcome in ["completed", "failed", "retried", "released", "fenced"] {
        counter!(PROCESSED, "model" => name, "outcome" => outcome).absolute(0);
    }
    for code in ERROR_CODES {
        counter!(FAILED, "model" => name, "code" => code).absolute(0);
    }
    for reason in ["lost", "cancelled", "missing"] {
        counter!(FENCED, "model" => name, "reason" => reason).absolute(0);
    }
    for verdict in Verdict::SPLITTING {
        counter!(SPLITS, "model" => name, "reason" => verdict.word()).absolute(0);
    }
    gauge!(MODEL_FAILED, "model" => name).set(0.0);
    // Until the backend answers nothing can run.
    breaker_open(model, true);
}

/// Whether the present files of a model cannot be loaded.
pub(crate) fn model_failed(model: ModelName, has_failed: bool) {
    gauge!(MODEL_FAILED, "model" => model.as_str()).set(f64::from(u8::from(has_failed)));
}

/// A model is no longer served.
pub(crate) fn model_removed(model: ModelName) {
    breaker_open(model, false);
    batches(model, 0, 0);
}

/// The limit on the rows of a call changed.
pub(crate) fn batch_rows_limit(model: ModelName, rows: usize) {
    gauge!(ROWS_LIMIT, "model" => model.as_str()).set(rows as f64);
}

/// The jobs of a failed call are called again in halves.
pub(crate) fn batch_split(model: ModelName, reason: &'static str) {
    counter!(SPLITS, "model" => model.as_str(), "reason" => reason).increment(1);
}

/// Jobs were claimed.
pub(crate) fn granted(granted: &Granted) {
    let attempts = granted.deliveries.iter().map(|delivery| &delivery.attempt);
    for attempt in attempts.filter(|attempt| attempt.claim.token == 1) {
        let Stream { model, priority } = attempt.claim.stream;
        histogram!(WAIT, "model" => model.as_str(), "priority" => priority.as_str()).record(attempt.age);
    }
    for job in &granted.ended {
        failed(job.model, &job.code);
    }
    for model in &granted.reclaimed {
        counter!(RECLAIMED, "model" => model.as_str()).increment(1);
    }
    for (name, count) in [(STALE, granted.stale), (GROUPS, granted.groups_created)] {
        if count > 0 {
            counter!(name).increment(count);
        }
    }
}

/// A model call starts.
pub(crate) fn batch(model: ModelName, jobs: usize, rows: usize) {
    histogram!(BATCH_JOBS, "model" => model.as_str()).record(jobs as f64);
    histogram!(BATCH_ROWS, "model" => model.as_str()).record(rows as f64);
}

/// A model call ended.
pub(crate) fn inference(model: ModelName, took: Duration, is_ok: bool) {
    let outcome = if is_ok { "ok" } else { "error" };
    histogram!(INFERENCE, "model" => model.as_str(), "outcome" => outcome).record(took);
}

/// The outcome of an attempt was recorded, or rejected. `outcome` is its word.
pub(crate) fn settled(
    model: ModelName,
    outcome: &'static str,
    settlement: &Settlement,
    settled: Settled,
    took: Duration,
) {
    histogram!(PROCESSING, "model" => model.as_str()).record(took);
    let repaired = match settled {
        Settled::Fenced(why) => return fenced(model, why),
        Settled::Done { repaired } => repaired,
    };
    match settlement {
        Settlement::Fail { code, .. } => failed(model, code),
        _ => processed(model, outcome),
    }
    if repaired {
        counter!(REPAIRED).increment(1);
    }
}

fn processed(model: ModelName, outcome: &'static str) {
    counter!(PROCESSED, "model" => model.as_str(), "outcome" => outcome).increment(1);
}

/// A job failed, with this `error_code`.
fn failed(model: ModelName, code: &str) {
    processed(model, "failed");
    let code = ERROR_CODES.into_iter().find(|known| *known == code).unwrap_or(OTHER_CODE);
    counter!(FAILED, "model" => model.as_str(), "code" => code).increment(1);
}

/// An attempt no longer holds its job.
pub(crate) fn fenced(model: ModelName, why: Fence) {
    processed(model, "fenced");
    counter!(FENCED, "model" => model.as_str(), "reason" => why.word()).increment(1);
}

/// Outcomes have to be recorded again.
pub(crate) fn settle_repeated(model: ModelName) {
    counter!(REPEATED, "model" => model.as_str()).increment(1);
}

/// The breaker of a model opened or closed.
pub(crate) fn breaker_open(model: ModelName, is_open: bool) {
    gauge!(BREAKER, "model" => model.as_str()).set(if is_open { 1.0 } else { 0.0 });
}

/// Counts the held jobs of a model.
pub(crate) struct HeldJobs {
    pub(crate) model: ModelName,
    gauge: Gauge,
}

/// A held job. It is counted until it is dropped.
pub(crate) struct HeldJob(Gauge);

impl HeldJobs {
    pub(crate) fn of(model: ModelName) -> Self {
        Self { model, gauge: gauge!(HELD, "model" => model.as_str()) }
    }

    /// Counts one.
    pub(crate) fn one(&self) -> HeldJob {
        self.gauge.increment(1.0);
        HeldJob(self.gauge.clone())
    }
}

impl Drop for HeldJob {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl fmt::Debug for HeldJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldJob")
    }
}

/// The number of batches of a model that run or may run changed.
pub(crate) fn batches(model: ModelName, running: usize, limit: usize) {
    gauge!(BATCHES_RUNNING, "model" => model.as_str()).set(running as f64);
    gauge!(BATCHES_LIMIT, "model" => model.as_str()).set(limit as f64);
}

/// Unfinished jobs without an entry were queued again.
pub(crate) fn repaired(count: u64) {
    counter!(REPAIRED).increment(count);
}

/// Redis lost at least this many jobs.
pub(crate) fn data_lost(jobs: u64) {
    counter!(DATA_LOST).increment(1);
    counter!(JOBS_LOST).increment(jobs);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_error_code_of_the_documentation_is_counted_as_itself() {
        let page = include_str!("../../docs/api.md");
        let (_, table) = page.split_once("### Why a job failed").unwrap_or_default();
        let (_, table) = table.split_once("| --- |").unwrap_or_default();
        let (table, _) = table.split_once("\n## ").unwrap_or_default();
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
        let codes = cells.flat_map(|(codes, _)| codes.split("`, `").map(|code| code.trim_matches('`')));
        let counted = ERROR_CODES.into_iter().filter(|code| *code != OTHER_CODE);
        assert_eq!(codes.collect::<BTreeSet<_>>(), counted.collect::<BTreeSet<_>>());
    }
}
