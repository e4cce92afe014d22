//! What readers ask of the store. Nothing here changes a job.

use std::{num::ParseIntError, time::Duration};

use redis::{Cmd, FromRedisValue as _, Pipeline, Value};

use super::{
    JobStore,
    loss::{LogMark, log_mark_from},
};
use crate::{
    job::{Job, JobId, JobResult, JobStatus, Priority},
    queue::{
        error::{StoreError, Unreadable},
        keys::GROUP,
    },
};

/// The fields of a job hash that a reader sees, in the order of [`job_from`].
const FIELDS: [&str; 15] = [
    "status",
    "priority",
    "created_at",
    "waited_ms",
    "took_ms",
    "next_attempt_at",
    "attempt",
    "released",
    "result",
    "error",
    "error_code",
    "retry_of",
    "queue_deadline",
    "run_deadline",
    "owner",
];

/// How many entries of a stream are looked at for the oldest job: the first ones may have come while the clock was ahead.
const LOOK: usize = 16;

/// Jobs that are read in one round trip.
const AT_ONCE: usize = 50;
/// Reads of more jobs than this take turns.
const FEW: usize = 10;

/// The consumer that owns entries nobody runs; see `lua/lib.lua`.
const WAITING: &str = "waiting";

/// How much work a partition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Each priority's stream, in the order of [`Priority::ALL`].
    pub queues: [QueueState; 3],
    /// How far the log of accepted jobs has come.
    pub log: LogMark,
}

/// How much work a priority's stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Never taken yet.
    pub new: u64,
    /// Given back, or waiting for a retry.
    pub waiting: u64,
    /// Held by a worker.
    pub in_flight: u64,
}

