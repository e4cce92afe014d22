//! What each script can answer, as types.

use std::time::Duration;

use redis::Value;

use super::{
    CANCEL, COMPLETE, EXPIRE, HEARTBEAT, NamedScript, RENEW, REQUEUE, Reply, START, SUBMIT, WORKERS,
};
use crate::{
    job::{Attempt, Claim, Delivery, JobId, JobStatus, Priority},
    queue::error::StoreError,
};

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The job waits in the queue.
    Accepted,
    /// The idempotency key's earlier request made this job.
    Duplicate {
        /// That job.
        job_id: JobId,
        /// Where it stands.
        status: JobStatus,
    },
    /// The idempotency key belongs to another request.
    Conflict,
    /// The queue is at its limit.
    Full {
        /// Jobs that have not ended.
        outstanding: u64,
    },
    /// The payer keeps as much as it may.
    OverQuota {
        /// When it may have room, as far as that is known; zero = as soon as one of its jobs ends.
        room_in: Option<Duration>,
    },
}

impl Submitted {
    /// Whether its job is stored: a refusal leaves no trace.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self, Self::Accepted | Self::Duplicate { .. })
    }

    /// The outcomes of so many jobs, in order.
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
            "over_quota" => Ok(Self::OverQuota { room_in: room_in(&mut reply)? }),
            word => reply.unknown(word),
        }
    }
}

/// A time until there may be room, or -1.
fn room_in(reply: &mut Reply<'_>) -> Result<Option<Duration>, StoreError> {
    Ok(u64::try_from(reply.int("a time until there is room")?).ok().map(Duration::from_millis))
}

/// The jobs that a consumer was granted, and what was found on the way.
#[derive(Debug, Default)]
pub struct Granted {
    /// The claimed jobs.
    pub deliveries: Vec<Delivery>,
    /// Jobs that failed instead of being granted, with their error codes.
    pub ended: Vec<(JobId, String)>,
    /// Jobs whose former worker's lease had lapsed.
    pub reclaimed: u64,
    /// Entries without an outstanding job, removed.
    pub stale: u64,
    /// Where the next look for due entries goes on, for each stream.
    pub cursors: [String; 3],
    /// Consumer groups that were missing and have been created.
    pub groups_created: u64,
}

impl Granted {
    /// The outcome of `start`.
    pub(crate) fn started(value: Value) -> Result<Self, StoreError> {
        Self::parse(&START, value)
    }

    /// Whether any entry was delivered.
    pub(crate) fn found_something(&self) -> bool {
        !self.deliveries.is_empty() || !self.ended.is_empty() || self.stale > 0
    }

    pub(crate) fn parse(script: &NamedScript, value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(script, value)?;
        match reply.word()?.as_str() {
            "granted" => {}
            word => return reply.unknown(word),
        }
        let mut jobs = reply.nested("the jobs")?;
        let mut deliveries = Vec::new();
        while !jobs.is_empty() {
            deliveries.push(delivery(&mut jobs)?);
        }
        let ended = reply
            .list("the ended jobs")?
            .into_iter()
            .map(|mut job| Ok((job.parsed("a job id")?, job.text("an error code")?)))
            .collect::<Result<_, StoreError>>()?;
        let reclaimed = reply.count("the reclaimed jobs")?;
        let stale = reply.count("the stale entries")?;
        let mut cursors = <[String; 3]>::default();
        for (cursor, text) in cursors.iter_mut().zip(reply.texts("the cursors")?) {
            *cursor = text;
        }
        let groups_created = reply.count("the created groups")?;
        Ok(Self { deliveries, ended, reclaimed, stale, cursors, groups_created })
    }
}

fn delivery(job: &mut Reply<'_>) -> Result<Delivery, StoreError> {
    // In the order of the reply.
    let (job_id, priority, token) = (job.parsed("a job id")?, priority(job)?, job.count("an attempt token")?);
    let attempt = Attempt {
        claim: Claim { job_id, token, priority },
        released: job.count("the releases")?,
        lost: job.count("the lost leases")?,
        broken: job.count("the calls that broke off")?,
        age: Duration::from_millis(job.count("the job's age")?),
        time_left: u64::try_from(job.int("the time left")?).ok().map(Duration::from_millis),
        request_id: job.optional_text("a request id")?,
        traceparent: job.optional_text("a traceparent")?,
    };
    Ok(Delivery { attempt, input: job.text("the input")? })
}

/// The stream that a number of the scripts stands for.
fn priority(job: &mut Reply<'_>) -> Result<Priority, StoreError> {
    let number = job.count("a stream number")?;
    let priority = usize::try_from(number).ok().and_then(|number| Priority::ALL.get(number.wrapping_sub(1)));
    priority.copied().ok_or_else(|| job.script.unexpected(format!("stream number {number}")))
}

/// What became of an attempt's wish to end its job or to give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done, now or by an earlier call of the same attempt.
    Done {
        /// Whether the job's stream entry was gone and had to be written anew.
        repaired: bool,
    },
    /// The attempt no longer holds the job; nothing was changed.
    Fenced(Fence),
}

