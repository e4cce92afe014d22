//! The outcome of one attempt, and its log line.

use std::time::Duration;

use tepal_shared::{
    job::Attempt,
    queue::work::{Settled, Settlement},
};
use tracing::{info, warn};

use crate::run::spans;

/// A job, its outcome, and the facts for its log line.
pub(super) struct Outcome<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) settlement: Settlement,
    pub(super) class_name: Option<String>,
    /// The model call, when traces are on.
    pub(super) call: Option<&'a spans::Call>,
}

impl<'a> Outcome<'a> {
    pub(super) fn of(attempt: &'a Attempt, settlement: Settlement) -> Self {
        Self { attempt, settlement, class_name: None, call: None }
    }

    /// The outcome of the attempt in one word.
    pub(super) fn word(&self, settled: Settled) -> &'static str {
        match (settled, &self.settlement) {
            (Settled::Fenced(_), _) => "fenced",
            (_, Settlement::Complete(_) | Settlement::CompleteStored(_)) => "completed",
            (_, Settlement::Fail { .. }) => "failed",
            (_, Settlement::Retry(_)) => "retried",
            (_, Settlement::Release | Settlement::Broken) => "released",
        }
    }

    /// `took` is unknown for a lost job, which nobody holds any more.
    pub(super) fn log(&self, settled: Settled, took: Option<Duration>) {
        let job_id = tracing::field::display(self.attempt.claim.job_id);
        let duration_ms = took.map(|took| took.as_micros() as f64 / 1000.0);
        let attempt = self.attempt.claim.token;
        let model = self.attempt.claim.stream.model.as_str();
        let request_id = self.attempt.request_id.as_deref();
        let traceparent = self.attempt.traceparent.as_deref();
        if let Settled::Fenced(why) = settled {
            info!(
                action = "attempt_fenced",
                job_id,
                model,
                reason = why.word(),
                duration_ms,
                attempt,
                request_id
            );
            return;
        }
        match &self.settlement {
            Settlement::Complete(_) | Settlement::CompleteStored(_) => {
                let result = self.class_name.as_deref();
                info!(
                    action = "prediction_completed",
                    job_id, duration_ms, result, model, attempt, request_id, traceparent
                );
            }
            Settlement::Fail { code, .. } => {
                warn!(
                    action = "prediction_failed",
                    job_id, model, duration_ms, code, attempt, request_id, traceparent
                );
            }
            Settlement::Retry(delay) => {
                let retry_ms = delay.as_millis() as u64;
                info!(action = "attempt_retried", job_id, model, duration_ms, retry_ms, attempt, request_id);
            }
            Settlement::Release | Settlement::Broken => {
                info!(action = "attempt_released", job_id, model, duration_ms, attempt, request_id)
            }
        }
    }
}
