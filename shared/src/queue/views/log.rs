//! Reads the log of accepted jobs, for listings.

use redis::Value;

use crate::{
    job::JobId,
    queue::{error::StoreError, views::handle::Views},
};

/// A place in the logs of all partitions. A listing reads them together, newest first: by falling `(ms, seq, partition)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// First part of the log entry's id, Unix ms: when the job was accepted, or later, see `lua/accept.lua`.
    pub ms: u64,
    /// Second part of the log entry's id: distinguishes entries of one millisecond.
    pub seq: u64,
    /// The partition of the log.
    pub partition: u8,
}

impl LogPlace {
    /// The place of the entry with this id, `<ms>-<seq>`.
    fn of_entry(id: &str, partition: u8) -> Option<Self> {
        let (ms, seq) = id.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()?, partition })
    }

    /// The place as bytes of a fixed length.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [self.partition; 17];
        bytes[..8].copy_from_slice(&self.ms.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    /// The place that [`LogPlace::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 17]) -> Self {
        let [ms @ .., partition] = bytes;
        let both = u128::from_be_bytes(ms);
        Self { ms: (both >> 64) as u64, seq: both as u64, partition }
    }

    /// Upper end for XREVRANGE, with which the log of a partition continues after this place.
    fn end_in(self, partition: u8) -> String {
        // Of two entries with the same id, the one in the higher partition comes first. No entry has the id 0-0, and Redis
        // refuses a range that ends before it.
        let is_first = (self.ms, self.seq) == (0, 0);
        let exclusive = if partition < self.partition || is_first { "" } else { "(" };
        format!("{exclusive}{}-{}", self.ms, self.seq)
    }
}

/// An accepted job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the log.
    pub place: LogPlace,
    /// The job. It may have expired since.
    pub id: JobId,
    /// Owner of the job; `None` = no owner.
    pub owner: Option<String>,
}

/// Accepted jobs of all partitions, newest first.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// The entries, newest first.
    pub entries: Vec<LogEntry>,
    /// Whether there may be more entries after the last one.
    pub more: bool,
}

/// Ids may be ahead of the clock by this much without a note: `AHEAD` in `lua/accept.lua`, ms.
const UNNOTED: u64 = 1000;

impl Views {
    /// The place at which a listing of jobs accepted before a time, Unix ms, begins. All of them are at or after this place.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn log_before(&self, before_ms: u64) -> Result<LogPlace, StoreError> {
        let calls = self.queue.partitions().map(|partition| {
            let mut command = redis::cmd("GET");
            command.arg(self.queue.keys.log_ahead(partition));
            (partition, command)
        });
        let calls = calls.collect();
        let mut ms = before_ms.saturating_add(UNNOTED);
        for note in self.queue.ask(calls).await {
            let note: Option<String> = redis::from_redis_value(note?).map_err(StoreError::unread)?;
            let times = note.as_deref().and_then(|note| note.split_once(' '));
            let times = times.and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse().ok()?)));
            if let Some((_, to)) = times.filter(|(from, _)| *from < before_ms) {
                ms = ms.max(to);
            }
        }
        Ok(LogPlace { ms, seq: u64::MAX, partition: u8::MAX })
    }

    /// Reads a part of the logs of all partitions, newest first, after the place `after`. Reads about `2 * limit` entries, for any
    /// number of partitions, and returns 1 to `limit` of them, or none at the end of the log.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn log(&self, after: Option<LogPlace>, limit: usize) -> Result<LogPage, StoreError> {
        let partitions: Vec<u8> = self.queue.partitions().collect();
        let count = (2 * limit / partitions.len().max(1)).clamp(8.min(limit), limit.max(1));
        let calls = partitions.iter().map(|partition| {
            let end = after.map_or_else(|| "+".to_owned(), |place| place.end_in(*partition));
            let mut command = redis::cmd("XREVRANGE");
            command.arg(self.queue.keys.log(*partition)).arg(end).arg("-").arg("COUNT").arg(count);
            (*partition, command)
        });
        let calls = calls.collect();
        let mut logs = Vec::with_capacity(partitions.len());
        for (partition, outcome) in partitions.into_iter().zip(self.queue.ask(calls).await) {
            logs.push(places_from(partition, outcome?)?);
        }
        Ok(merge(logs, count, limit))
    }
}