/// Why an attempt no longer holds its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Another attempt holds or ended it.
    Lost,
    /// Its client cancelled it.
    Cancelled,
    /// It does not exist (any more).
    Missing,
}

impl Fence {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "lost" => Some(Self::Lost),
            "cancelled" => Some(Self::Cancelled),
            "missing" => Some(Self::Missing),
            _ => None,
        }
    }

    /// One word, as the scripts, the log and the metrics have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Missing => "missing",
        }
    }
}

impl Settled {
    pub(crate) fn parse(script: &NamedScript, value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(script, value)?;
        match reply.word()?.as_str() {
            "failed" => Ok(Self::Done { repaired: false }),
            "retried" | "released" => Ok(Self::Done { repaired: reply.count("the repairs")? > 0 }),
            word => Self::from_word(&reply, word),
        }
    }

    /// The outcomes of a call that completes `count` jobs.
    pub(crate) fn parse_completed(value: Value, count: usize) -> Result<Vec<Self>, StoreError> {
        let mut reply = Reply::new(&COMPLETE, value)?;
        let mut next = || match reply.word()?.as_str() {
            "completed" => Ok(Self::Done { repaired: false }),
            word => Self::from_word(&reply, word),
        };
        (0..count).map(|_| next()).collect()
    }

    fn from_word(reply: &Reply<'_>, word: &str) -> Result<Self, StoreError> {
        Fence::from_word(word).map_or_else(|| reply.unknown(word), |fence| Ok(Self::Fenced(fence)))
    }
}

pub(crate) fn parse_renewed(value: Value) -> Result<Vec<(JobId, Fence)>, StoreError> {
    let mut reply = Reply::new(&RENEW, value)?;
    match reply.word()?.as_str() {
        "renewed" => {}
        word => return reply.unknown(word),
    }
    let lost = reply.list("the lost jobs")?;
    lost.into_iter()
        .map(|mut job| {
            let id = job.parsed("a job id")?;
            let word = job.text("a reason")?;
            Fence::from_word(&word).map_or_else(|| job.unknown(&word), |fence| Ok((id, fence)))
        })
        .collect()
}

/// What became of a client's wish to cancel a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled, now or earlier.
    Done,
    /// It completed or failed before.
    Ended(JobStatus),
    /// No such job.
    Missing,
}

impl Cancelled {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&CANCEL, value)?;
        match reply.word()?.as_str() {
            "cancelled" => Ok(Self::Done),
            "ended" => Ok(Self::Ended(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            word => reply.unknown(word),
        }
    }
}

/// What became of a client's wish to run a failed or cancelled job again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// The new job waits in the queue.
    Accepted,
    /// The old job has not failed and was not cancelled.
    NotRepeatable(JobStatus),
    /// The old job failed or was cancelled, but its input is not kept any more.
    InputExpired(JobStatus),
    /// No such job.
    Missing,
    /// The queue is at its limit.
    Full {
        /// Jobs that have not ended.
        outstanding: u64,
    },
    /// Who would pay keeps as much as it may.
    OverQuota {
        /// As [`Submitted::OverQuota`].
        room_in: Option<Duration>,
    },
}

impl Requeued {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&REQUEUE, value)?;
        match reply.word()?.as_str() {
            "accepted" => Ok(Self::Accepted),
            "expired" => Ok(Self::InputExpired(reply.parsed("a status")?)),
            "unfinished" => Ok(Self::NotRepeatable(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            "full" => Ok(Self::Full { outstanding: reply.count("the queue's length")? }),
            "over_quota" => Ok(Self::OverQuota { room_in: room_in(&mut reply)? }),
            word => reply.unknown(word),
        }
    }
}

/// What a look at a job's deadlines did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expired {
    /// A deadline was missed: the job has failed with this error code.
    Failed(String),
    /// Nothing was missed, or the job had ended.
    Kept(JobStatus),
    /// No such job.
    Missing,
}

impl Expired {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&EXPIRE, value)?;
        match reply.word()?.as_str() {
            "expired" => Ok(Self::Failed(reply.text("an error code")?)),
            "kept" => Ok(Self::Kept(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            word => reply.unknown(word),
        }
    }
}

pub(crate) fn parse_recorded(value: Value) -> Result<u64, StoreError> {
    let mut reply = Reply::new(&HEARTBEAT, value)?;
    match reply.word()?.as_str() {
        "recorded" => reply.count("the live workers"),
        word => reply.unknown(word),
    }
}

/// A live worker's last heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    /// The worker process.
    pub id: String,
    /// What it said of itself, JSON.
    pub state: String,
    /// Time since it said so.
    pub silence: Duration,
}

pub(crate) fn parse_workers(value: Value) -> Result<Vec<WorkerRecord>, StoreError> {
    let mut reply = Reply::new(&WORKERS, value)?;
    match reply.word()?.as_str() {
        "workers" => {}
        word => return reply.unknown(word),
    }
    let workers = reply.list("the workers")?;
    workers
        .into_iter()
        .map(|mut worker| {
            Ok(WorkerRecord {
                id: worker.text("a worker id")?,
                state: worker.text("a worker's state")?,
                silence: Duration::from_millis(worker.count("a silence")?),
            })
        })
        .collect()
}
