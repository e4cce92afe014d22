//! What readers ask of the store. Nothing here changes a job.

use std::{fmt, str::FromStr, time::Duration};

use redis::{Cmd, FromRedisValue as _, Pipeline, Value};

use super::JobStore;
use crate::{
    error::StoreError,
    job::{Job, JobId, JobStatus, Priority},
    keys::GROUP,
};

/// The fields of a job hash that a reader sees, in the order of [`job_from`].
const FIELDS: [&str; 14] = [
    "status",
    "priority",
    "created_at",
    "started_at",
    "finished_at",
    "next_attempt_at",
    "attempt",
    "released",
    "result",
    "error",
    "error_code",
    "retry_of",
    "queue_deadline",
    "run_deadline",
];

/// The consumer that owns entries nobody runs; see `lua/lib.lua`.
const WAITING: &str = "waiting";

/// Which jobs a listing shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct JobFilter {
    /// Only jobs in this state.
    pub status: Option<JobStatus>,
}

/// A part of the listing, newest job first.
#[derive(Clone, Debug, Default)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// How much work a partition's stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Never taken yet.
    pub new: u64,
    /// Given back, or waiting for a retry.
    pub waiting: u64,
    /// Held by a worker.
    pub in_flight: u64,
}

/// A place in the logs of all partitions, which together read newest first: by falling `(ms, seq, partition)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// First part of the log entry's id: when the job was accepted, Unix ms.
    pub ms: u64,
    /// Second part of the log entry's id: tells apart the entries of one millisecond.
    pub seq: u64,
    /// Whose log it is in.
    pub partition: u8,
}

impl LogPlace {
    /// Where another partition's log goes on after this place, as XREVRANGE's upper end.
    fn end_in(self, partition: u8) -> String {
        // Of two entries with the same id, the one in the higher partition comes first.
        let exclusive = if partition < self.partition { "" } else { "(" };
        format!("{exclusive}{}-{}", self.ms, self.seq)
    }
}

impl fmt::Display for LogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.ms, self.seq, self.partition)
    }
}

/// The text is no [`LogPlace`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no place in the log")]
pub struct NoLogPlace;

impl FromStr for LogPlace {
    type Err = NoLogPlace;

    fn from_str(text: &str) -> Result<Self, NoLogPlace> {
        let mut parts = text.split('-');
        let (Some(ms), Some(seq), Some(partition), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoLogPlace);
        };
        Ok(Self {
            ms: ms.parse().map_err(|_| NoLogPlace)?,
            seq: seq.parse().map_err(|_| NoLogPlace)?,
            partition: partition.parse().map_err(|_| NoLogPlace)?,
        })
    }
}

