//! Why a call of the Open Inference Protocol or of TensorFlow Serving's API has no result, although its job was accepted, or why it
//! cannot be served at all.

use std::borrow::Cow;

use axum::http::StatusCode;
use tepal_shared::job::Job;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The job failed.
    Failed {
        /// One of [`FAILURES`].
        code: &'static str,
        /// Why, a sentence.
        why: String,
    },
    /// Somebody cancelled the job.
    Cancelled,
    /// The job has not ended within `V2_WAIT_SECONDS`. It goes on.
    StillRunning,
    /// The job has not ended within the time that the client allowed.
    DeadlineExceeded,
    /// The job was removed while the call waited.
    Removed,
    /// No live worker can call the model.
    ModelNotReady,
    /// The model has no version with this label.
    NoSuchLabel {
        /// The label that there is.
        known: Option<String>,
    },
    /// This part of the protocol is not served; why.
    NotSupported(&'static str),
    /// The request is not one of gRPC.
    NotGrpc,
    /// The message cannot be decoded; why.
    NotMessage(String),
}

/// The status of each `error_code` of a failed job.
const FAILURES: [(&str, StatusCode); 13] = [
    ("bad_model_answer", StatusCode::INTERNAL_SERVER_ERROR),
    ("inference_timeout", StatusCode::GATEWAY_TIMEOUT),
    ("invalid_input", StatusCode::BAD_REQUEST),
    ("model_error", StatusCode::INTERNAL_SERVER_ERROR),
    ("model_lost", StatusCode::INTERNAL_SERVER_ERROR),
    ("model_not_found", StatusCode::NOT_FOUND),
    ("model_overloaded", StatusCode::SERVICE_UNAVAILABLE),
    ("model_rejected", StatusCode::BAD_REQUEST),
    ("payload_too_large_for_model", StatusCode::BAD_REQUEST),
    ("queue_timeout", StatusCode::GATEWAY_TIMEOUT),
    ("result_too_large", StatusCode::INTERNAL_SERVER_ERROR),
    ("timeout", StatusCode::GATEWAY_TIMEOUT),
    ("worker_lost", StatusCode::INTERNAL_SERVER_ERROR),
];
/// A code that a later release made.
const OTHER: (&str, StatusCode) = ("job_failed", StatusCode::INTERNAL_SERVER_ERROR);

impl CallError {
    /// Why the failed job has no result.
    pub(crate) fn of_failed(job: &Job) -> Self {
        let code = job.error_code.as_deref().unwrap_or_default();
        let (code, _) = FAILURES.into_iter().find(|(known, _)| *known == code).unwrap_or(OTHER);
        Self::Failed { code, why: job.error.clone().unwrap_or_else(|| "The job failed".to_owned()) }
    }

    /// One word for programs, and the status.
    pub(super) fn kind(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Failed { code, .. } => {
                FAILURES.into_iter().find(|(known, _)| known == code).unwrap_or(OTHER)
            }
            Self::Cancelled => ("job_cancelled", StatusCode::CONFLICT),
            Self::StillRunning => ("still_running", StatusCode::GATEWAY_TIMEOUT),
            Self::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
            Self::Removed => ("job_removed", StatusCode::INTERNAL_SERVER_ERROR),
            Self::ModelNotReady => ("model_not_ready", StatusCode::SERVICE_UNAVAILABLE),
            Self::NoSuchLabel { .. } => ("model_version_not_found", StatusCode::NOT_FOUND),
            Self::NotSupported(_) => ("not_supported", StatusCode::NOT_IMPLEMENTED),
            Self::NotGrpc => ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::NotMessage(_) => ("invalid_message", StatusCode::BAD_REQUEST),
        }
    }

    pub(super) fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::Failed { why, .. } => why.clone().into(),
            Self::Cancelled => "The job was cancelled".into(),
            Self::StillRunning => {
                "The job has not ended yet and goes on; the header tepal-job-id has its id for GET /job/{id}".into()
            }
            Self::DeadlineExceeded => {
                "The job did not end within the time that the request allows; it was cancelled unless the request has an \
                 Idempotency-Key"
                    .into()
            }
            Self::Removed => "The job was removed before its result was read".into(),
            Self::ModelNotReady => "No live worker can call the model".into(),
            Self::NoSuchLabel { known: Some(known) } => {
                format!("The model has no version with this label; its label is `{known}`").into()
            }
            Self::NoSuchLabel { known: None } => "The versions of the model have no labels".into(),
            Self::NotSupported(why) => (*why).into(),
            Self::NotGrpc => "The request must be sent as Content-Type: application/grpc".into(),
            Self::NotMessage(why) => format!("The message cannot be decoded: {why}").into(),
        }
    }

    /// One of each kind, with one of each failure.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let failed =
            FAILURES.iter().chain([&OTHER]).map(|(code, _)| Self::Failed { code, why: String::new() });
        let others = [
            Self::Cancelled,
            Self::StillRunning,
            Self::DeadlineExceeded,
            Self::Removed,
            Self::ModelNotReady,
            Self::NoSuchLabel { known: None },
            Self::NotSupported("why"),
            Self::NotGrpc,
            Self::NotMessage("why".to_owned()),
        ];
        failed.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_error_code_of_the_documentation_has_a_status() {
        let page = include_str!("../../../docs/api.md");
        let (_, table) = page.split_once("### Why a job failed").unwrap_or_default();
        let (_, table) = table.split_once("| --- |").unwrap_or_default();
        let (table, _) = table.split_once("\n## ").unwrap_or_default();
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
        let codes = cells.flat_map(|(codes, _)| codes.split("`, `").map(|code| code.trim_matches('`')));
        let known = FAILURES.iter().map(|(code, _)| *code);
        assert_eq!(codes.collect::<BTreeSet<_>>(), known.collect::<BTreeSet<_>>());
    }
}
