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

/// Code and status of each row of a table of the page on protocols.
fn rows_of_protocols(after: &str) -> BTreeSet<(String, u16)> {
    let page = include_str!("../../../docs/protocols.md");
    let (_, table) = page.split_once(after).unwrap();
    let (_, table) = table.split_once("| --- |").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').skip(1).map(str::trim).collect::<Vec<_>>());
    let codes = cells.flat_map(|cells| {
        let status = cells[1].parse().unwrap();
        cells[0].split(", ").map(move |code| (code.trim_matches('`').to_owned(), status)).collect::<Vec<_>>()
    });
    codes.collect()
}

#[test]
fn the_page_on_protocols_lists_every_other_status_and_every_job_without_a_result() {
    let row = |error: &ApiError| (error.code().to_owned(), error.status_in(ErrorForm::Member).as_u16());
    let differs = |error: &&ApiError| error.status_in(ErrorForm::Member).as_u16() != error.status();
    let others: BTreeSet<_> = all().iter().filter(differs).map(row).collect();
    assert_eq!(rows_of_protocols("## Errors"), others);
    let calls: BTreeSet<_> = CallError::all().into_iter().map(|error| row(&error.into())).collect();
    assert_eq!(rows_of_protocols("An accepted job that has no result"), calls);
}

#[test]
fn an_answer_contains_no_cause() {
    for error in all() {
        let mut response = Response::default();
        error.render(&mut response, "/predict", "r-1");
        let text = format!("{:?} {} {}", response.headers(), error.detail(), error.kind().title);
        assert!(!text.contains("canary"), "{text}");
    }
}
