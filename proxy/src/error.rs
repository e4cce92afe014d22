//! Every error answer: RFC 9457 problem details. Only this file gives an error its status code. Answers never
//! hold an address, a key or a cause; causes go to the log.

mod mistake;
mod problem;
pub(crate) mod short;

use std::{borrow::Cow, sync::Arc};

#[cfg(test)]
pub(crate) use self::mistake::Place;
pub(crate) use self::{
    mistake::{LONGEST_POINTER, Mistake},
    problem::MOST_BYTES,
};

use crate::edge::{
    access::{Refusal, Scope},
    rate_limit::{Excess, Policy},
};
use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use tepal_shared::{job::JobStatus, queue::error::StoreError};

/// A request with very many mistakes is answered with the first ones.
pub(crate) const MOST_MISTAKES: usize = tepal_shared::model::MOST_ERRORS;

/// Why a request was not carried out.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// No route has this path.
    NoSuchPath,
    /// The route exists, but not for this method; axum sets `Allow`.
    MethodNotAllowed,
    /// The request is no HTTP/1.1.
    MalformedRequest,
    /// A line of the request's head ends with LF alone.
    BareLineFeed,
    /// The body has a transfer coding other than chunked.
    UnknownTransferCoding,
    /// This header may be given only once.
    RepeatedHeader(&'static str),
    /// The request has no `Host` header, several, or one that is no host.
    BadHost,
    /// The request's target is too long.
    UriTooLong,
    /// The request has too many headers, or too long ones.
    HeadersTooLarge,
    /// Nobody who is let in sent the request. What was wrong about it is not told.
    Unauthorized,
    /// The caller's key is right, but not for this.
    InsufficientScope(Scope),
    /// The client takes no form of answer that the route has.
    NotAcceptable,
    /// No such job (any more), or the id is none.
    JobNotFound,
    /// The job ended in another way than by being cancelled.
    AlreadyFinished(JobStatus),
    /// The job did not fail and was not cancelled.
    NotRepeatable(JobStatus),
    /// The job failed or was cancelled, but its input is not kept any more.
    InputExpired(JobStatus),
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body ended early or was malformed as HTTP.
    BodyIncomplete,
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// Large bodies and answers hold all the memory that they may.
    Overloaded,
    /// The body is not declared as plain JSON.
    NotDeclaredJson,
    /// The body is declared neither as JSON nor as lines of JSON.
    NotDeclaredJsonLines,
    /// The body is not JSON; the text says where and why.
    NotJson(String),
    /// Parts of the request are wrong; at least one.
    Invalid(Vec<Mistake>),
    /// The idempotency key was used for another request.
    IdempotencyConflict,
    /// The client has made too many requests.
    RateLimited(Excess),
    /// The queue is at its limit; room is expected after this many seconds.
    QueueFull(u64),
    /// The caller keeps as much in Redis as it may; there may be room after this many seconds.
    StorageQuota(u64),
    /// No live worker has told the model's metadata.
    NoMetadata,
    /// Not ready for traffic: the probe logs why.
    NotReady,
    /// The job store failed.
    Store(StoreError),
    /// The connection to the job store broke in the middle of a change: it may or may not have been made.
    OutcomeUnknown(StoreError),
    /// The operating system gives no random bytes.
    NoRandomness,
    /// The handler panicked, wherever it was.
    Panicked,
}

/// What is the same for all errors of a kind.
struct Kind {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    retry_after: Option<u64>,
}

impl ApiError {
    /// A failure of a call that changes something: whether it did may be unknown, and then the client must be told.
    pub(crate) fn of_change(error: StoreError) -> Self {
        match error {
            StoreError::Ambiguous(_) => Self::OutcomeUnknown(error),
            _ => Self::Store(error),
        }
    }

