//! Notices jobs that Redis had and lost: with its data, by a failover, or because it dropped transactions. Two things are
//! compared, and neither costs a job a command. Each process remembers the last jobs that it acknowledged and looks them
//! up on each new connection; and the log of accepted jobs must never go back.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redis::{FromRedisValue as _, Pipeline, Value};

use super::{JobStore, reads::unreadable};
use crate::{
    job::JobId,
    queue::{error::StoreError, link::Generation},
};

/// Jobs remembered of each partition.
const REMEMBERED: usize = 64;
/// How far the clocks of two machines may be apart: a job that may expire so soon is not expected any more.
const MARGIN: Duration = Duration::from_secs(5);
/// Most commands of a pipeline.
const CHUNK: usize = 512;

/// How far the log of a partition has come. Neither number ever falls while Redis keeps its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMark {
    /// Jobs that were ever accepted, by whichever proxy.
    pub added: u64,
    /// Id of the newest entry that there ever was, its two parts.
    pub last: (u64, u64),
}

/// The furthest mark that was seen of each partition's log.
#[derive(Debug, Default)]
pub struct LogWatch {
    marks: HashMap<u8, LogMark>,
}

impl LogWatch {
    /// By how many entries the logs are short of what they had, if one went back.
    #[must_use]
    pub fn went_back(&self, logs: &[(u8, LogMark)]) -> Option<u64> {
        let short = logs.iter().filter_map(|(partition, now)| self.short_by(*partition, *now));
        short.reduce(u64::saturating_add)
    }

    /// The partitions whose logs do not have what they had, or nothing at all: acknowledged jobs may be gone as well.
    #[must_use]
    pub fn doubtful(&self, logs: &[(u8, LogMark)]) -> Vec<u8> {
        let is_doubtful =
            |(partition, now): &&(u8, LogMark)| now.added == 0 || self.short_by(*partition, *now).is_some();
        logs.iter().filter(is_doubtful).map(|(partition, _)| *partition).collect()
    }

    fn short_by(&self, partition: u8, now: LogMark) -> Option<u64> {
        let before = self.marks.get(&partition)?;
        let went_back = now.added < before.added || now.last < before.last;
        went_back.then(|| before.added.saturating_sub(now.added))
    }

    /// Remembers the logs as they are now.
    pub fn saw(&mut self, logs: &[(u8, LogMark)]) {
        self.marks.extend(logs.iter().copied());
    }
}

/// Jobs that were looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookedUp {
    /// Those that are gone although they cannot have expired.
    pub missing: u64,
    /// All that cannot have expired.
    pub of: u64,
}

/// What is known of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    jobs: LookedUp,
    log: Option<u64>,
}

impl Loss {
    /// The loss that these jobs and [`LogWatch::went_back`] prove, if they prove one.
    #[must_use]
    pub fn of(jobs: LookedUp, log: Option<u64>) -> Option<Self> {
        (jobs.missing > 0 || log.is_some()).then_some(Self { jobs, log })
    }

    /// At least so many jobs are gone.
    #[must_use]
    pub fn at_least(&self) -> u64 {
        self.jobs.missing.max(self.log.unwrap_or_default())
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LookedUp { missing, of } = self.jobs;
        write!(f, "at least {missing} of {of} remembered jobs are gone")?;
        match self.log {
            Some(entries) => write!(f, "; the log of accepted jobs went back by {entries} entries"),
            None => Ok(()),
        }
    }
}

/// The last acknowledged jobs of each partition. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged(Arc<Mutex<HashMap<u8, VecDeque<Remembered>>>>);

#[derive(Clone, Copy, Debug)]
struct Remembered {
    id: JobId,
    since: Instant,
    /// The newest connection on which Redis was known to have it.
    seen_on: Generation,
}

impl Acknowledged {
    /// Redis accepted these jobs on that connection, and their clients learn it.
    pub(super) fn add(&self, ids: impl Iterator<Item = JobId>, seen_on: Generation) {
        let (mut rings, since) = (self.lock(), Instant::now());
        for id in ids {
            let ring = rings.entry(id.partition()).or_default();
            if ring.len() == REMEMBERED {
                ring.pop_front();
            }
            ring.push_back(Remembered { id, since, seen_on });
        }
    }

    /// Those that were not seen on this connection yet, and all of doubtful partitions.
    fn due(&self, current: Generation, doubtful: &[u8]) -> Vec<Remembered> {
        let is_due = |job: &&Remembered| job.seen_on != current || doubtful.contains(&job.id.partition());
        self.lock().values().flatten().filter(is_due).copied().collect()
    }

    /// Forgets what is gone, and notes that the others were seen on that connection.
    fn looked_up(&self, jobs: &HashMap<JobId, bool>, seen_on: Generation) {
        for ring in self.lock().values_mut() {
            ring.retain(|job| jobs.get(&job.id) != Some(&false));
            let seen = ring.iter_mut().filter(|job| jobs.contains_key(&job.id));
            seen.for_each(|job| job.seen_on = seen_on);
        }
    }

