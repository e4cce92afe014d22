//! The fetcher: claims jobs for a consumer.
//!
//! A busy consumer calls `take`, which claims new jobs and jobs that are due again (retries, jobs of lost workers), as many as
//! a call may hold. An idle consumer blocks on the streams and starts the jobs that arrive. A blocking read is only a wake-up;
//! `take` claims everything else. While suspects are expected, the fetcher claims jobs one at a time, see [`Quarantine`].

use std::time::Instant;

use tepal_shared::{
    job::{Delivery, ModelName, Priority, Stream},
    process::telemetry,
    queue::{
        error::StoreError,
        work::{BlockingReader, Granted, TakeRequest, Work},
    },
};
use tracing::{info, warn};

use crate::{
    fetch::{quarantine::Quarantine, settings::FetchSettings},
    metrics,
    run::batch::Limits,
};

/// Most jobs of one take: its script then runs well below 5 ms.
const MOST_JOBS: usize = 256;
/// The order in which the streams are read, take by take: high is first in eleven of sixteen takes, normal in three and low
/// in two. So a saturated high priority leaves shares of 19 and 12 per cent to the others.
const ORDERS: [[Priority; 3]; 16] = {
    use Priority::{High, Low, Normal};
    let mut orders = [[High, Normal, Low]; 16];
    orders[2] = [Normal, High, Low];
    orders[5] = [Low, High, Normal];
    orders[7] = [Normal, High, Low];
    orders[10] = [Normal, High, Low];
    orders[13] = [Low, High, Normal];
    orders
};

/// Claims jobs for one consumer.
pub struct Fetcher {
    consumer: String,
    model: ModelName,
    work: Work,
    reader: BlockingReader,
    quarantine: Quarantine,
    settings: FetchSettings,
    limits: Limits,
    /// Whether the last jobs arrived while nothing else waited.
    has_waited: bool,
    /// Average rows of a job in the last take.
    rows_per_job: usize,
    /// The partition of the next take.
    partition: u8,
    /// One for each partition.
    positions: Vec<Position>,
}

/// How far the searches of a consumer have come in a partition.
#[derive(Clone, Debug)]
struct Position {
    /// Number of takes; decides the order of the streams.
    takes: usize,
    /// When a take last searched for entries that are due again.
    due_at: Option<Instant>,
    /// Where the next search continues in the stream of each priority; `0-0` = at the oldest entry.
    due_from: [String; 3],
    /// How far the search for suspects has come in each stream.
    searched: [Search; 3],
}

/// A search of all pending entries of a stream. With many entries it takes several calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Search {
    /// No call has started at the oldest entry yet.
    Wanted,
    Begun,
    Ended,
}

const OLDEST: &str = "0-0";

impl Position {
    fn new() -> Self {
        Self {
            takes: 0,
            due_at: None,
            due_from: [OLDEST; 3].map(str::to_owned),
            searched: [Search::Wanted; 3],
        }
    }

    /// A call searched for due entries as far as `cursors`, in this order of the streams.
    fn searched_to(&mut self, order: [Priority; 3], found: Vec<String>) {
        let mut cursors = self.due_from.clone();
        for (priority, cursor) in order.into_iter().zip(found) {
            cursors[place(priority)] = cursor;
        }
        for (search, (from, to)) in self.searched.iter_mut().zip(self.due_from.iter().zip(&cursors)) {
            if *search == Search::Wanted && from == OLDEST {
                *search = Search::Begun;
            }
            if *search == Search::Begun && to == OLDEST {
                *search = Search::Ended;
            }
        }
        (self.due_at, self.due_from) = (Some(Instant::now()), cursors);
    }

    /// Whether the last search for due entries had enough jobs before it reached the end.
    fn is_unfinished(&self) -> bool {
        self.due_from.iter().any(|from| from != OLDEST)
    }

    fn is_searched(&self) -> bool {
        self.searched == [Search::Ended; 3]
    }

    fn restart_search(&mut self) {
        self.searched = [Search::Wanted; 3];
    }
}