impl JobStore {
    /// The job as it stands; `None` when there is none (any more).
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let value = self.redis.run(&self.read_call(id)).await?;
        job_from(id, value)
    }

    /// The jobs as they stand, in order; `None` for one that is not there (any more).
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, StoreError> {
        self.read_all(ids, |id| self.read_call(id)).await
    }

    /// Reads jobs, a few in each round trip. Large reads of all requests take turns, so that a request that submits or reads
    /// one job waits for no more than one round trip of theirs on the connection that all share.
    async fn read_all(
        &self,
        ids: &[JobId],
        call: impl Fn(JobId) -> Cmd,
    ) -> Result<Vec<Option<Job>>, StoreError> {
        let mut jobs = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            // The semaphore is never closed, so there is always a turn.
            let _turn = if ids.len() > FEW { self.large_reads.acquire().await.ok() } else { None };
            let mut pipeline = Pipeline::with_capacity(some.len());
            pipeline.ignore_errors();
            for id in some {
                pipeline.add_command(call(*id));
            }
            let outcomes = self.redis.run_all(&pipeline).await?;
            for (id, outcome) in some.iter().zip(outcomes) {
                jobs.push(job_from(*id, outcome?)?);
            }
        }
        Ok(jobs)
    }

    /// The text of a result that is [`JobResult::Large`]; `None` when the job is gone.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn large_result(&self, id: JobId) -> Result<Option<String>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.job(id)).arg("large_result");
        redis::from_redis_value(self.redis.run(&command).await?).map_err(unreadable)
    }

    fn read_call(&self, id: JobId) -> Cmd {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.job(id)).arg(&FIELDS[..]);
        command
    }

    /// The jobs as a listing shows them: without results. `None` for one that is gone.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn listed(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, StoreError> {
        // A field that no job has: its value is nil. A listing shows no results.
        let fields = FIELDS.map(|field| if field == "result" { "" } else { field });
        let call = |id| {
            let mut command = redis::cmd("HMGET");
            command.arg(self.keys.job(id)).arg(&fields[..]);
            command
        };
        self.read_all(ids, call).await
    }

    /// Number of dead letters that the partition keeps.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn dead_letters(&self, partition: u8) -> Result<u64, StoreError> {
        let mut command = redis::cmd("XLEN");
        command.arg(self.keys.dead(partition));
        u64::from_redis_value(self.redis.run(&command).await?).map_err(unreadable)
    }

    /// Time since the submission of the partition's oldest job that nobody runs; `None` when no job waits. By the jobs' own
    /// times: the ids of their entries may be ahead of the clock.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn oldest_waiting(&self, partition: u8) -> Result<Option<Duration>, StoreError> {
        let streams = self.keys.streams(partition);
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in &streams {
            pipeline.cmd("XPENDING").arg(stream).arg(GROUP);
            pipeline.cmd("XPENDING").arg(stream).arg(GROUP).arg("-").arg("+").arg(LOOK).arg(WAITING);
        }
        let mut outcomes = self.redis.run_all(&pipeline).await?.into_iter();
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in &streams {
            let (Some(pending), Some(waiting)) = (outcomes.next(), outcomes.next()) else { break };
            for entry in unless_group_missing(waiting)?.map(pending_entries).unwrap_or_default() {
                pipeline.cmd("XRANGE").arg(stream).arg(&entry).arg(&entry);
            }
            // Ended entries are deleted, so whatever is left behind the newest pending entry was never taken.
            let newest_pending = unless_group_missing(pending)?.and_then(newest_pending_entry);
            let start = newest_pending.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
            pipeline.cmd("XRANGE").arg(stream).arg(start).arg("+").arg("COUNT").arg(LOOK);
        }
        let mut oldest = Vec::new();
        for entries in self.redis.run_all(&pipeline).await? {
            oldest.extend(job_ids(entries?));
        }
        self.greatest_age(&oldest).await
    }

    /// Time since the submission of the job that was submitted first. A time in the future is that of a clock which was wrong.
    async fn greatest_age(&self, ids: &[JobId]) -> Result<Option<Duration>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1 + ids.len());
        pipeline.ignore_errors().cmd("TIME");
        for id in ids {
            pipeline.cmd("HGET").arg(self.keys.job(*id)).arg("created_at");
        }
        let mut outcomes = self.redis.run_all(&pipeline).await?.into_iter();
        let time = outcomes.next().transpose()?.unwrap_or(Value::Nil);
        let (seconds, micros): (u64, u64) = redis::from_redis_value(time).map_err(unreadable)?;
        let now_ms = seconds * 1000 + micros / 1000;
        let mut greatest = None;
        for created_at in outcomes {
            // A job that was taken away meanwhile does not wait.
            let created_at: Option<u64> = redis::from_redis_value(created_at?).unwrap_or_default();
            let age = created_at.map(|ms| Duration::from_millis(now_ms.saturating_sub(ms)));
            greatest = greatest.max(age);
        }
        Ok(greatest)
    }

    /// How much work the partition holds. Asked for in one go, so that its numbers fit each other.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn partition_state(&self, partition: u8) -> Result<PartitionState, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in self.keys.streams(partition) {
            pipeline.cmd("XLEN").arg(&stream);
            pipeline.cmd("XPENDING").arg(&stream).arg(GROUP);
        }
        // Each job is listed in the log once, when it is accepted.
        pipeline.cmd("XINFO").arg("STREAM").arg(self.keys.log(partition));
        let mut outcomes = self.redis.run_all(&pipeline).await?.into_iter();
        let mut state = PartitionState::default();
        for queue in &mut state.queues {
            let (Some(length), Some(pending)) = (outcomes.next(), outcomes.next()) else { break };
            let length = u64::from_redis_value(length?).map_err(unreadable)?;
            let (pending, waiting) = match pending {
                Ok(summary) => pending_from(summary)?,
                // No group yet: nothing was ever taken.
                Err(StoreError::GroupMissing(_)) => (0, 0),
                Err(error) => return Err(error),
            };
            *queue = QueueState {
                new: length.saturating_sub(pending),
                waiting,
                in_flight: pending.saturating_sub(waiting),
            };
        }
        if let Some(log) = outcomes.next() {
            state.log = log_mark_from(log)?;
        }
        Ok(state)
    }
}