/// Accepted jobs of all partitions, newest first.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// Places and ids; the jobs may have expired since.
    pub entries: Vec<(LogPlace, JobId)>,
    /// Whether the log may go on after the last entry.
    pub more: bool,
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

    fn read_call(&self, id: JobId) -> Cmd {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.job(id)).arg(&FIELDS[..]);
        command
    }

    async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(ids.len());
        pipeline.ignore_errors();
        for id in ids {
            pipeline.add_command(self.read_call(*id));
        }
        let outcomes = self.redis.run_all(&pipeline).await?;
        let jobs = ids.iter().zip(outcomes).map(|(id, outcome)| job_from(*id, outcome?));
        // A job in the log may have expired: it is simply not listed.
        jobs.filter_map(Result::transpose).collect()
    }

    /// One page of the partition's jobs, newest first, from `before` (a log entry id, exclusive) on. Looks at no more
    /// than `limit` log entries, so a page of a filtered listing may be short although more follow.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn list(
        &self,
        partition: u8,
        before: Option<&str>,
        limit: usize,
        filter: JobFilter,
    ) -> Result<JobPage, StoreError> {
        let mut command = redis::cmd("XREVRANGE");
        let end = before.map_or_else(|| "+".to_owned(), |entry| format!("({entry}"));
        command.arg(self.keys.log(partition)).arg(end).arg("-").arg("COUNT").arg(limit);
        let entries = entries_from(self.redis.run(&command).await?)?;
        let next = entries.last().filter(|_| entries.len() == limit).map(|(entry, _)| entry.clone());
        let ids: Vec<JobId> = entries.into_iter().map(|(_, id)| id).collect();
        let mut jobs = self.jobs(&ids).await?;
        jobs.retain(|job| filter.status.is_none_or(|status| job.status == status));
        Ok(JobPage { jobs, next })
    }

    /// A part of the log of all partitions, newest first, from `after` (exclusive) on. Reads about `2 * limit` entries,
    /// however many partitions there are, and gives 1 to `limit` of them unless the log ends.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn log(&self, after: Option<LogPlace>, limit: usize) -> Result<LogPage, StoreError> {
        let partitions: Vec<u8> = self.partitions().collect();
        let count = (2 * limit / partitions.len().max(1)).clamp(8.min(limit), limit.max(1));
        let mut pipeline = Pipeline::with_capacity(partitions.len());
        pipeline.ignore_errors();
        for partition in &partitions {
            let end = after.map_or_else(|| "+".to_owned(), |place| place.end_in(*partition));
            pipeline
                .cmd("XREVRANGE")
                .arg(self.keys.log(*partition))
                .arg(end)
                .arg("-")
                .arg("COUNT")
                .arg(count);
        }
        let mut logs = Vec::with_capacity(partitions.len());
        for (partition, outcome) in partitions.into_iter().zip(self.redis.run_all(&pipeline).await?) {
            logs.push(places_from(partition, outcome?)?);
        }
        Ok(merge(logs, count, limit))
    }

    /// The jobs as a listing shows them: without results. `None` for one that is gone.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn listed(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, StoreError> {
        // A field that no job has: its value is nil. Results may be large, and a page has many jobs.
        let fields = FIELDS.map(|field| if field == "result" { "" } else { field });
        let mut pipeline = Pipeline::with_capacity(ids.len());
        pipeline.ignore_errors();
        for id in ids {
            pipeline.cmd("HMGET").arg(self.keys.job(*id)).arg(&fields[..]);
        }
        let outcomes = self.redis.run_all(&pipeline).await?;
        ids.iter().zip(outcomes).map(|(id, outcome)| job_from(*id, outcome?)).collect()
    }

    /// Number of dead letters that the partition keeps.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn dead_letters(&self, partition: u8) -> Result<u64, StoreError> {
        let mut command = redis::cmd("XLEN");
        command.arg(self.keys.dead(partition));
        u64::from_redis_value(self.redis.run(&command).await?).map_err(parsing)
    }

    /// Time since the submission of the partition's oldest job that nobody runs; `None` when no job waits.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn oldest_waiting(&self, partition: u8) -> Result<Option<Duration>, StoreError> {
        let streams = self.keys.streams(partition);
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in &streams {
            pipeline.cmd("XPENDING").arg(stream).arg(GROUP);
            pipeline.cmd("XPENDING").arg(stream).arg(GROUP).arg("-").arg("+").arg(1).arg(WAITING);
        }
        let mut outcomes = self.redis.run_all(&pipeline).await?.into_iter();
        let mut oldest = Vec::new();
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors().cmd("TIME");
        for stream in &streams {
            let (Some(pending), Some(waiting)) = (outcomes.next(), outcomes.next()) else { break };
            oldest.extend(unless_group_missing(waiting)?.and_then(first_entry_ms));
            // Ended entries are deleted, so whatever is left behind the newest pending entry was never taken.
            let newest_pending = unless_group_missing(pending)?.and_then(newest_pending_entry);
            let start = newest_pending.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
            pipeline.cmd("XRANGE").arg(stream).arg(start).arg("+").arg("COUNT").arg(1);
        }
        let mut outcomes = self.redis.run_all(&pipeline).await?.into_iter();
        let time = outcomes.next().transpose()?.unwrap_or(Value::Nil);
        let (seconds, micros): (u64, u64) = redis::from_redis_value(time).map_err(parsing)?;
        for first in outcomes {
            oldest.extend(first_entry_ms(first?));
        }
        let now_ms = seconds * 1000 + micros / 1000;
        Ok(oldest.into_iter().min().map(|ms| Duration::from_millis(now_ms.saturating_sub(ms))))
    }

    /// How much work each priority of the partition holds, in the order of [`Priority::ALL`].
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn queue_state(&self, partition: u8) -> Result<[QueueState; 3], StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for stream in self.keys.streams(partition) {
            pipeline.cmd("XLEN").arg(&stream);
            pipeline.cmd("XPENDING").arg(&stream).arg(GROUP);
        }
        let mut outcomes = self.redis.run_all(&pipeline).await?.into_iter();
        let mut states = [QueueState::default(); 3];
        for state in &mut states {
            let (Some(length), Some(pending)) = (outcomes.next(), outcomes.next()) else { break };
            let length = u64::from_redis_value(length?).map_err(parsing)?;
            let (pending, waiting) = match pending {
                Ok(summary) => pending_from(summary)?,
                // No group yet: nothing was ever taken.
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

/// The total of the pending entries and the share of the consumer [`WAITING`], from the summary form of XPENDING.
fn pending_from(summary: Value) -> Result<(u64, u64), StoreError> {
    type Summary = (u64, Option<String>, Option<String>, Option<Vec<(String, u64)>>);
    let (total, _, _, consumers): Summary = redis::from_redis_value(summary).map_err(parsing)?;
    let waiting = consumers.unwrap_or_default().into_iter().find(|(consumer, _)| consumer == WAITING);
    Ok((total, waiting.map_or(0, |(_, count)| count)))
}

/// Entry ids and job ids of a log range.
fn entries_from(value: Value) -> Result<Vec<(String, JobId)>, StoreError> {
    type Entries = Vec<(String, Vec<(String, String)>)>;
    let entries: Entries = redis::from_redis_value(value).map_err(parsing)?;
    let parsed = entries.into_iter().filter_map(|(entry, fields)| {
        let id = fields.into_iter().find(|(field, _)| field == "id")?.1.parse().ok()?;
        Some((entry, id))
    });
    Ok(parsed.collect())
}

/// The same with the entry ids as places.
fn places_from(partition: u8, value: Value) -> Result<Vec<(LogPlace, JobId)>, StoreError> {
    let place = |(entry, id): (String, JobId)| Some((format!("{entry}-{partition}").parse().ok()?, id));
    Ok(entries_from(value)?.into_iter().filter_map(place).collect())
}

/// The newest `limit` entries of logs that were read for at most `count` entries each.
fn merge(logs: Vec<Vec<(LogPlace, JobId)>>, count: usize, limit: usize) -> LogPage {
    // Of a log that may go on, nothing is known past its last entry, and no other log may overtake it.
    let unread = logs.iter().filter(|log| log.len() >= count).filter_map(|log| log.last());
    let horizon = unread.map(|(place, _)| *place).max();
    let mut entries: Vec<_> = logs.into_iter().flatten().collect();
    entries.retain(|(place, _)| horizon.is_none_or(|horizon| *place >= horizon));
    entries.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
    let more = horizon.is_some() || entries.len() > limit;
    entries.truncate(limit);
    LogPage { entries, more }
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
fn newest_pending_entry(summary: Value) -> Option<String> {
    let Value::Array(parts) = summary else { return None };
    redis::from_redis_value(parts.into_iter().nth(2)?).ok()?
}

/// When the first entry of a reply of XRANGE or of XPENDING's long form was added: the first part of its id, Unix ms.
fn first_entry_ms(entries: Value) -> Option<u64> {
    let Value::Array(entries) = entries else { return None };
    let Some(Value::Array(entry)) = entries.into_iter().next() else { return None };
    let id: String = redis::from_redis_value(entry.into_iter().next()?).ok()?;
    id.split('-').next()?.parse().ok()
}

fn job_from(id: JobId, value: Value) -> Result<Option<Job>, StoreError> {
    let fields: Vec<Option<String>> = redis::from_redis_value(value).map_err(parsing)?;
    let mut fields = fields.into_iter();
    let mut next = || fields.next().flatten();
    let Some(status) = next() else { return Ok(None) };
    let status: JobStatus = status.parse().map_err(unreadable)?;
    let priority = next().map_or(Ok(Priority::Normal), |word| word.parse()).map_err(unreadable)?;
    let mut number = || next().and_then(|text| text.parse::<u64>().ok());
    let created_at_ms = number().unwrap_or_default();
    let (started_at_ms, finished_at_ms, next_attempt_at_ms) = (number(), number(), number());
    let (attempt, released) = (number().unwrap_or(0), number().unwrap_or(0));
    let (result, error, error_code, retry_of) = (next(), next(), next(), next());
    let (queue_deadline, run_deadline) = (next(), next());
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
        result,
        error,
        error_code,
        retry_of: retry_of.and_then(|text| text.parse().ok()),
        deadline_ms: deadline.and_then(|text| text.parse().ok()),
    }))
}

