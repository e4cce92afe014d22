//! Notices jobs that Redis had and lost: with its data, by a failover, or because it dropped transactions. The log of accepted
//! jobs must never go back, and jobs that a process remembers must exist.

use std::{collections::HashMap, fmt};

use redis::{FromRedisValue as _, Value};

use crate::queue::{error::StoreError, handle::Queue};

/// The end of the log of a partition. Neither number decreases while Redis keeps its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMark {
    /// Number of jobs ever accepted, by all proxies.
    pub added: u64,
    /// Id of the newest entry ever added, in its two parts.
    pub last: (u64, u64),
}

/// The last known end of each partition's log.
#[derive(Debug, Default)]
pub struct LogWatch {
    marks: HashMap<u8, LogMark>,
}

impl LogWatch {
    /// The number of entries that the logs lost, if a log went back.
    #[must_use]
    pub fn went_back(&self, logs: &[(u8, LogMark)]) -> Option<u64> {
        let short = logs.iter().filter_map(|(partition, now)| self.short_by(*partition, *now));
        short.reduce(u64::saturating_add)
    }

    /// The partitions whose logs went back or are empty: acknowledged jobs may be gone, too.
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

    /// Remembers the present ends of the logs.
    pub fn saw(&mut self, logs: &[(u8, LogMark)]) {
        self.marks.extend(logs.iter().copied());
    }
}

/// The result of a lookup of acknowledged jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookedUp {
    /// Jobs that are gone although they cannot have expired.
    pub missing: u64,
    /// Jobs that cannot have expired.
    pub of: u64,
}

/// Evidence of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    jobs: LookedUp,
    log: Option<u64>,
}

impl Loss {
    /// The loss that this lookup and [`LogWatch::went_back`] prove, if they prove one.
    #[must_use]
    pub fn of(jobs: LookedUp, log: Option<u64>) -> Option<Self> {
        (jobs.missing > 0 || log.is_some()).then_some(Self { jobs, log })
    }

    /// Lower bound of the number of lost jobs.
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

impl Queue {
    /// The end of the partition's log.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub(super) async fn log_mark(&self, partition: u8) -> Result<LogMark, StoreError> {
        let mut command = redis::cmd("XINFO");
        command.arg("STREAM").arg(self.keys.log(partition));
        log_mark_from(self.primary(partition).run(&command).await)
    }
}

/// Reads a reply of XINFO STREAM.
pub(super) fn log_mark_from(reply: Result<Value, StoreError>) -> Result<LogMark, StoreError> {
    let info: HashMap<String, Value> = match reply {
        Ok(info) => redis::from_redis_value(info).map_err(StoreError::unread)?,
        Err(error) if error.is_missing_key() => return Ok(LogMark::default()),
        Err(error) => return Err(error),
    };
    let field = |name: &str| {
        info.get(name).ok_or_else(|| StoreError::Protocol {
            script: "read",
            reason: format!("the reply of XINFO STREAM has no `{name}`"),
        })
    };
    let added = u64::from_redis_value_ref(field("entries-added")?).map_err(StoreError::unread)?;
    let last = String::from_redis_value_ref(field("last-generated-id")?).map_err(StoreError::unread)?;
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