/// The total of the pending entries and the share of the consumer [`WAITING`], from the summary form of XPENDING.
pub(super) fn pending_from(summary: Value) -> Result<(u64, u64), StoreError> {
    type Summary = (u64, Option<String>, Option<String>, Option<Vec<(String, u64)>>);
    let (total, _, _, consumers): Summary = redis::from_redis_value(summary).map_err(unreadable)?;
    let waiting = consumers.unwrap_or_default().into_iter().find(|(consumer, _)| consumer == WAITING);
    Ok((total, waiting.map_or(0, |(_, count)| count)))
}

/// A group that does not exist has nothing pending.
fn unless_group_missing(outcome: Result<Value, StoreError>) -> Result<Option<Value>, StoreError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::GroupMissing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The highest entry id in the summary form of XPENDING.
pub(super) fn newest_pending_entry(summary: Value) -> Option<String> {
    let Value::Array(parts) = summary else { return None };
    redis::from_redis_value(parts.into_iter().nth(2)?).ok()?
}

/// The ids of the entries in the long form of XPENDING.
pub(super) fn pending_entries(reply: Value) -> Vec<String> {
    let entries: Vec<(String, Value, Value, Value)> = redis::from_redis_value(reply).unwrap_or_default();
    entries.into_iter().map(|(entry, ..)| entry).collect()
}

/// The jobs of a work stream's entries. One that is not understood is left out.
pub(super) fn job_ids(entries: Value) -> Vec<JobId> {
    let entries: Vec<(String, Vec<String>)> = redis::from_redis_value(entries).unwrap_or_default();
    entries.into_iter().filter_map(|(_, fields)| fields.get(1)?.parse().ok()).collect()
}

pub(super) fn job_from(id: JobId, value: Value) -> Result<Option<Job>, StoreError> {
    let fields: Vec<Option<String>> = redis::from_redis_value(value).map_err(unreadable)?;
    let mut fields = fields.into_iter();
    let mut next = || fields.next().flatten();
    let Some(status) = next() else { return Ok(None) };
    let status: JobStatus = status.parse().map_err(unreadable)?;
    let priority = next().map_or(Ok(Priority::Normal), |word| word.parse()).map_err(unreadable)?;
    let mut number = || next().and_then(|text| text.parse::<u64>().ok());
    let created_at_ms = number().unwrap_or_default();
    // Kept as spans, which take a fifth of the bytes of a time.
    let mut time = || number().map(|span_ms| created_at_ms.saturating_add(span_ms));
    let (started_at_ms, finished_at_ms) = (time(), time());
    let next_attempt_at_ms = number();
    let (attempt, released) = (number().unwrap_or(0), number().unwrap_or(0));
    let (result, error, error_code, retry_of) = (next(), next(), next(), next());
    let (queue_deadline, run_deadline, owner) = (next(), next(), next());
    let deadline = if started_at_ms.is_some() { run_deadline } else { queue_deadline };
    Ok(Some(Job {
        id,
        status,
        priority,
        created_at_ms,
        started_at_ms,
        finished_at_ms,
        next_attempt_at_ms,
        attempts: attempt.saturating_sub(released),
        result: result.map(result_from).transpose()?,
        error,
        error_code,
        retry_of: retry_of.and_then(|text| text.parse().ok()),
        deadline_ms: deadline.and_then(|text| text.parse().ok()),
        owner,
    }))
}

/// A result as it is stored with its job: no JSON text begins with `@`.
fn result_from(text: String) -> Result<JobResult, StoreError> {
    let Some(size) = text.strip_prefix('@') else { return Ok(JobResult::Inline(text)) };
    Ok(JobResult::Large { bytes: size.parse().map_err(unreadable::<ParseIntError>)? })
}

pub(super) fn unreadable<E: Into<Unreadable>>(error: E) -> StoreError {
    StoreError::unreadable("read")(error)
}
