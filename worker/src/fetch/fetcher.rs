//! The fetcher: claims jobs for a lane.
//!
//! A busy lane calls `take`, which claims new jobs and jobs that are due again (retries, jobs of lost workers), as many as a call may
//! hold. When it finds none, the lane waits for the [reader](crate::fetch::reader) of the process. While suspects are expected, the
//! fetcher claims jobs one at a time, see [`Quarantine`].

use std::{mem, sync::Arc, time::Duration};

use tepal_shared::{
    job::{Delivery, ModelName},
    queue::{
        error::StoreError,
        work::{TakeRequest, Work},
    },
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    fetch::{
        granted::record,
        positions::Positions,
        quarantine::{Quarantine, Turn},
        reader::{Arrivals, Wait},
        settings::FetchSettings,
    },
    run::{batch::Limits, breaker::Breaker},
};

/// Most jobs of one take: its script then runs well below 5 ms.
const MOST_JOBS: usize = 256;
/// A worker that may not run a suspect releases it within a few milliseconds.
const SUSPECT_RELEASED_WITHIN: Duration = Duration::from_millis(100);
/// Pause between two searches for a suspect.
const SUSPECT_PAUSE: Duration = Duration::from_millis(5);

/// Claims jobs for one lane.
pub struct Fetcher {
    /// The consumer of the process.
    pub consumer: Arc<str>,
    /// The model whose jobs it claims.
    pub model: ModelName,
    /// The queue.
    pub work: Work,
    /// The reader of the process.
    pub arrivals: Arrivals,
    /// The quarantine of the lane.
    pub quarantine: Quarantine,
    /// The breaker of the lane.
    pub breaker: Breaker,
    /// Settings.
    pub settings: FetchSettings,
    /// Limits of a take.
    pub limits: Limits,
    /// What it remembers of earlier takes.
    pub memory: Memory,
}

/// What a fetcher remembers of earlier takes.
pub struct Memory {
    /// Whether the last jobs arrived while nothing else waited.
    has_waited: bool,
    /// Average rows of a job in the last take.
    rows_per_job: usize,
    positions: Positions,
}

impl Memory {
    /// Nothing, in a queue of so many partitions.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        Self { has_waited: false, rows_per_job: 1, positions: Positions::new(partitions) }
    }
}

impl Fetcher {
    /// Claims as many jobs as one call may hold, if they have as many rows as the last ones. Returns none if none waits.
    ///
    /// # Errors
    /// Any [`StoreError`], if it is the reason for claiming no jobs.
    pub async fn take(&mut self) -> Result<Vec<Delivery>, StoreError> {
        let deliveries = match self.quarantine.expects_suspects() {
            true => self.take_carefully().await?,
            false => self.take_from_any(self.most_jobs()).await?,
        };
        self.memory.has_waited = deliveries.is_empty();
        Ok(deliveries)
    }

    /// Claims jobs in a turn alone. A suspect that is not there may be about to be released by another worker, which waits for a turn
    /// alone, too. If this lane gave up at once, the workers could claim and release the suspect in turn for ever.
    ///
    /// # Errors
    /// As for [`Fetcher::take`].
    pub async fn take_alone(&mut self) -> Result<Vec<Delivery>, StoreError> {
        let end = Instant::now() + SUSPECT_RELEASED_WITHIN;
        loop {
            let deliveries = self.take().await?;
            if !deliveries.is_empty() || Instant::now() >= end {
                return Ok(deliveries);
            }
            sleep(SUSPECT_PAUSE).await;
        }
    }

    /// Waits until jobs arrive. Returns none if the lane has to do something else first. Never cancel it: see [`Arrivals::next`].
    pub async fn wait(&mut self, turn: Turn, stop: &CancellationToken) -> Option<(Vec<Delivery>, Turn)> {
        let wait = Wait {
            model: self.model,
            turn,
            positions: mem::take(&mut self.memory.positions),
            limit: self.most_jobs(),
            breaker: self.breaker.clone(),
            stop: stop.clone(),
            is_brief: self.quarantine.expects_suspects(),
        };
        let arrived = self.arrivals.next(wait).await;
        let Some(arrived) = arrived else {
            self.memory.positions = Positions::new(self.work.queue().policy().partitions);
            return None;
        };
        self.memory.positions = arrived.positions;
        Some((arrived.deliveries, arrived.turn))
    }

    /// Waits for more jobs if they do not fill a call, as long as the settings allow.
    pub async fn fill(&mut self, deliveries: &mut Vec<Delivery>) {
        let may_wait = !self.settings.batch_max_wait.is_zero() && deliveries.len() < self.most_jobs();
        if may_wait && deliveries.first().is_some_and(|first| !first.attempt.is_suspect()) {
            tokio::time::sleep(self.settings.batch_max_wait).await;
            self.take_more(deliveries).await;
        }
    }

    /// Whether the last jobs arrived while nothing else waited.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.memory.has_waited
    }

    /// Records how large the jobs were. Without it, one worker would claim hundreds of large jobs, more than it can run at a
    /// time, while others are idle.
    pub fn note_rows(&mut self, jobs: usize, rows: usize) {
        if jobs > 0 {
            self.memory.rows_per_job = rows.div_ceil(jobs).max(1);
        }
    }

    fn most_jobs(&self) -> usize {
        (self.limits.rows / self.memory.rows_per_job).clamp(1, MOST_JOBS)
    }

    /// Claims one job, and more if it is no suspect. Suspects are expected until all pending entries have been searched.
    async fn take_carefully(&mut self) -> Result<Vec<Delivery>, StoreError> {
        for _ in 0..self.memory.positions.count() {
            let partition = self.memory.positions.next_partition();
            loop {
                let mut deliveries = self.take_in(partition, 1, self.limits.bytes).await?;
                let position = self.memory.positions.of(partition);
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
                if is_searched {
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
        let more = self.take_in(first.attempt.claim.job_id.partition(), limit, max_bytes).await;
        // Return the claimed jobs, not the error of the second call.
        deliveries.extend(more.unwrap_or_default());
    }

    /// Claims from the first partition that has jobs, starting after the partition of the last take.
    async fn take_from_any(&mut self, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        for _ in 0..self.memory.positions.count() {
            let partition = self.memory.positions.next_partition();
            let deliveries = self.take_in(partition, limit, self.limits.bytes).await?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
        }
        Ok(Vec::new())
    }

    async fn take_in(
        &mut self,
        partition: u8,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let position = self.memory.positions.of(partition);
        let expects_suspects = self.quarantine.expects_suspects();
        let searches_due = expects_suspects || position.is_due(self.settings.reclaim_interval);
        if !expects_suspects {
            position.restart_search();
        }
        let streams = position.next_order(self.model);
        let due_from = searches_due.then(|| position.due_from(streams));
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
            position.searched_to(streams, &granted.cursors);
        }
        Ok(record(granted))
    }
}
