//! Compares the table of errors in docs/api.md with the code.

use std::{collections::BTreeSet, io};

use axum::response::Response;
use tepal_shared::{
    job::{JobStatus, UnknownWord},
    queue::{
        RedisError,
        error::{StoreError, Unreadable, WrongTopology},
    },
};

use super::*;

/// One error for each way to be answered. A new kind of error makes `is_listed` fail to compile: add it here and there.
fn all() -> Vec<ApiError> {
    let mut errors = store_errors();
    errors.extend([
        ApiError::NoSuchPath,
        ApiError::MethodNotAllowed,
        ApiError::MalformedRequest,
        ApiError::BareLineFeed,
        ApiError::UnknownTransferCoding,
        ApiError::RepeatedHeader("Content-Type"),
        ApiError::BadHost,
        ApiError::UriTooLong,
        ApiError::HeadersTooLarge,
        ApiError::Unauthorized,
        ApiError::InsufficientScope("submit"),
        ApiError::NotAcceptable,
        ApiError::ModelNotFound { known: "iris".to_owned() },
        ApiError::VersionNotFound { known: "1".to_owned() },
        ApiError::ModelForbidden,
        ApiError::ModelUnknownYet,
        ApiError::ModelInUse,
        ApiError::JobNotFound,
        ApiError::AlreadyFinished(JobStatus::Completed),
        ApiError::NotRepeatable(JobStatus::Pending),
        ApiError::InputExpired(JobStatus::Failed),
        ApiError::BodyTimeout,
        ApiError::BodyIncomplete,
        ApiError::BodyTooLarge(1),
        ApiError::BodyTakesTooMuch(1),
        ApiError::Overloaded,
        ApiError::NotDeclaredJson,
        ApiError::NoRawInput,
        ApiError::NoSample,
        ApiError::NotDeclaredJsonLines,
        ApiError::Compressed,
        ApiError::NotJson("why".to_owned()),
        ApiError::Invalid(vec![Mistake::at("/data", "missing", "is missing")]),
        ApiError::IdempotencyConflict,
        ApiError::RateLimited { whose: "with this key", cost: 2, retry_after: 5 },
        ApiError::QueueFull(5),
        ApiError::ModelQueueFull(5),
        ApiError::StorageQuota(5),
        ApiError::NoMetadata,
        ApiError::NotReady,
        ApiError::NoKeys("canary".into()),
        ApiError::NoRandomness,
        ApiError::Panicked,
        ApiError::BodyNotReady,
    ]);
    errors
}

/// Those of the job store.
fn store_errors() -> Vec<ApiError> {
    let redis = || RedisError::from(io::Error::other("canary"));
    let word = UnknownWord { word: "canary".to_owned(), expected: "" };
    vec![
        ApiError::OutcomeUnknown(StoreError::Ambiguous(redis())),
        ApiError::Store(StoreError::Disconnected),
        ApiError::Store(StoreError::Ambiguous(redis())),
        ApiError::Store(StoreError::NotReady(redis())),
        ApiError::Store(StoreError::OutOfMemory(redis())),
        ApiError::Store(StoreError::CannotPersist(redis())),
        ApiError::Store(StoreError::Forbidden(redis())),
        ApiError::Store(StoreError::GroupMissing(redis())),
        ApiError::Store(StoreError::WrongTopology(WrongTopology::Sentinel)),
        ApiError::Store(StoreError::NotReplicated { reached: 0, required: 1 }),
        ApiError::Store(StoreError::Refused(redis())),
        ApiError::Store(StoreError::Protocol { script: "submit", reason: "canary".to_owned() }),
        ApiError::Store(StoreError::Unreadable { script: "read", source: Unreadable::Word(word) }),
        ApiError::Store(StoreError::NoRandomness(getrandom::Error::UNSUPPORTED)),
    ]
}