/// The place of a priority in [`Priority::ALL`].
fn place(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

impl Fetcher {
    /// Claims jobs of a model for `consumer`.
    #[must_use]
    pub fn new(
        consumer: String,
        model: ModelName,
        settings: FetchSettings,
        limits: Limits,
        work: Work,
        quarantine: Quarantine,
    ) -> Self {
        let partitions = usize::from(work.queue().policy().partitions);
        Self {
            reader: BlockingReader::new(
                work.clone(),
                consumer.clone(),
                Stream::all_of(model).into(),
                settings.reclaim_interval,
                // A blocking read may deliver to all partitions at the same time.
                limits.bytes.div_ceil(partitions.max(1)),
            ),
            consumer,
            model,
            work,
            quarantine,
            settings,
            limits,
            has_waited: false,
            rows_per_job: 1,
            partition: 0,
            positions: vec![Position::new(); partitions],
        }
    }

    /// Claims as many jobs as one call may hold, if they have as many rows as the last ones. Returns none if nothing arrived
    /// for a while. Never cancel it: see [`Reader`].
    ///
    /// # Errors
    /// Any [`StoreError`], if it is the reason for claiming no jobs.
    pub async fn next(&mut self) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = match self.quarantine.expects_suspects() {
            true => self.take_carefully().await?,
            false => self.take_from_any(self.most_jobs()).await?,
        };
        self.has_waited = deliveries.is_empty();
        if self.has_waited {
            deliveries = self.wait_for_new().await?;
        }
        let may_wait = !self.settings.batch_max_wait.is_zero() && deliveries.len() < self.most_jobs();
        if may_wait && deliveries.first().is_some_and(|first| !first.attempt.is_suspect()) {
            tokio::time::sleep(self.settings.batch_max_wait).await;
            self.take_more(&mut deliveries).await;
        }
        Ok(deliveries)
    }

    /// Whether the last jobs arrived while nothing else waited.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.has_waited
    }

    /// Records how large the jobs were. Without it, one worker would claim hundreds of large jobs, more than it can run at a
    /// time, while others are idle.
    pub fn note_rows(&mut self, jobs: usize, rows: usize) {
        if jobs > 0 {
            self.rows_per_job = rows.div_ceil(jobs).max(1);
        }
    }

    fn most_jobs(&self) -> usize {
        (self.limits.rows / self.rows_per_job).clamp(1, MOST_JOBS)
    }

    /// Claims one job, and more if it is no suspect. Suspects are expected until all pending entries have been searched.
    async fn take_carefully(&mut self) -> Result<Vec<Delivery>, StoreError> {
        for _ in 0..self.positions.len() {
            let partition = self.next_partition();
            loop {
                let mut deliveries = self.take(partition, 1, self.limits.bytes).await?;
                let position = &mut self.positions[usize::from(partition)];
                let has_suspect = deliveries.iter().any(|delivery| delivery.attempt.is_suspect());
                let is_searched = position.is_searched();
                if has_suspect || is_searched {
                    position.restart_search();
                }
                if has_suspect {
                    return Ok(deliveries);
                }
                if !deliveries.is_empty() {
                    if is_searched {
                        self.quarantine.found_none();
                    }
                    self.take_more(&mut deliveries).await;
                    return Ok(deliveries);
                }
                // Another consumer of the process may have searched everything, too.
                if is_searched || !self.quarantine.expects_suspects() {
                    break;
                }
            }
        }
        self.quarantine.found_none();
        Ok(Vec::new())
    }

    /// Fills up a batch that has a job in it.
    async fn take_more(&mut self, deliveries: &mut Vec<Delivery>) {
        let Some(first) = deliveries.first() else { return };
        let limit = self.most_jobs().saturating_sub(deliveries.len());
        let bytes: usize = deliveries.iter().map(|delivery| delivery.input.len()).sum();
        let max_bytes = self.limits.bytes.saturating_sub(bytes);
        if limit == 0 || max_bytes == 0 {
            return;
        }
        let more = self.take(first.attempt.claim.job_id.partition(), limit, max_bytes).await;
        // Return the claimed jobs, not the error of the second call.
        deliveries.extend(more.unwrap_or_default());
    }

    /// Claims from the first partition that has jobs, starting after the partition of the last take.
    async fn take_from_any(&mut self, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        for _ in 0..self.positions.len() {
            let partition = self.next_partition();
            let deliveries = self.take(partition, limit, self.limits.bytes).await?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
        }
        Ok(Vec::new())
    }

    fn next_partition(&mut self) -> u8 {
        let partition = self.partition;
        self.partition = ((usize::from(partition) + 1) % self.positions.len()) as u8;
        partition
    }

    async fn take(
        &mut self,
        partition: u8,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let position = &mut self.positions[usize::from(partition)];
        let is_due = position.due_at.is_none_or(|at| at.elapsed() >= self.settings.reclaim_interval)
            || position.is_unfinished();
        let searches_due = is_due || self.quarantine.expects_suspects();
        if !self.quarantine.expects_suspects() {
            position.restart_search();
        }
        position.takes = position.takes.wrapping_add(1);
        let order = ORDERS[position.takes % ORDERS.len()];
        let streams = order.map(|priority| Stream { model: self.model, priority });
        let due_from = searches_due.then(|| order.map(|priority| position.due_from[place(priority)].clone()));
        let request = TakeRequest {
            partition,
            consumer: &self.consumer,
            streams: &streams,
            limit,
            max_bytes,
            due_from: due_from.as_ref().map(<[String; 3]>::as_slice),
        };
        let granted = self.work.take(&request).await?;
        if searches_due {
            position.searched_to(order, granted.cursors.clone());
        }
        Ok(self.record(granted))
    }

    async fn wait_for_new(&mut self) -> Result<Vec<Delivery>, StoreError> {
        let started = match self.reader.read().await {
            Ok(started) => started,
            // The next take creates the missing group.
            Err(StoreError::GroupMissing(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let (mut deliveries, mut failed) = (Vec::new(), None);
        for granted in started {
            match granted {
                Ok(granted) => deliveries.extend(self.record(granted)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if deliveries.is_empty() => return Err(error),
            // The claimed jobs run; the next read starts the others.
            Some(error) => {
                warn!(action = "take_failed", consumer = self.consumer, error = telemetry::chain(&error));
            }
            None => {}
        }
        Ok(deliveries)
    }

    /// Counts and logs everything that a claim found. Returns the granted jobs.
    fn record(&self, granted: Granted) -> Vec<Delivery> {
        metrics::granted(&granted);
        for (job_id, code) in &granted.ended {
            warn!(action = "prediction_failed", %job_id, code);
        }
        if granted.groups_created > 0 {
            info!(action = "groups_created", count = granted.groups_created);
        }
        if granted.reclaimed > 0 || granted.stale > 0 {
            info!(action = "entries_reclaimed", lapsed = granted.reclaimed, stale = granted.stale);
        }
        granted.deliveries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_priority_comes_first_often_enough() {
        let first = |priority| ORDERS.iter().filter(|order| order[0] == priority).count();
        assert_eq!(Priority::ALL.map(first), [11, 3, 2]);
    }

    #[test]
    fn every_take_reads_each_stream_once() {
        for order in ORDERS {
            assert!(Priority::ALL.iter().all(|priority| order.contains(priority)));
        }
    }
}
