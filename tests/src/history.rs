//! The history checker: proves from the records of a run that Tepal kept its promises.
//!
//! Input: the [`Record`]s of clients (an append-only JSONL file, see [`Recorder`]) and of workers (their JSON
//! logs, see [`worker_events`]), and [`Final`] dumps of Redis. [`History::check`] gives a [`Verdict`]. The
//! invariants I1 to I10 are those of [`Invariant`]. Everything but [`Recorder`] and [`Final::read`] is pure.

mod case;
mod check;
mod dump;
mod jobs;
mod queue;
mod verdict;
mod worker_log;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use case::{History, Rules};
pub use dump::{Final, JobDump, StreamDump};
pub use verdict::{Counts, Invariant, Verdict, Violation};
pub use worker_log::{ACTIONS, Step, worker_events};

use crate::http::{Answer, NoAnswer};

/// One thing that happened, as its actor knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A client got a 2xx answer: the job is accepted.
    Submitted {
        /// The job's id.
        id: String,
        /// Model and rows that were sent.
        input: Value,
        /// The `Idempotency-Key` header, if one was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// A client submitted a job and does not know the outcome: a lost connection, a timeout, a 500.
    SubmitUnknown {
        /// Model and rows that were sent.
        input: Value,
        /// The `Idempotency-Key` header, if one was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// A client was refused: nothing may remain of the request.
    Refused {
        /// The answer's status; 0 when no connection could be made.
        status: u16,
        /// Model and rows that were sent.
        input: Value,
        /// The `Idempotency-Key` header, if one was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// A client requeued a job and does not know the outcome.
    RequeueUnknown {
        /// The job that was to be run again.
        of: String,
    },
    /// A client got 200 for `DELETE /job/{id}`.
    CancelAcked {
        /// The job's id.
        id: String,
    },
    /// A client read `GET /job/{id}`.
    Observed {
        /// The job's id.
        id: String,
        /// The answer's HTTP status.
        status: u16,
        /// The answer's body.
        body: Value,
    },
    /// A worker began an attempt that it had been granted.
    Started {
        /// The job's id.
        id: String,
        /// The attempt number, which is the fencing token.
        attempt: u64,
    },
    /// A worker ended an attempt, and Redis took the outcome (but [`Outcome::Fenced`]).
    Settled {
        /// The job's id.
        id: String,
        /// The attempt number, which is the fencing token.
        attempt: u64,
        /// Its outcome.
        outcome: Outcome,
    },
    /// The test injected a fault, and it hit: a killed process, a proxy's
    /// [`FaultHits`](crate::fault_proxy::FaultHits).
    Fault {
        /// The kind of fault, e.g. `kill9 worker`.
        kind: String,
        /// How often it really hit.
        hits: u64,
    },
}

/// How a worker's attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The result was stored.
    Completed,
    /// The job failed for good.
    Failed,
    /// The job waits for its next attempt.
    Retried,
    /// The job was released without using an attempt.
    Released,
    /// The worker no longer held the job, and its outcome was refused.
    Fenced,
}

/// An event and when it happened, in microseconds since the epoch on the clock all processes of the test
/// share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When the call began.
    pub began_us: u64,
    /// When its answer arrived. Equal to `began_us` for a record that is no call.
    pub ended_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Event {
    /// The event for an answer of `POST /predict`. 2xx is an accepted job; 4xx and 503 promise that nothing
    /// was stored, unless the answer's `code` says otherwise; any other answer, or none, leaves the outcome unknown.
    ///
    /// # Panics
    /// When a 2xx answer has no `job_id`.
    #[must_use]
    pub fn of_submit(
        answer: &Result<Answer, NoAnswer>,
        input: &Value,
        idempotency_key: Option<&str>,
    ) -> Self {
        let (input, idempotency_key) = (input.clone(), idempotency_key.map(str::to_owned));
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                let id = answer.json()["job_id"].as_str().expect("a job_id in a 2xx answer").to_owned();
                Self::Submitted { id, input, idempotency_key }
            }
            Ok(answer) if matches!(answer.status, 400..500 | 503) && !may_be_stored(answer) => {
                Self::Refused { status: answer.status, input, idempotency_key }
            }
            Err(NoAnswer::NotSent(_)) => Self::Refused { status: 0, input, idempotency_key },
            Ok(_) | Err(NoAnswer::Unknown(_)) => Self::SubmitUnknown { input, idempotency_key },
        }
    }
}

/// Whether an error answer is one of those after which the job may exist all the same.
fn may_be_stored(answer: &Answer) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    matches!(body["code"].as_str(), Some("outcome_unknown" | "not_replicated"))
}

impl Record {
    /// An event that happened at one moment.
    #[must_use]
    pub fn at(at_us: u64, event: Event) -> Self {
        Self { began_us: at_us, ended_us: at_us, event }
    }
}

/// Appends records to a JSONL file; clones write to the same file.
#[derive(Clone, Debug)]
pub struct Recorder {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Recorder {
    /// Opens a file to append to; creates it if it is missing.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new(file)) })
    }

    /// Appends an event whose call began at `began_us` (see [`now_us`]) and ends now.
    ///
    /// # Panics
    /// When the file cannot be written: a history with a gap proves nothing.
    pub fn record(&self, began_us: u64, event: Event) {
        self.append(&Record { began_us, ended_us: now_us(), event });
    }

    /// Appends an event that happens now.
    pub fn note(&self, event: Event) {
        self.append(&Record::at(now_us(), event));
    }

    /// All records of the file.
    ///
    /// # Panics
    /// When the file cannot be read back.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        load(&self.path).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    fn append(&self, record: &Record) {
        let mut line = serde_json::to_vec(record).expect("a record is JSON");
        line.push(b'\n');
        self.file.lock().expect("no panic while held").write_all(&line).expect("the history can be written");
    }
}

/// Reads a JSONL file of records.
///
/// # Errors
/// When the file cannot be read, or a line is no record (the text names the line).
pub fn load(path: &Path) -> io::Result<Vec<Record>> {
    let lines = BufReader::new(File::open(path)?).lines().enumerate();
    let parsed = lines.map(|(index, line)| {
        serde_json::from_str(&line?).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {error}", index + 1))
        })
    });
    parsed.collect()
}

/// Microseconds since the epoch.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
