//! A job: its id, its status, and what a reader sees of it. No I/O.

mod claim;
mod delivery;
pub mod input;
mod model_name;
pub mod owner;
#[cfg(feature = "schema")]
mod schema;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    content,
    tensor::{Tensor, open_inference::json},
};

pub use self::{
    claim::{Claim, Stream},
    delivery::{Attempt, Delivery},
    model_name::{ModelName, NotAModelName},
};

/// Largest number of partitions of a queue: the partition is one byte of a job's id.
pub const MOST_PARTITIONS: u16 = 1 << 8;

/// The id of a job: a UUIDv7 (RFC 9562, section 5.7). Its last byte is the partition of the job. So the keys of a job follow from its
/// id, and the number of partitions can grow without moving data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new id in `partition`. It is greater than all earlier ids of this process.
    #[must_use]
    pub fn new(partition: u8) -> Self {
        let mut bytes = Uuid::now_v7().into_bytes();
        bytes[15] = partition;
        Self(Uuid::from_bytes(bytes))
    }

    /// The bytes of the id. The log of accepted jobs contains them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these bytes.
    ///
    /// # Errors
    /// When there are not 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, uuid::Error> {
        Uuid::from_slice(bytes).map(Self)
    }

    /// When the id was created, Unix ms, by the clock of its proxy.
    #[must_use]
    pub fn created_ms(self) -> u64 {
        let [a, b, c, d, e, f, ..] = *self.as_bytes();
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The partition whose keys hold the job.
    #[must_use]
    pub fn partition(self) -> u8 {
        self.0.as_bytes()[15]
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// Status of a job: `pending -> processing -> completed | failed | cancelled`. A retry or a release leads from processing back to
/// pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits in the queue, or for its next attempt.
    Pending,
    /// A worker holds its lease.
    Processing,
    /// Ended with a result.
    Completed,
    /// Ended without a result.
    Failed,
    /// Ended by its client.
    Cancelled,
}

impl JobStatus {
    /// Every status, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// The word used in Redis, JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job has ended. It does not change any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no status or priority.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{word}` is not one of {expected}")]
pub struct UnknownWord {
    /// The word.
    pub word: String,
    /// The words that are allowed.
    pub expected: &'static str,
}

impl FromStr for JobStatus {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == word).ok_or_else(|| UnknownWord {
            word: word.to_owned(),
            expected: "pending, processing, completed, failed, cancelled",
        })
    }
}

/// Priority of a job. Each has a stream of its own in each partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Claimed first most of the time.
    High,
    /// The default.
    #[default]
    Normal,
    /// Claimed last most of the time, but never starved.
    Low,
}

impl Priority {
    /// Every priority, in the order of the numbers of their streams in the scripts (1, 2, 3).
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The word used in Redis, JSON, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.as_str() == word)
            .ok_or_else(|| UnknownWord { word: word.to_owned(), expected: "high, normal, low" })
    }
}

/// A job that a client submits.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its model.
    pub model: ModelName,
    /// The input in its stored form, see [`input`]. It has been checked against the description of the model.
    pub input: Vec<u8>,
    /// Its priority.
    pub priority: Priority,
    /// Longest wait before the first attempt.
    pub max_queue: Option<Duration>,
    /// Longest time from the begin of the first attempt.
    pub timeout: Option<Duration>,
    /// Its idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Its owner.
    pub owner: Option<String>,
    /// Its charge; `None` for a job whose input and result are small.
    pub charge: Option<Charge>,
    /// Id of the HTTP request, for the logs.
    pub request_id: Option<String>,
    /// W3C Trace Context header of the HTTP request.
    pub traceparent: Option<String>,
}

impl NewJob {
    /// A job without limits, owner and request.
    #[must_use]
    pub fn new(model: ModelName, input: Vec<u8>) -> Self {
        Self {
            model,
            input,
            priority: Priority::default(),
            max_queue: None,
            timeout: None,
            idempotency: None,
            owner: None,
            charge: None,
            request_id: None,
            traceparent: None,
        }
    }
}