pub(super) fn parsing(error: redis::ParsingError) -> StoreError {
    StoreError::Protocol { script: "read", reason: error.to_string() }
}

fn unreadable(error: crate::job::UnknownWord) -> StoreError {
    StoreError::Protocol { script: "read", reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: u64, partition: u8) -> (LogPlace, JobId) {
        (LogPlace { ms, seq: 0, partition }, JobId::new(partition))
    }

    fn order(page: &LogPage) -> Vec<(u64, u8)> {
        page.entries.iter().map(|(place, _)| (place.ms, place.partition)).collect()
    }

    #[test]
    fn logs_are_merged_newest_first() {
        let page = merge(vec![vec![entry(5, 0), entry(1, 0)], vec![entry(5, 1), entry(3, 1)]], 8, 8);
        assert_eq!(order(&page), [(5, 1), (5, 0), (3, 1), (1, 0)]);
        assert!(!page.more);
    }

    #[test]
    fn nothing_older_than_the_unread_part_of_a_log_is_given() {
        let page = merge(vec![vec![entry(9, 0), entry(8, 0)], vec![entry(7, 1)]], 2, 8);
        assert_eq!(order(&page), [(9, 0), (8, 0)]);
        assert!(page.more);
    }

    #[test]
    fn a_place_goes_on_where_it_stopped_in_every_log() {
        let place: LogPlace = "5-2-1".parse().unwrap();
        assert_eq!([0, 1, 2].map(|partition| place.end_in(partition)), ["5-2", "(5-2", "(5-2"]);
        assert_eq!(place.to_string(), "5-2-1");
        assert_eq!("5-2".parse::<LogPlace>(), Err(NoLogPlace));
        assert_eq!("5-2-256".parse::<LogPlace>(), Err(NoLogPlace));
    }
}
