//! What several operations have in common: parameters, answers, and the errors of their steps.

use std::sync::LazyLock;

use axum::http::{HeaderName, header::IF_NONE_MATCH};
use serde_json::{Value, json};
use tepal_shared::queue::error::{StoreError, WrongTopology};

use crate::{
    error::{ApiError, Mistake},
    http::prefer::{LONGEST_WAIT, PREFER},
    jobs::{intake, quota},
};

pub(crate) const JOB_ID: &str = "019f1d2e-7b42-7d16-8a64-3c9f77b2e500";
pub(crate) const REQUEST_ID: &str = "019f1d2e-83ca-759e-a2ec-b417ff3a6d00";

/// A submission of the reference model.
pub(crate) static SUBMISSION: LazyLock<Value> = LazyLock::new(|| json!({"data": [[5.1, 3.5, 1.4, 0.2]]}));

/// A JSON body that the request must have.
pub(crate) fn body(schema: &Value, example: &Value) -> Value {
    json!({"required": true, "content": {"application/json": {"schema": schema, "example": example}}})
}

pub(crate) fn applied() -> Value {
    json!({"description": "The wait that was granted", "schema": {"type": "string"}})
}

pub(crate) fn job_id() -> Value {
    json!({
        "name": "id",
        "in": "path",
        "required": true,
        "description": "The job's id; a malformed id is not found",
        "schema": {"type": "string", "minLength": 1},
        "example": JOB_ID,
    })
}

pub(crate) fn header(name: &HeaderName, description: &str, schema: &Value, example: &str) -> Value {
    json!({"name": title(name), "in": "header", "description": description, "schema": schema, "example": example})
}

/// The name as people write it, such as `Last-Event-Id`.
fn title(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

pub(crate) fn if_none_match(description: &str, example: &str) -> Value {
    header(&IF_NONE_MATCH, description, &json!({"type": "string"}), example)
}

/// The header of an answer.
pub(crate) fn etag(description: &str) -> Value {
    json!({"description": description, "schema": {"type": "string"}})
}

pub(crate) fn prefer() -> Value {
    let description = format!(
        "`wait=N` (RFC 7240): how many seconds to wait for the end of the job, at most {}",
        LONGEST_WAIT.as_secs()
    );
    // Any text is accepted, and unknown preferences are ignored.
    header(&PREFER, &description, &json!({"type": "string"}), "wait=1")
}

pub(crate) fn invalid_body() -> ApiError {
    ApiError::Invalid(vec![Mistake::at("/data", "missing", "is missing")])
}

pub(crate) fn reading_a_body(largest: usize) -> Vec<ApiError> {
    vec![
        ApiError::NotAcceptable,
        ApiError::NotJson("it is empty".to_owned()),
        ApiError::BodyIncomplete,
        ApiError::RepeatedHeader("Content-Type"),
        ApiError::BodyTimeout,
        ApiError::BodyTooLarge(largest),
        ApiError::Overloaded,
        ApiError::NotDeclaredJson,
        invalid_body(),
    ]
}

pub(crate) fn submitting() -> Vec<ApiError> {
    let mut errors = vec![
        ApiError::IdempotencyConflict,
        ApiError::ModelNotFound { known: "iris".to_owned() },
        ApiError::VersionNotFound { known: "1".to_owned() },
        ApiError::ModelForbidden,
        ApiError::ModelUnknownYet,
        ApiError::QueueFull(intake::UNKNOWN_RETRY_AFTER),
        ApiError::ModelQueueFull(intake::UNKNOWN_RETRY_AFTER),
        ApiError::StorageQuota(quota::retry_after(None)),
        out_of_memory(),
        cannot_persist(),
        unknown_outcome(),
        ApiError::Store(StoreError::NotReplicated { reached: 0, required: 1 }),
    ];
    errors.extend(reading());
    errors
}

pub(crate) fn reading() -> Vec<ApiError> {
    let unexpected = StoreError::Protocol { script: "read", reason: String::new() };
    vec![ApiError::Store(unexpected), ApiError::Store(StoreError::Disconnected), wrong_topology()]
}

pub(crate) fn wrong_topology() -> ApiError {
    ApiError::Store(StoreError::WrongTopology(WrongTopology::Sentinel))
}

pub(crate) fn out_of_memory() -> ApiError {
    ApiError::Store(StoreError::OutOfMemory(nothing()))
}

pub(crate) fn cannot_persist() -> ApiError {
    ApiError::Store(StoreError::CannotPersist(nothing()))
}

pub(crate) fn unknown_outcome() -> ApiError {
    ApiError::OutcomeUnknown(StoreError::Ambiguous(nothing()))
}

/// Some cause. The examples do not show it.
pub(crate) fn nothing() -> tepal_shared::queue::RedisError {
    tepal_shared::queue::RedisError::from(std::io::Error::other("none"))
}

pub(crate) trait ConcatErrors {
    fn concat_errors(self) -> Vec<ApiError>;
}

impl<const N: usize> ConcatErrors for [Vec<ApiError>; N] {
    fn concat_errors(self) -> Vec<ApiError> {
        self.into_iter().flatten().collect()
    }
}