    /// Each critical section leaves the map whole, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<u8, VecDeque<Remembered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobStore {
    /// Looks up the last jobs that this process acknowledged and has not seen on the present connection, and all of the
    /// `doubtful` partitions. Without such jobs, Redis is not asked. What is gone is forgotten; after a failure all are
    /// looked up again.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn look_up_acknowledged(&self, doubtful: &[u8]) -> Result<LookedUp, StoreError> {
        let redis = self.submissions();
        let due = self.acknowledged.due(redis.generation()?, doubtful);
        let (mut exists, mut oldest) = (HashMap::with_capacity(due.len()), Generation::MAX);
        for jobs in due.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(jobs.len());
            pipeline.ignore_errors();
            for job in jobs {
                pipeline.cmd("HGET").arg(self.keys.job(job.id)).arg("status");
            }
            let (generation, outcomes) = redis.run_all_on(&pipeline).await?;
            oldest = oldest.min(generation);
            for (job, status) in jobs.iter().zip(outcomes) {
                exists.insert(job.id, status? != Value::Nil);
            }
        }
        self.acknowledged.looked_up(&exists, oldest);
        let expected: Vec<_> = due.iter().filter(|job| self.must_exist(job.id, job.since)).collect();
        let missing = expected.iter().filter(|job| exists.get(&job.id) == Some(&false)).count();
        Ok(LookedUp { missing: missing as u64, of: expected.len() as u64 })
    }

    /// Whether Redis must still have a job that it had at `since`: a job is kept for [`Policy::result_ttl`](crate::queue::Policy::result_ttl) after
    /// its end. Judged by two clocks, of which one may have stood still or jumped.
    #[must_use]
    pub fn must_exist(&self, id: JobId, since: Instant) -> bool {
        let created = UNIX_EPOCH + Duration::from_millis(id.created_ms());
        let age = SystemTime::now().duration_since(created).unwrap_or_default();
        age.max(since.elapsed()) + MARGIN < self.policy.result_ttl
    }

    /// How far the partition's log has come.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn log_mark(&self, partition: u8) -> Result<LogMark, StoreError> {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(self.keys.log(partition));
        log_mark_from(self.redis.run(&command).await)
    }
}

/// From the reply of XINFO STREAM.
pub(super) fn log_mark_from(reply: Result<Value, StoreError>) -> Result<LogMark, StoreError> {
    let info: HashMap<String, Value> = match reply {
        Ok(info) => redis::from_redis_value(info).map_err(unreadable)?,
        Err(error) if error.is_missing_key() => return Ok(LogMark::default()),
        Err(error) => return Err(error),
    };
    let field = |name: &str| {
        info.get(name).ok_or_else(|| StoreError::Protocol {
            script: "read",
            reason: format!("the reply of XINFO STREAM has no `{name}`"),
        })
    };
    let added = u64::from_redis_value_ref(field("entries-added")?).map_err(unreadable)?;
    let last = String::from_redis_value_ref(field("last-generated-id")?).map_err(unreadable)?;
    let parts = last.split_once('-').and_then(|(ms, seq)| Some((ms.parse().ok()?, seq.parse().ok()?)));
    let last = parts.ok_or_else(|| StoreError::Protocol {
        script: "read",
        reason: format!("`{last}` is not the id of a stream entry"),
    })?;
    Ok(LogMark { added, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(added: u64, ms: u64) -> LogMark {
        LogMark { added, last: (ms, 0) }
    }

    #[test]
    fn a_log_that_goes_back_is_a_loss_and_a_new_partition_is_none() {
        let mut watch = LogWatch::default();
        watch.saw(&[(0, mark(5, 50))]);
        assert_eq!(watch.went_back(&[(0, mark(5, 50)), (1, mark(0, 0))]), None);
        assert_eq!(watch.went_back(&[(0, mark(6, 60))]), None);
        assert_eq!(watch.went_back(&[(0, mark(2, 60))]), Some(3), "fewer entries");
        assert_eq!(watch.doubtful(&[(0, mark(2, 60)), (1, mark(0, 0)), (2, mark(1, 1))]), [0, 1]);
        assert_eq!(watch.went_back(&[(0, mark(5, 40))]), Some(0), "other entries");

        watch.saw(&[(0, mark(2, 60))]);
        assert_eq!(watch.went_back(&[(0, mark(2, 60))]), None, "reported once");
    }

    #[test]
    fn the_last_jobs_of_each_partition_are_remembered_and_looked_up_once_a_connection() {
        let acknowledged = Acknowledged::default();
        let ids: Vec<_> = (0..100).map(|_| JobId::new(0)).collect();
        acknowledged.add(ids.iter().copied().chain([JobId::new(1)]), 1);

        assert!(acknowledged.due(1, &[]).is_empty());
        assert_eq!(acknowledged.due(1, &[0, 1]).len(), REMEMBERED + 1);
        let due = acknowledged.due(2, &[]);
        let of_first: Vec<_> = due.iter().map(|job| job.id).filter(|id| id.partition() == 0).collect();
        assert_eq!(of_first, ids[100 - REMEMBERED..]);

        // One is gone; one was acknowledged on the old connection meanwhile.
        let exists = due.iter().map(|job| (job.id, job.id != ids[99])).collect();
        let late = JobId::new(1);
        acknowledged.add([late].into_iter(), 1);
        acknowledged.looked_up(&exists, 2);

        assert_eq!(acknowledged.due(2, &[0, 1]).len(), REMEMBERED + 1);
        assert_eq!(acknowledged.due(2, &[]).iter().map(|job| job.id).collect::<Vec<_>>(), [late]);
    }

    #[test]
    fn a_loss_names_its_numbers() {
        let jobs = LookedUp { missing: 3, of: 64 };
        assert_eq!(Loss::of(LookedUp { missing: 0, of: 64 }, None), None);
        let loss = Loss::of(jobs, None).unwrap();
        assert_eq!(loss.to_string(), "at least 3 of 64 remembered jobs are gone");
        let loss = Loss::of(jobs, Some(9)).unwrap();
        assert_eq!(loss.at_least(), 9);
        assert!(loss.to_string().ends_with("; the log of accepted jobs went back by 9 entries"));
    }
}
