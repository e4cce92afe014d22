//! Why a request was not carried out.

use std::{borrow::Cow, error::Error};

use tepal_shared::{job::JobStatus, process::telemetry, queue::error::StoreError};

use super::{call_error::CallError, mistake::Mistake};

/// Why a request was not carried out.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// No route has this path.
    NoSuchPath,
    /// The route exists, but not for this method; axum sets `Allow`.
    MethodNotAllowed,
    /// The request is not HTTP/1.1.
    MalformedRequest,
    /// A line of the request's head ends with LF alone.
    BareLineFeed,
    /// The body has a transfer coding other than chunked.
    UnknownTransferCoding,
    /// This header may be given only once.
    RepeatedHeader(&'static str),
    /// The request has no `Host` header, several, or an invalid one.
    BadHost,
    /// The request's target is too long.
    UriTooLong,
    /// The request has too many headers, or too long ones.
    HeadersTooLarge,
    /// The request has no valid key. The client does not learn what was wrong.
    Unauthorized,
    /// The caller's key is valid, but lacks this scope.
    InsufficientScope(&'static str),
    /// The client accepts no media type of the route.
    NotAcceptable,
    /// There is no such model.
    ModelNotFound {
        /// The names of the models that there are.
        known: String,
    },
    /// The model has no such version that a job may pin.
    VersionNotFound {
        /// The versions that there are.
        known: String,
    },
    /// The caller's key is limited to other models.
    ModelForbidden,
    /// No worker has described the model yet.
    ModelUnknownYet,
    /// A model that is served cannot be removed.
    ModelInUse,
    /// There is no such job, or no longer, or the id is malformed.
    JobNotFound,
    /// The job ended, and was not cancelled.
    AlreadyFinished(JobStatus),
    /// The job has not failed and was not cancelled.
    NotRepeatable(JobStatus),
    /// The job failed or was cancelled, but its input has expired.
    InputExpired(JobStatus),
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body ended early or was malformed as HTTP.
    BodyIncomplete,
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// Reading the body takes more memory than these bytes, which all bodies share.
    BodyTakesTooMuch(usize),
    /// The memory for large bodies and answers is in use.
    Overloaded,
    /// The body is not declared as plain JSON.
    NotDeclaredJson,
    /// The body is raw, and the model takes no such bodies: it is neither opaque nor has a single input of BYTES, or it takes a JSON array.
    NoRawInput,
    /// The model is opaque and has no sample.
    NoSample,
    /// The body is declared neither as JSON nor as lines of JSON.
    NotDeclaredJsonLines,
    /// The body is compressed.
    Compressed,
    /// The body is not JSON; the text says where and why.
    NotJson(String),
    /// Parts of the request are wrong; at least one.
    Invalid(Vec<Mistake>),
    /// The idempotency key was used for another request.
    IdempotencyConflict,
    /// The client has made too many requests.
    RateLimited {
        /// Whose limit: "from this address" or "with this key".
        whose: &'static str,
        /// As how many requests this one counts.
        cost: u32,
        /// Seconds until it may be sent again.
        retry_after: u64,
    },
    /// The queue is at its limit; room is expected after this many seconds.
    QueueFull(u64),
    /// The model is at its limit; room is expected after this many seconds.
    ModelQueueFull(u64),
    /// The storage quota of the payer is used up; there may be room after this many seconds.
    StorageQuota(u64),
    /// A call of one of the protocols has no result.
    Call(CallError),
    /// No live worker has reported the model's metadata.
    NoMetadata,
    /// Not ready for traffic: the probe logs why.
    NotReady,
    /// The job store failed.
    Store(StoreError),
    /// The connection to the job store broke during a change, which may or may not have been made.
    OutcomeUnknown(StoreError),
    /// No keys can be derived from the queue's secret.
    NoKeys(Box<dyn Error + Send + Sync>),
    /// The operating system gives no random bytes.
    NoRandomness,
    /// The handler panicked.
    Panicked,
    /// The handler returned a body of known size that was not ready.
    BodyNotReady,
}

impl ApiError {
    /// The error of a failed change. If its outcome is unknown, the client must learn that.
    pub(crate) fn of_change(error: StoreError) -> Self {
        match error {
            StoreError::Ambiguous(_) => Self::OutcomeUnknown(error),
            _ => Self::Store(error),
        }
    }

    /// The error of a request whose job was accepted before. Some clients repeat a request by themselves after an error that says that
    /// nothing was stored.
    pub(crate) fn after_accepted(self) -> Self {
        match self {
            Self::Store(error) => Self::OutcomeUnknown(error),
            other => other,
        }
    }

    /// What to log about a failure that its client did not cause.
    pub(crate) fn failure(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Store(error) | Self::OutcomeUnknown(error) => Some(telemetry::chain(error).into()),
            Self::QueueFull(_) => Some("the queue is full".into()),
            Self::ModelQueueFull(_) => Some("the queue of the model is full".into()),
            Self::ModelUnknownYet => Some("no worker has described the model yet".into()),
            Self::Overloaded => Some("large bodies and answers hold BODY_MEMORY_BYTES".into()),
            Self::NoMetadata => Some("no live worker has reported the model's metadata".into()),
            Self::NoKeys(error) => Some(telemetry::chain(error.as_ref()).into()),
            Self::NoRandomness => Some("the operating system provides no random bytes".into()),
            Self::Panicked => {
                Some("the handler panicked; the line before, with action panicked, shows where".into())
            }
            Self::BodyNotReady => Some("the body of the answer was not ready".into()),
            _ => None,
        }
    }

    pub(super) fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Invalid(mistakes) => mistakes,
            _ => &[],
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}
