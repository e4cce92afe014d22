//! Reads how much work waits and runs.

use std::time::Duration;

use redis::{FromRedisValue as _, Pipeline, Value};

use crate::{
    job::{JobId, ModelName},
    queue::{error::StoreError, keys::GROUP, loss::LogMark, views::handle::Views},
};

/// Number of entries of a stream among which the oldest job is searched: the first ones may be from a time when the clock was ahead.
const LOOK: usize = 16;

/// The consumer that owns entries of released jobs; see `lua/lib.lua`.
const WAITING: &str = "waiting";

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

impl Views {
    /// Number of dead letters of the model in the partition.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn dead_letters(&self, partition: u8, model: ModelName) -> Result<u64, StoreError> {
        let mut command = redis::cmd("XLEN");
        command.arg(self.queue.keys.dead(partition, model));
        u64::from_redis_value(self.queue.primary(partition).run(&command).await?).map_err(StoreError::unread)
    }

    /// Age of the oldest job of the model that waits in the partition; `None` if no job waits. Uses the jobs' own times, since the ids of their entries
    /// may be ahead of the clock.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn oldest_waiting(
        &self,
        partition: u8,
        model: ModelName,
    ) -> Result<Option<Duration>, StoreError> {
        let streams = self.queue.keys.streams(partition, model);
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in &streams {
            pipeline.cmd("XPENDING").arg(stream).arg(GROUP);
            pipeline.cmd("XPENDING").arg(stream).arg(GROUP).arg("-").arg("+").arg(LOOK).arg(WAITING);
        }
        let mut outcomes = self.queue.primary(partition).run_all(&pipeline).await?.into_iter();
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in &streams {
            let (Some(pending), Some(waiting)) = (outcomes.next(), outcomes.next()) else { break };
            for entry in unless_group_missing(waiting)?.map(pending_entries).unwrap_or_default() {
                pipeline.cmd("XRANGE").arg(stream).arg(&entry).arg(&entry);
            }
            // Entries of ended jobs are deleted, so all entries after the newest pending one are new.
            let newest_pending = unless_group_missing(pending)?.and_then(newest_pending_entry);
            let start = newest_pending.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
            pipeline.cmd("XRANGE").arg(stream).arg(start).arg("+").arg("COUNT").arg(LOOK);
        }
        let mut oldest = Vec::new();
        for entries in self.queue.primary(partition).run_all(&pipeline).await? {
            oldest.extend(job_ids(entries?));
        }
        self.greatest_age(partition, &oldest).await
    }

    /// Age of the oldest job. A time in the future comes from a wrong clock.
    async fn greatest_age(&self, partition: u8, ids: &[JobId]) -> Result<Option<Duration>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1 + ids.len());
        pipeline.ignore_errors().cmd("TIME");
        for id in ids {
            pipeline.cmd("HGET").arg(self.queue.keys.job(*id)).arg("at");
        }
        let mut outcomes = self.queue.primary(partition).run_all(&pipeline).await?.into_iter();
        let time = outcomes.next().transpose()?.unwrap_or(Value::Nil);
        let (seconds, micros): (u64, u64) = redis::from_redis_value(time).map_err(StoreError::unread)?;
        let now_ms = seconds * 1000 + micros / 1000;
        let mut greatest = None;
        for created_at in outcomes {
            // A job that was deleted since does not wait.
            let created_at: Option<u64> = redis::from_redis_value(created_at?).unwrap_or_default();
            let age = created_at.map(|ms| Duration::from_millis(now_ms.saturating_sub(ms)));
            greatest = greatest.max(age);
        }
        Ok(greatest)
    }

    /// The end of the partition's log.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn log_mark(&self, partition: u8) -> Result<LogMark, StoreError> {
        self.queue.log_mark(partition).await
    }

    /// Waiting and running jobs of the model in the partition, in the order of [`Priority::ALL`](crate::job::Priority::ALL). They are
    /// read in one round trip, so that the numbers fit together.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn queue_states(&self, partition: u8, model: ModelName) -> Result<[QueueState; 3], StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in self.queue.keys.streams(partition, model) {
            pipeline.cmd("XLEN").arg(&stream);
            pipeline.cmd("XPENDING").arg(&stream).arg(GROUP);
        }
        let mut outcomes = self.queue.primary(partition).run_all(&pipeline).await?.into_iter();
        let mut states = [QueueState::default(); 3];
        for state in &mut states {
            let (Some(length), Some(pending)) = (outcomes.next(), outcomes.next()) else { break };
            let length = u64::from_redis_value(length?).map_err(StoreError::unread)?;
            let (pending, waiting) = match pending {
                Ok(summary) => pending_from(summary)?,
                // Without a group, nothing was claimed yet.
                Err(StoreError::GroupMissing(_)) => (0, 0),
                Err(error) => return Err(error),
            };
            *state = QueueState {
                new: length.saturating_sub(pending),
                waiting,
                in_flight: pending.saturating_sub(waiting),
            };
        }
        Ok(states)
    }
}

/// Reads the summary form of XPENDING: all pending entries, and those of the consumer [`WAITING`].
pub(super) fn pending_from(summary: Value) -> Result<(u64, u64), StoreError> {
    type Summary = (u64, Option<String>, Option<String>, Option<Vec<(String, u64)>>);
    let (total, _, _, consumers): Summary = redis::from_redis_value(summary).map_err(StoreError::unread)?;
    let waiting = consumers.unwrap_or_default().into_iter().find(|(consumer, _)| consumer == WAITING);
    Ok((total, waiting.map_or(0, |(_, count)| count)))
}

/// A group that does not exist has no pending entries.
fn unless_group_missing(outcome: Result<Value, StoreError>) -> Result<Option<Value>, StoreError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::GroupMissing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the highest entry id from the summary form of XPENDING.
pub(super) fn newest_pending_entry(summary: Value) -> Option<String> {
    let Value::Array(parts) = summary else { return None };
    redis::from_redis_value(parts.into_iter().nth(2)?).ok()?
}

/// The ids of the entries in the long form of XPENDING.
pub(super) fn pending_entries(reply: Value) -> Vec<String> {
    let entries: Vec<(String, Value, Value, Value)> = redis::from_redis_value(reply).unwrap_or_default();
    entries.into_iter().map(|(entry, ..)| entry).collect()
}

/// Reads the job ids from entries of a stream. An entry that cannot be read is skipped.
pub(super) fn job_ids(entries: Value) -> Vec<JobId> {
    let entries: Vec<(String, Vec<String>)> = redis::from_redis_value(entries).unwrap_or_default();
    entries.into_iter().filter_map(|(_, fields)| fields.get(1)?.parse().ok()).collect()
}
