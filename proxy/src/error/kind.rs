//! The status, the code and the title of each error. Only this file gives an error its status code.

use axum::{http::StatusCode, response::Response};
use tepal_shared::queue::error::StoreError;

use super::{api_error::ApiError, call_error::CallError, form::ErrorForm};

/// The properties of a kind of error.
pub(super) struct Kind {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) retry_after: Option<u64>,
}

impl ApiError {
    /// One word for programs; also the reason in metrics.
    pub(crate) fn code(&self) -> &'static str {
        self.kind().code
    }

    /// The answer's status.
    pub(crate) fn status(&self) -> u16 {
        self.kind().status.as_u16()
    }

    /// The answer's status in this form.
    pub(crate) fn status_in(&self, form: ErrorForm) -> StatusCode {
        match (form, self) {
            (ErrorForm::Problem, _) => self.kind().status,
            // The servers of these protocols know no 422.
            (ErrorForm::Member | ErrorForm::Grpc, Self::Invalid(_)) => StatusCode::BAD_REQUEST,
            (ErrorForm::Member | ErrorForm::Grpc, Self::IdempotencyConflict) => StatusCode::CONFLICT,
            (ErrorForm::Member | ErrorForm::Grpc, _) => self.kind().status,
        }
    }

    /// After how many seconds the client may try again, if that can help.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.kind().retry_after
    }

    /// Marks the answer of /health, which is not a problem document, as that of an unavailable service.
    pub(crate) fn mark_unavailable(response: &mut Response) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }

    pub(super) fn kind(&self) -> Kind {
        use StatusCode as S;
        match self {
            Self::NoSuchPath => not_found("not_found", "Not found"),
            Self::MethodNotAllowed => kind(S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed"),
            Self::MalformedRequest | Self::BareLineFeed | Self::BadHost => {
                kind(S::BAD_REQUEST, "malformed_request", "Malformed request")
            }
            Self::UnknownTransferCoding => {
                kind(S::NOT_IMPLEMENTED, "unknown_transfer_coding", "Unknown transfer coding")
            }
            Self::RepeatedHeader(_) => kind(S::BAD_REQUEST, "repeated_header", "Repeated header"),
            Self::UriTooLong => kind(S::URI_TOO_LONG, "uri_too_long", "URI too long"),
            Self::HeadersTooLarge => {
                kind(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "Headers too large")
            }
            Self::Unauthorized => kind(S::UNAUTHORIZED, "unauthorized", "Unauthorized"),
            Self::InsufficientScope(_) => kind(S::FORBIDDEN, "insufficient_scope", "Insufficient scope"),
            Self::NotAcceptable => kind(S::NOT_ACCEPTABLE, "not_acceptable", "Not acceptable"),
            Self::ModelNotFound { .. } => not_found("model_not_found", "Model not found"),
            Self::VersionNotFound { .. } => not_found("model_version_not_found", "Model version not found"),
            Self::ModelForbidden => kind(S::FORBIDDEN, "model_forbidden", "Model forbidden"),
            Self::ModelUnknownYet => later("model_unknown_yet", "Model unknown yet", 5),
            Self::ModelInUse => kind(S::CONFLICT, "model_in_use", "Model in use"),
            Self::JobNotFound => not_found("job_not_found", "Job not found"),
            Self::AlreadyFinished(_) => kind(S::CONFLICT, "job_already_finished", "Job already finished"),
            Self::NotRepeatable(_) | Self::InputExpired(_) => {
                kind(S::CONFLICT, "job_not_repeatable", "Job cannot be requeued")
            }
            Self::BodyTimeout => kind(S::REQUEST_TIMEOUT, "request_timeout", "Request timeout"),
            Self::BodyIncomplete => kind(S::BAD_REQUEST, "incomplete_body", "Incomplete body"),
            Self::BodyTooLarge(_) => kind(S::PAYLOAD_TOO_LARGE, "payload_too_large", "Payload too large"),
            // Without Retry-After: the same body is refused every time.
            Self::BodyTakesTooMuch(_) => kind(S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Self::Overloaded => later("overloaded", "Overloaded", 1),
            Self::NotDeclaredJson | Self::NoRawInput | Self::NotDeclaredJsonLines | Self::Compressed => {
                unsupported()
            }
            Self::NoSample => kind(S::NOT_FOUND, "no_sample", "No sample"),
            Self::NotJson(_) => kind(S::BAD_REQUEST, "invalid_json", "Invalid JSON"),
            Self::Invalid(_) => unprocessable("invalid_input", "Invalid input"),
            Self::IdempotencyConflict => unprocessable("idempotency_conflict", "Idempotency key conflict"),
            Self::RateLimited { retry_after, .. } => {
                too_many("rate_limited", "Too many requests", *retry_after)
            }
            Self::QueueFull(seconds) => later("queue_full", "Queue full", *seconds),
            Self::ModelQueueFull(seconds) => {
                too_many("model_queue_full", "Queue of the model full", *seconds)
            }
            Self::StorageQuota(seconds) => {
                too_many("storage_quota_exceeded", "Storage quota exceeded", *seconds)
            }
            Self::Call(error) => call_kind(error),
            Self::NoMetadata => later("metadata_unavailable", "Metadata unavailable", 5),
            Self::NotReady => unavailable(),
            Self::Store(error) => store_kind(error),
            Self::OutcomeUnknown(_) => later("outcome_unknown", "Outcome unknown", 1),
            Self::NoKeys(_) | Self::NoRandomness | Self::Panicked | Self::BodyNotReady => internal(),
        }
    }
}

fn kind(status: StatusCode, code: &'static str, title: &'static str) -> Kind {
    Kind { status, code, title, retry_after: None }
}

impl Kind {
    fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

fn not_found(code: &'static str, title: &'static str) -> Kind {
    kind(StatusCode::NOT_FOUND, code, title)
}

/// The service cannot do it now, but may be able to after some seconds.
fn later(code: &'static str, title: &'static str, seconds: u64) -> Kind {
    kind(StatusCode::SERVICE_UNAVAILABLE, code, title).retry_after(seconds)
}

/// The request is well-formed, but wrong.
fn unprocessable(code: &'static str, title: &'static str) -> Kind {
    kind(StatusCode::UNPROCESSABLE_ENTITY, code, title)
}

/// The client, or all of them together, asked for too much. There may be room after some seconds.
fn too_many(code: &'static str, title: &'static str, seconds: u64) -> Kind {
    kind(StatusCode::TOO_MANY_REQUESTS, code, title).retry_after(seconds)
}

fn unsupported() -> Kind {
    kind(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
}

fn unavailable() -> Kind {
    later("service_unavailable", "Service unavailable", 1)
}

fn internal() -> Kind {
    kind(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error")
}

fn call_kind(error: &CallError) -> Kind {
    let (code, status) = error.kind();
    kind(status, code, "No result")
}

fn store_kind(error: &StoreError) -> Kind {
    match error {
        StoreError::OutOfMemory(_) => later("redis_out_of_memory", "Job store out of memory", 5),
        StoreError::CannotPersist(_) => later("redis_cannot_persist", "Job store cannot persist", 5),
        StoreError::WrongTopology(_) => later("redis_wrong_topology", "Wrong kind of job store", 5),
        StoreError::NotReplicated { .. } => later("not_replicated", "Job not replicated", 1),
        StoreError::GroupMissing(_)
        | StoreError::Refused(_)
        | StoreError::Protocol { .. }
        | StoreError::Unreadable { .. }
        | StoreError::NoRandomness(_) => internal(),
        StoreError::Disconnected
        | StoreError::Ambiguous(_)
        | StoreError::NotReady(_)
        | StoreError::Forbidden(_) => unavailable(),
    }
}