/// Always true; see [`all`].
fn is_listed(error: &ApiError) -> bool {
    match error {
        ApiError::NoSuchPath
        | ApiError::MethodNotAllowed
        | ApiError::MalformedRequest
        | ApiError::BareLineFeed
        | ApiError::UnknownTransferCoding
        | ApiError::RepeatedHeader(_)
        | ApiError::BadHost
        | ApiError::UriTooLong
        | ApiError::HeadersTooLarge
        | ApiError::Unauthorized
        | ApiError::InsufficientScope(_)
        | ApiError::NotAcceptable
        | ApiError::ModelNotFound { .. }
        | ApiError::VersionNotFound { .. }
        | ApiError::ModelForbidden
        | ApiError::ModelUnknownYet
        | ApiError::ModelInUse
        | ApiError::JobNotFound
        | ApiError::AlreadyFinished(_)
        | ApiError::NotRepeatable(_)
        | ApiError::InputExpired(_)
        | ApiError::BodyTimeout
        | ApiError::BodyIncomplete
        | ApiError::BodyTooLarge(_)
        | ApiError::BodyTakesTooMuch(_)
        | ApiError::Overloaded
        | ApiError::NotDeclaredJson
        | ApiError::NoRawInput
        | ApiError::NoSample
        | ApiError::NotDeclaredJsonLines
        | ApiError::Compressed
        | ApiError::NotJson(_)
        | ApiError::Invalid(_)
        | ApiError::IdempotencyConflict
        | ApiError::RateLimited { .. }
        | ApiError::QueueFull(_)
        | ApiError::ModelQueueFull(_)
        | ApiError::StorageQuota(_)
        | ApiError::NoMetadata
        | ApiError::NotReady
        | ApiError::OutcomeUnknown(_)
        | ApiError::NoKeys(_)
        | ApiError::NoRandomness
        | ApiError::Panicked
        | ApiError::BodyNotReady => true,
        ApiError::Store(error) => is_store_listed(error),
        // Only the protocols have these.
        ApiError::Call(_) => false,
    }
}

fn is_store_listed(error: &StoreError) -> bool {
    match error {
        StoreError::Disconnected
        | StoreError::Ambiguous(_)
        | StoreError::NotReady(_)
        | StoreError::OutOfMemory(_)
        | StoreError::CannotPersist(_)
        | StoreError::Forbidden(_)
        | StoreError::GroupMissing(_)
        | StoreError::NotReplicated { .. }
        | StoreError::WrongTopology(_)
        | StoreError::Refused(_)
        | StoreError::Protocol { .. }
        | StoreError::Unreadable { .. }
        | StoreError::NoRandomness(_) => true,
    }
}

#[test]
fn the_documentation_lists_every_error_and_no_other() {
    let page = include_str!("../../../docs/api.md");
    let rows = page.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
    let documented: BTreeSet<(String, String)> = rows
        .map(|row| {
            let mut cells = row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let answered: BTreeSet<(String, String)> = all()
        .iter()
        .filter(|error| is_listed(error))
        .map(|error| (error.kind().status.as_str().to_owned(), error.code().to_owned()))
        .collect();
    assert_eq!(answered, documented);
}

#[test]
fn an_answer_contains_no_cause() {
    for error in all() {
        let mut response = Response::default();
        error.render(&mut response, ErrorForm::Problem, "/predict", "r-1");
        let text = format!("{:?} {} {}", response.headers(), error.detail(), error.kind().title);
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn the_protocols_have_a_status_for_every_error_and_no_other() {
    let page = include_str!("../../../docs/protocols.md");
    let (_, table) = page.split_once("\n## Errors").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<(String, String, String)> = rows
        .flat_map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let (status, code) = (cells[2].to_owned(), cells[3].trim_matches('`').to_owned());
            let words = cells[1].split(", ").map(|word| word.trim_matches('`').to_owned());
            words.map(|word| (word, status.clone(), code.clone())).collect::<Vec<_>>()
        })
        .collect();
    let errors = all().into_iter().chain(CallError::all().into_iter().map(ApiError::from));
    let answered: BTreeSet<(String, String, String)> = errors
        .map(|error| {
            let mut response = Response::default();
            error.render(&mut response, ErrorForm::Grpc, "/", "r-1");
            let status = error.status_in(ErrorForm::Member).as_str().to_owned();
            (error.code().to_owned(), status, grpc::name_of(&response))
        })
        .collect();
    assert_eq!(answered, documented);
}
