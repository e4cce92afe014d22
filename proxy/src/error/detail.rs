//! The text of each error for the client. It never contains an address, a key or a cause: causes go to the log.

use std::borrow::Cow;

use tepal_shared::{job::JobStatus, queue::error::StoreError};

use super::{api_error::ApiError, mistake::summary};

/// The specification's text for a Redis that is down.
const UNAVAILABLE: &str = "Service temporarily unavailable";
const INTERNAL: &str = "An internal error occurred; its cause is in the service's log under the request id";

impl ApiError {
    pub(super) fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::NoSuchPath => "No such path".into(),
            Self::MethodNotAllowed => "The path does not support this method; Allow lists the supported ones".into(),
            Self::MalformedRequest => "The request is not well-formed HTTP".into(),
            Self::BareLineFeed => "Each line of the request's head must end with CRLF, not with LF alone".into(),
            Self::UnknownTransferCoding => "The only Transfer-Encoding of a body is chunked".into(),
            Self::RepeatedHeader(name) => format!("The header {name} must be given only once").into(),
            Self::BadHost => "The request must have exactly one Host header, with a host and an optional port".into(),
            Self::UriTooLong => "The request's target is too long".into(),
            Self::HeadersTooLarge => "The request has too many headers, or too long ones".into(),
            Self::Unauthorized => "The request needs a valid API key, in the header X-API-Key or as a bearer token".into(),
            Self::InsufficientScope(scope) => format!("This needs a key with the scope {scope}").into(),
            Self::NotAcceptable => "The answer is application/json, which Accept excludes".into(),
            Self::ModelNotFound { known } => format!("There is no such model; known are {known}").into(),
            Self::VersionNotFound { known } => {
                format!("The model has no such version; those that can be pinned are {known}").into()
            }
            Self::ModelForbidden => "The key is limited to other models".into(),
            Self::ModelUnknownYet => "No worker has described the model yet; try again later".into(),
            Self::ModelInUse => "A live worker serves the model, or this proxy's MODELS_DIR has it".into(),
            Self::JobNotFound => "Job not found".into(),
            Self::AlreadyFinished(status) => job_is(*status, " and cannot be cancelled any more"),
            Self::NotRepeatable(status) => job_is(*status, "; only failed and cancelled jobs can be requeued"),
            Self::InputExpired(status) => job_is(*status, ", but its input has expired; send it as a new job"),
            Self::BodyTimeout => "The body did not arrive in time".into(),
            Self::BodyIncomplete => "The body did not arrive completely".into(),
            Self::BodyTooLarge(most) => format!("The body must hold at most {most} bytes").into(),
            Self::BodyTakesTooMuch(most) => format!(
                "Reading this body takes more than the {most} bytes of memory for all bodies; send fewer values, or tensors in binary form"
            )
            .into(),
            Self::Overloaded => "The memory for large bodies and answers is in use; try again later".into(),
            Self::NotDeclaredJson | Self::NoRawInput | Self::NotDeclaredJsonLines | Self::Compressed => {
                self.expected_media_type().into()
            }
            Self::NoSample => "The model has no sample; its operator can add one to its model.toml".into(),
            Self::NotJson(why) => format!("The body is not valid JSON: {why}").into(),
            Self::Invalid(mistakes) => summary(mistakes).into(),
            Self::IdempotencyConflict => "The Idempotency-Key was used before with another request".into(),
            Self::RateLimited { whose, cost, retry_after } => too_many(whose, *cost, *retry_after).into(),
            Self::QueueFull(_) => "The queue is full; try again later".into(),
            Self::ModelQueueFull(_) => {
                "The queue of the model is full (max_queue_depth); try again later".into()
            }
            Self::StorageQuota(_) => {
                "Your large inputs and results fill your storage quota; wait until a job ends or a result expires".into()
            }
            Self::Call(error) => error.detail(),
            Self::NoMetadata => "No live worker has reported the model's metadata".into(),
            Self::NotReady | Self::OutcomeUnknown(_) => UNAVAILABLE.into(),
            Self::Store(error) => store_detail(error).into(),
            Self::NoKeys(_) | Self::NoRandomness | Self::Panicked | Self::BodyNotReady => INTERNAL.into(),
        }
    }

    fn expected_media_type(&self) -> &'static str {
        match self {
            Self::NoRawInput => {
                "The model takes no raw bodies; the body must be sent as Content-Type: application/json"
            }
            Self::NotDeclaredJsonLines => {
                "The body must be sent as Content-Type: application/json or application/x-ndjson, not compressed"
            }
            Self::Compressed => "The body must not be compressed",
            _ => "The body must be sent as Content-Type: application/json, not compressed",
        }
    }
}

fn job_is(status: JobStatus, consequence: &str) -> Cow<'static, str> {
    format!("The job is {status}{consequence}").into()
}

fn store_detail(error: &StoreError) -> &'static str {
    match error {
        StoreError::OutOfMemory(_) => "The job store is out of memory and accepts no new jobs",
        StoreError::CannotPersist(_) => "The job store cannot write to its disk and accepts no changes",
        StoreError::WrongTopology(_) => {
            "The address of the job store leads to a server that cannot hold jobs; the operator must change it"
        }
        StoreError::NotReplicated { .. } => {
            "The job was not replicated in time; with an Idempotency-Key it can be sent again without a duplicate"
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

fn too_many(whose: &str, cost: u32, retry_after: u64) -> String {
    match cost {
        1 => format!("Too many requests {whose}; the next is accepted after {retry_after} s"),
        cost => {
            format!("Too many requests {whose}; one that counts as {cost} is accepted after {retry_after} s")
        }
    }
}