/// Inputs and results above this size, bytes, are charged to a payer. A result above this size has a field of its own. It is `LARGE`
/// in `lua/quota.lua`.
pub const LARGE_BYTES: usize = 8 << 10;

/// Payer of the large input and result of a job, and the quota of payers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// `o:` and an owner, or `a:` and the keyed hash of an address.
    pub payer: Arc<str>,
    /// Largest number of bytes that a payer may keep in a partition; 0 = no limit.
    pub most_bytes: u64,
}

/// A client's idempotency key, and a fingerprint of its request.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// SHA-256 of the key (and its owner), hex.
    pub key_hash: String,
    /// SHA-256 of the request, hex. The same key with another request is refused.
    pub fingerprint: String,
}

/// The result of a completed job. A large one, above [`LARGE_BYTES`], must be read separately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// JSON text.
    Inline(String),
    /// Large JSON text.
    Large {
        /// Its size.
        bytes: usize,
    },
    /// Tensors.
    Tensors(Vec<Tensor>),
    /// Large tensors, see [`stored_outputs`](crate::tensor::stored_outputs).
    LargeTensors {
        /// The size of their stored form.
        bytes: usize,
    },
    /// Bytes that the model returned.
    Bytes {
        /// Their content type.
        content_type: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Large bytes, see [`content`].
    LargeBytes {
        /// Their content type.
        content_type: String,
        /// The size of their stored form.
        bytes: usize,
    },
}

/// Most bytes of JSON for a stored byte of a tensor: an element of two bytes can have 17 characters and a comma.
const MOST_JSON: usize = 9;

impl JobResult {
    /// The text of small JSON.
    #[must_use]
    pub fn inline(&self) -> Option<&str> {
        match self {
            Self::Inline(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it must be read separately.
    #[must_use]
    pub fn is_large(&self) -> bool {
        matches!(self, Self::Large { .. } | Self::LargeTensors { .. } | Self::LargeBytes { .. })
    }

    /// Most bytes of the result as JSON.
    #[must_use]
    pub fn most_bytes(&self) -> usize {
        match self {
            Self::Inline(text) => text.len(),
            Self::Large { bytes } => *bytes,
            Self::Tensors(tensors) => json::length_of_outputs(tensors.iter().map(Tensor::view)),
            Self::LargeTensors { bytes } => bytes.saturating_mul(MOST_JSON),
            Self::Bytes { bytes, .. } => content::most_json_bytes(bytes.len()),
            Self::LargeBytes { bytes, .. } => content::most_json_bytes(*bytes),
        }
    }
}

/// A job as a reader sees it. Times are Unix milliseconds by the clock of the Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its status.
    pub status: JobStatus,
    /// The name of its model.
    pub model: String,
    /// Its priority.
    pub priority: Priority,
    /// When it was accepted.
    pub created_at_ms: u64,
    /// When its first attempt began.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
    /// When its next attempt is due, while it waits for a retry.
    pub next_attempt_at_ms: Option<u64>,
    /// Number of attempts, without releases.
    pub attempts: u64,
    /// The result, once completed.
    pub result: Option<JobResult>,
    /// Why it failed, a sentence for the client.
    pub error: Option<String>,
    /// Why it failed, one word for programs.
    pub error_code: Option<String>,
    /// The job that was requeued as this one.
    pub retry_of: Option<JobId>,
    /// Its next deadline, if it has one and has not ended.
    pub deadline_ms: Option<u64>,
    /// Its owner; `None` = no owner.
    pub owner: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_carries_its_partition_and_survives_text() {
        for partition in [0, 1, 127, 255] {
            let id = JobId::new(partition);
            assert_eq!(id.partition(), partition);
            assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        }
    }

    #[test]
    fn ids_of_one_process_are_distinct_and_in_order() {
        let ids: Vec<_> = (0..10_000).map(|_| JobId::new(3)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn words_round_trip_and_unknown_ones_say_what_exists() {
        for status in JobStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        let error = "urgent".parse::<Priority>().map_err(|error| error.to_string());
        assert_eq!(error, Err("`urgent` is not one of high, normal, low".to_owned()));
    }
}