/// Reads the entries of a log range. An entry that cannot be read is skipped.
pub(super) fn places_from(partition: u8, value: Value) -> Result<Vec<LogEntry>, StoreError> {
    type Fields = Vec<(String, Vec<u8>)>;
    let entries: Vec<(String, Fields)> = redis::from_redis_value(value).map_err(StoreError::unread)?;
    let entry = |(place, fields): (String, Fields)| {
        let (mut id, mut owner) = (None, None);
        for (field, value) in fields {
            match field.as_str() {
                "id" => id = JobId::from_bytes(&value).ok(),
                "owner" => owner = Some(String::from_utf8_lossy(&value).into_owned()),
                _ => {}
            }
        }
        Some(LogEntry { place: LogPlace::of_entry(&place, partition)?, id: id?, owner })
    };
    Ok(entries.into_iter().filter_map(entry).collect())
}

/// The newest `limit` entries of logs that were read for at most `count` entries each.
fn merge(logs: Vec<Vec<LogEntry>>, count: usize, limit: usize) -> LogPage {
    // What follows the last entry of a log that may continue is unknown. So no entry of another log behind that place is returned.
    let unread = logs.iter().filter(|log| log.len() >= count).filter_map(|log| log.last());
    let horizon = unread.map(|entry| entry.place).max();
    let mut entries: Vec<_> = logs.into_iter().flatten().collect();
    entries.retain(|entry| horizon.is_none_or(|horizon| entry.place >= horizon));
    entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.place));
    let more = horizon.is_some() || entries.len() > limit;
    entries.truncate(limit);
    LogPage { entries, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: u64, partition: u8) -> LogEntry {
        LogEntry { place: LogPlace { ms, seq: 0, partition }, id: JobId::new(partition), owner: None }
    }

    fn order(page: &LogPage) -> Vec<(u64, u8)> {
        page.entries.iter().map(|entry| (entry.place.ms, entry.place.partition)).collect()
    }

    #[test]
    fn logs_are_merged_newest_first() {
        let page = merge(vec![vec![entry(5, 0), entry(1, 0)], vec![entry(5, 1), entry(3, 1)]], 8, 8);
        assert_eq!(order(&page), [(5, 1), (5, 0), (3, 1), (1, 0)]);
        assert!(!page.more);
    }

    #[test]
    fn nothing_older_than_the_unread_part_of_a_log_is_returned() {
        let page = merge(vec![vec![entry(9, 0), entry(8, 0)], vec![entry(7, 1)]], 2, 8);
        assert_eq!(order(&page), [(9, 0), (8, 0)]);
        assert!(page.more);
    }

    #[test]
    fn a_place_goes_on_where_it_stopped_in_every_log() {
        let place = LogPlace::of_entry("5-2", 1).unwrap();
        assert_eq!([0, 1, 2].map(|partition| place.end_in(partition)), ["5-2", "(5-2", "(5-2"]);
        assert_eq!(LogPlace { ms: 0, seq: 0, partition: 0 }.end_in(3), "0-0");
        assert_eq!(place, LogPlace { ms: 5, seq: 2, partition: 1 });
        assert!(["5", "5-", "-2", "5-2-1"].iter().all(|id| LogPlace::of_entry(id, 1).is_none()));
    }

    #[test]
    fn a_place_reads_as_it_was_written() {
        for (ms, seq, partition) in [(0, 0, 0), (1, 2, 3), (u64::MAX, 0, 7), (0, u64::MAX, u8::MAX)] {
            let place = LogPlace { ms, seq, partition };
            assert_eq!(LogPlace::from_bytes(place.to_bytes()), place);
        }
    }
}