    /// One word for programs; also the reason in metrics.
    pub(crate) fn code(&self) -> &'static str {
        self.kind().code
    }

    /// The answer's status.
    pub(crate) fn status(&self) -> u16 {
        self.kind().status.as_u16()
    }

    /// What to log of a request that failed by no fault of its client.
    pub(crate) fn failure(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Store(error) | Self::OutcomeUnknown(error) => {
                Some(tepal_shared::process::telemetry::chain(error).into())
            }
            Self::QueueFull(_) => Some("the queue is full".into()),
            Self::Overloaded => Some("large bodies and answers hold BODY_MEMORY_BYTES".into()),
            Self::NoMetadata => Some("no live worker has told the model's metadata".into()),
            Self::NoRandomness => Some("the operating system gives no random bytes".into()),
            Self::Panicked => {
                Some("the handler panicked; the line before, with action panicked, says where".into())
            }
            _ => None,
        }
    }

    fn kind(&self) -> Kind {
        use StatusCode as S;
        match self {
            Self::NoSuchPath => kind(S::NOT_FOUND, "not_found", "Not found"),
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
            Self::JobNotFound => kind(S::NOT_FOUND, "job_not_found", "Job not found"),
            Self::AlreadyFinished(_) => kind(S::CONFLICT, "job_already_finished", "Job already finished"),
            Self::NotRepeatable(_) | Self::InputExpired(_) => {
                kind(S::CONFLICT, "job_not_repeatable", "Job cannot be repeated")
            }
            Self::BodyTimeout => kind(S::REQUEST_TIMEOUT, "request_timeout", "Request timeout"),
            Self::BodyIncomplete => kind(S::BAD_REQUEST, "incomplete_body", "Incomplete body"),
            Self::BodyTooLarge(_) => kind(S::PAYLOAD_TOO_LARGE, "payload_too_large", "Payload too large"),
            Self::Overloaded => kind(S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded").retry_after(1),
            Self::NotDeclaredJson | Self::NotDeclaredJsonLines => {
                kind(S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type")
            }
            Self::NotJson(_) => kind(S::BAD_REQUEST, "invalid_json", "Invalid JSON"),
            Self::Invalid(_) => kind(S::UNPROCESSABLE_ENTITY, "invalid_input", "Invalid input"),
            Self::IdempotencyConflict => {
                kind(S::UNPROCESSABLE_ENTITY, "idempotency_conflict", "Idempotency key conflict")
            }
            Self::RateLimited(excess) => kind(S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests")
                .retry_after(excess.retry_after),
            Self::QueueFull(seconds) => {
                kind(S::SERVICE_UNAVAILABLE, "queue_full", "Queue full").retry_after(*seconds)
            }
            Self::StorageQuota(seconds) => {
                kind(S::TOO_MANY_REQUESTS, "storage_quota_exceeded", "Storage quota exceeded")
                    .retry_after(*seconds)
            }
            Self::NoMetadata => {
                kind(S::SERVICE_UNAVAILABLE, "metadata_unavailable", "Metadata unavailable").retry_after(5)
            }
            Self::NotReady => unavailable(),
            Self::Store(error) => store_kind(error),
            Self::OutcomeUnknown(_) => {
                kind(S::SERVICE_UNAVAILABLE, "outcome_unknown", "Outcome unknown").retry_after(1)
            }
            Self::NoRandomness | Self::Panicked => internal(),
        }
    }

    fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::NoSuchPath => "No such path".into(),
            Self::MethodNotAllowed => "The path does not take this method; Allow lists those it takes".into(),
            Self::MalformedRequest => "The request is not well-formed HTTP".into(),
            Self::BareLineFeed => "Each line of the request's head must end with CRLF, not with LF alone".into(),
            Self::UnknownTransferCoding => "The only Transfer-Encoding of a body is chunked".into(),
            Self::RepeatedHeader(name) => format!("The header {name} must be given only once").into(),
            Self::BadHost => "The request must have exactly one Host header, with a host and perhaps a port".into(),
            Self::UriTooLong => "The request's target is too long".into(),
            Self::HeadersTooLarge => "The request has too many headers, or too long ones".into(),
            Self::Unauthorized => "The request needs a valid API key, as X-API-Key".into(),
            Self::InsufficientScope(scope) => format!("This needs a key with the scope {scope}").into(),
            Self::NotAcceptable => "The answer is application/json, which Accept rules out".into(),
            Self::JobNotFound => "Job not found".into(),
            Self::AlreadyFinished(status) => {
                format!("The job is {status} and cannot be cancelled any more").into()
            }
            Self::NotRepeatable(status) => {
                format!("The job is {status}; only failed and cancelled jobs can be repeated").into()
            }
            Self::InputExpired(status) => {
                format!("The job is {status}, but its input has expired; send it as a new job").into()
            }
            Self::BodyTimeout => "The body did not arrive in time".into(),
            Self::BodyIncomplete => "The body did not arrive completely".into(),
            Self::BodyTooLarge(most) => format!("The body must hold at most {most} bytes").into(),
            Self::Overloaded => "Large bodies and answers hold all memory that they may; try again later".into(),
            Self::NotDeclaredJson => {
                "The body must be sent as Content-Type: application/json, not compressed".into()
            }
            Self::NotDeclaredJsonLines => {
                "The body must be sent as Content-Type: application/json or application/x-ndjson, not compressed".into()
            }
            Self::NotJson(why) => format!("The body is not valid JSON: {why}").into(),
            Self::Invalid(mistakes) => mistake::summary(mistakes).into(),
            Self::IdempotencyConflict => "The Idempotency-Key was used before with another request".into(),
            Self::RateLimited(excess) => too_many(*excess).into(),
            Self::QueueFull(_) => "The queue is full; try again later".into(),
            Self::StorageQuota(_) => {
                "Your large inputs and results fill the storage that you may use; wait until a job ends or a result expires".into()
            }
            Self::NoMetadata => "No live worker has reported the model's metadata".into(),
            Self::NotReady | Self::OutcomeUnknown(_) => UNAVAILABLE.into(),
            Self::Store(error) => store_detail(error).into(),
            Self::NoRandomness | Self::Panicked => INTERNAL.into(),
        }
    }

    /// The status of an answer that says itself what is wrong: /health.
    pub(crate) fn mark_unavailable(response: &mut Response) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }

    fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Invalid(mistakes) => mistakes,
            _ => &[],
        }
    }

    /// Makes `response` this error's answer; headers that it has already stay.
    pub(crate) fn render(&self, response: &mut Response, instance: &str, request_id: &str) {
        *response.status_mut() = self.kind().status;
        *response.body_mut() = self.problem(instance, request_id).into();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self, Self::BadHost) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if matches!(self, Self::Unauthorized) {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
    }

    /// After how many seconds the client may try again, where trying again can help.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.kind().retry_after
    }

    /// The problem, JSON, in at most [`MOST_BYTES`].
    pub(crate) fn problem(&self, instance: &str, request_id: &str) -> Vec<u8> {
        self.problem_within(MOST_BYTES, instance, request_id)
    }

    /// The problem, with as many of its mistakes as fit into `most` bytes, but with one at least.
    pub(crate) fn problem_within(&self, most: usize, instance: &str, request_id: &str) -> Vec<u8> {
        let Kind { status, code, title, .. } = self.kind();
        let detail = self.detail();
        let head =
            problem::Head { status: status.as_u16(), code, title, detail: &detail, instance, request_id };
        head.problem(self.mistakes(), most)
    }

    /// What a program needs to know of the problem, JSON in at most 100 bytes.
    pub(crate) fn brief_problem(&self) -> Vec<u8> {
        let Kind { status, code, .. } = self.kind();
        problem::brief(status.as_u16(), code)
    }
}

