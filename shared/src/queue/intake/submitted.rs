//! The outcome of a submission.

use std::time::Duration;

use redis::Value;

use crate::{
    job::{JobId, JobStatus},
    queue::{
        error::StoreError,
        scripts::{SUBMIT, reply::Reply},
    },
};

/// The outcome of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The job waits in the queue.
    Accepted,
    /// An earlier request with the same idempotency key created this job.
    Duplicate {
        /// The job.
        job_id: JobId,
        /// Its status.
        status: JobStatus,
    },
    /// The idempotency key belongs to another request.
    Conflict,
    /// The queue is at its limit.
    Full {
        /// Jobs that have not ended.
        outstanding: u64,
    },
    /// The model is at its limit.
    ModelFull {
        /// Jobs of the model that have not ended.
        outstanding: u64,
    },
    /// The payer is at its quota.
    OverQuota {
        /// Time until the payer may have room; zero = as soon as one of its jobs ends, `None` = unknown.
        room_in: Option<Duration>,
    },
}

impl Submitted {
    /// Whether the job is stored. A refused job leaves no trace.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self, Self::Accepted | Self::Duplicate { .. })
    }

    /// Reads the outcomes of `count` jobs, in order.
    pub(crate) fn parse_all(value: Value, count: usize) -> Result<Vec<Result<Self, StoreError>>, StoreError> {
        let mut reply = Reply::new(&SUBMIT, value)?;
        (0..count).map(|_| Ok(Self::parse(reply.outcome()?))).collect()
    }

    fn parse(mut reply: Reply<'_>) -> Result<Self, StoreError> {
        match reply.word()?.as_str() {
            "accepted" => Ok(Self::Accepted),
            "duplicate" => {
                Ok(Self::Duplicate { job_id: reply.parsed("a job id")?, status: reply.parsed("a status")? })
            }
            "conflict" => Ok(Self::Conflict),
            "full" => Ok(Self::Full { outstanding: reply.count("the queue's length")? }),
            "model_full" => Ok(Self::ModelFull { outstanding: reply.count("the queue's length")? }),
            "over_quota" => Ok(Self::OverQuota { room_in: room_in(&mut reply)? }),
            word => reply.unknown(word),
        }
    }
}

/// Reads the time until a payer may have room, or -1.
pub(super) fn room_in(reply: &mut Reply<'_>) -> Result<Option<Duration>, StoreError> {
    Ok(u64::try_from(reply.int("a time until there is room")?).ok().map(Duration::from_millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_word_is_an_error_that_names_the_script() {
        let outcome = Value::Array(vec![Value::BulkString(b"maybe".to_vec())]);
        let outcome = Submitted::parse_all(Value::Array(vec![outcome]), 1).unwrap().remove(0);
        let error = outcome.map_err(|error| error.to_string());
        assert_eq!(error, Err("unexpected answer of script `submit`: unknown outcome `maybe`".to_owned()));
    }
}
