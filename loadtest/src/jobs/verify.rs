//! Reads a sample of ended jobs again. No byte of an ended job may change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use serde::Serialize;
use tokio::task::JoinSet;

use super::sample::Ended;
use crate::http::api::Api;
use crate::http::client::Answer;
use crate::http::failure::Failure;
use crate::measure::summary::SecondReads;

/// After this many failed reads a job counts as unverified.
const TRIES: u32 = 3;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// Reads in flight at once.
const READERS: usize = 16;
/// An example shows this much of a body.
const SHOWN_BYTES: usize = 400;
/// A report has at most this many examples.
const EXAMPLES: usize = 5;

/// A job whose record had changed at the second read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) job_id: String,
    /// The start of the first body.
    pub(crate) before: String,
    /// The start of the second body, or the failure instead of it.
    pub(crate) after: String,
}

/// The outcome of the second reads.
#[derive(Debug, Default)]
pub(crate) struct Verification {
    pub(crate) counts: SecondReads,
    pub(crate) examples: Vec<Change>,
}

/// Reads every job of `sample` again. A job that was not read within `limit` is unverified.
pub(crate) async fn read_again(api: &Api, sample: Vec<Ended>, limit: Duration) -> Verification {
    let total = sample.len() as u64;
    let result = Arc::new(Mutex::new(Verification::default()));
    let left = Arc::new(Mutex::new(sample));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(run_reader(api.clone(), Arc::clone(&left), Arc::clone(&result)));
    }
    let _ = tokio::time::timeout(limit, readers.join_all()).await;
    let mut result = std::mem::take(&mut *result.lock().unwrap_or_else(PoisonError::into_inner));
    result.counts.unverified = total - result.counts.verified - result.counts.expired;
    result
}

async fn run_reader(api: Api, left: Arc<Mutex<Vec<Ended>>>, result: Arc<Mutex<Verification>>) {
    while let Some(ended) = next(&left) {
        let answer = read(&api, &ended.id).await;
        result.lock().unwrap_or_else(PoisonError::into_inner).add(&ended, answer.map(|answer| answer.body));
    }
}

fn next(left: &Mutex<Vec<Ended>>) -> Option<Ended> {
    left.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

async fn read(api: &Api, id: &str) -> Result<Answer, Failure> {
    let mut answer = api.record(id, None).await;
    for _ in 1..TRIES {
        match &answer {
            Err(failure) if !failure.is_not_found() => tokio::time::sleep(PAUSE).await,
            _ => break,
        }
        answer = api.record(id, None).await;
    }
    answer
}

impl Verification {
    fn add(&mut self, ended: &Ended, answer: Result<Bytes, Failure>) {
        let after = match answer {
            Ok(body) if body == ended.body => return self.counts.verified += 1,
            Ok(body) => shown(&body),
            Err(failure) if failure.is_not_found() && ended.may_have_expired() => {
                return self.counts.expired += 1;
            }
            Err(failure) if failure.is_not_found() => failure.kind.to_string(),
            Err(_) => return,
        };
        self.counts.verified += 1;
        self.counts.changed += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(Change { job_id: ended.id.to_string(), before: shown(&ended.body), after });
        }
    }
}

fn shown(body: &Bytes) -> String {
    String::from_utf8_lossy(body.get(..SHOWN_BYTES).unwrap_or(body)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::FailureKind;

    #[test]
    fn any_other_byte_and_a_vanished_job_are_changes_but_a_failed_read_is_not() {
        let ended = Ended { id: "a".into(), body: Bytes::from_static(b"{\"n\":1}"), kept_until: None };
        let mut result = Verification::default();
        result.add(&ended, Ok(Bytes::from_static(b"{\"n\":1}")));
        result.add(&ended, Ok(Bytes::from_static(b"{\"n\": 1}")));
        result.add(&ended, Err(FailureKind::Status(404).into()));
        result.add(&ended, Err(FailureKind::Timeout.into()));
        assert_eq!((result.counts.verified, result.counts.changed), (3, 2));
        assert_eq!(result.examples[1].after, "status 404");
    }

    #[test]
    fn a_job_may_vanish_once_the_service_need_not_keep_it_and_may_never_differ() {
        let kept_until = Some(std::time::Instant::now());
        let ended = Ended { id: "a".into(), body: Bytes::from_static(b"1"), kept_until };
        let mut result = Verification::default();
        result.add(&ended, Err(FailureKind::Status(404).into()));
        result.add(&ended, Ok(Bytes::from_static(b"1")));
        result.add(&ended, Ok(Bytes::from_static(b"2")));
        assert_eq!(result.counts, SecondReads { verified: 2, changed: 1, unverified: 0, expired: 1 });
    }
}