/// How to authenticate: no registered scheme carries a key in a header of its own.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"ApiKey realm="tepal", header="X-API-Key""#);
/// The specification's text for a Redis that is down.
const UNAVAILABLE: &str = "Service temporarily unavailable";
const INTERNAL: &str = "An internal error occurred; its cause is in the service's log under the request id";

fn kind(status: StatusCode, code: &'static str, title: &'static str) -> Kind {
    Kind { status, code, title, retry_after: None }
}

impl Kind {
    fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

fn unavailable() -> Kind {
    kind(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "Service unavailable").retry_after(1)
}

fn internal() -> Kind {
    kind(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal error")
}

fn store_kind(error: &StoreError) -> Kind {
    use StatusCode as S;
    match error {
        StoreError::OutOfMemory(_) => {
            kind(S::SERVICE_UNAVAILABLE, "redis_out_of_memory", "Job store out of memory").retry_after(5)
        }
        StoreError::CannotPersist(_) => {
            kind(S::SERVICE_UNAVAILABLE, "redis_cannot_persist", "Job store cannot persist").retry_after(5)
        }
        StoreError::WrongTopology(_) => {
            kind(S::SERVICE_UNAVAILABLE, "redis_wrong_topology", "Wrong kind of job store").retry_after(5)
        }
        StoreError::NotReplicated { .. } => {
            kind(S::SERVICE_UNAVAILABLE, "not_replicated", "Job not replicated").retry_after(1)
        }
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

fn store_detail(error: &StoreError) -> &'static str {
    match error {
        StoreError::OutOfMemory(_) => "The job store is out of memory and takes no new jobs",
        StoreError::CannotPersist(_) => "The job store cannot write to its disk and takes no changes",
        StoreError::WrongTopology(_) => {
            "The job store's address leads to a server that cannot hold the jobs; its operator must change it"
        }
        StoreError::NotReplicated { .. } => {
            "The job was not stored safely in time; with an Idempotency-Key it can be sent again without being doubled"
        }
        StoreError::GroupMissing(_)
        | StoreError::Refused(_)
        | StoreError::Protocol { .. }
        | StoreError::Unreadable { .. }
        | StoreError::NoRandomness(_) => INTERNAL,
        StoreError::Disconnected
        | StoreError::Ambiguous(_)
        | StoreError::NotReady(_)
        | StoreError::Forbidden(_) => UNAVAILABLE,
    }
}

fn too_many(Excess { policy, cost, retry_after }: Excess) -> String {
    let who = match policy {
        Policy::Address => "from this address",
        Policy::Key => "with this key",
    };
    match cost {
        1 => format!("Too many requests {who}; the next is taken after {retry_after} s"),
        cost => format!("Too many requests {who}; one that counts as {cost} is taken after {retry_after} s"),
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InsufficientScope(scope) => Self::InsufficientScope(scope),
            _ => Self::Unauthorized,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for ApiError {
    /// A response that only carries the error: `observe` renders it, since it knows the path and the request id.
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests;
