//! The fetcher: claims jobs for a lane.
//!
//! A busy lane calls `take`, which claims new jobs and jobs that are due again (retries, jobs of lost workers), as many as a call may
//! hold. When it finds none, the lane waits for the [reader](crate::fetch::reader) of the process. While suspects are expected, the
//! fetcher claims jobs one at a time, see [`Quarantine`].
//!
//! A failure of Redis is no reason for a lane to pause: it waits like an idle lane. The reader asks the partition again and again.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tepal_shared::{
    job::{Delivery, ModelName, Stream},
    process::telemetry,
    queue::{
        error::StoreError,
        work::{Granted, TakeRequest, Work},
    },
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    fetch::{
        arrivals::{Arrivals, Arrived},
        granted::record,
        positions::Positions,
        quarantine::{Quarantine, Turn},
        settings::FetchSettings,
    },
    run::{batch::Limits, breaker::Breaker, limiter::Limiter},
};

/// Most jobs of one take: its script then runs well below 5 ms.
const MOST_JOBS: usize = 256;
/// Most partitions from which a lane takes at the same time.
const MOST_AT_A_TIME: usize = 32;
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
    /// The limiter of the lane.
    pub limiter: Limiter,
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

/// A take in one partition.
struct Take {
    work: Work,
    consumer: Arc<str>,
    partition: u8,
    streams: [Stream; 3],
    limit: usize,
    max_bytes: usize,
    due_from: Option<[String; 3]>,
}

impl Take {
    async fn run(self) -> (Self, Result<Granted, StoreError>) {
        let request = TakeRequest {
            partition: self.partition,
            consumer: &self.consumer,
            streams: &self.streams,
            limit: self.limit,
            max_bytes: self.max_bytes,
            due_from: self.due_from.as_ref().map(<[String; 3]>::as_slice),
        };
        let granted = self.work.take(&request).await;
        (self, granted)
    }
}

impl Fetcher {
    /// Claims as many jobs as one call may hold, if they have as many rows as the last ones. Returns none if none waits. This turn
    /// holds them.
    pub async fn take(&mut self, turn: &Arc<Turn>) -> Vec<Delivery> {
        let kept = self.arrivals.kept(self.model);
        let deliveries = match (kept.is_empty(), self.quarantine.expects_suspects()) {
            (false, _) => kept.into_iter().flat_map(|arrived| arrived.deliveries).collect(),
            (true, true) => self.take_carefully(turn).await,
            (true, false) => self.take_from_any(turn).await,
        };
        self.memory.has_waited = deliveries.is_empty();
        deliveries
    }

    /// Claims jobs in a turn alone. A suspect that is not there may be about to be released by another worker, which waits for a turn
    /// alone, too. If this lane gave up at once, the workers could claim and release the suspect in turn for ever.
    pub async fn take_alone(&mut self, turn: &Arc<Turn>) -> Vec<Delivery> {
        let end = Instant::now() + SUSPECT_RELEASED_WITHIN;
        loop {
            let deliveries = self.take(turn).await;
            if !deliveries.is_empty() || Instant::now() >= end {
                return deliveries;
            }
            sleep(SUSPECT_PAUSE).await;
        }
    }

    /// Waits until jobs arrive. Returns none if the lane has to do something else first. Never cancel it: see [`Arrivals::next`].
    pub async fn wait(&mut self, stop: &CancellationToken) -> Option<Arrived> {
        let expects_suspects = self.quarantine.expects_suspects();
        let end = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.breaker.opened() => {}
                () = self.limiter.paused() => {}
                // The lane searches for them itself.
                () = sleep(self.settings.reclaim_interval), if expects_suspects => {}
            }
        };
        self.arrivals.next(self.model, expects_suspects, end).await
    }

    /// Waits for more jobs if they do not fill a call, as long as the settings allow.
    pub async fn fill(&mut self, deliveries: &mut Vec<Delivery>, turn: &Arc<Turn>) {
        let may_wait = !self.settings.batch_max_wait.is_zero() && deliveries.len() < self.most_jobs();
        if may_wait && deliveries.first().is_some_and(|first| !first.attempt.is_suspect()) {
            tokio::time::sleep(self.settings.batch_max_wait).await;
            self.take_more(deliveries, turn).await;
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
    async fn take_carefully(&mut self, turn: &Arc<Turn>) -> Vec<Delivery> {
        let mut are_all_searched = true;
        for partition in self.memory.positions.in_turn() {
            loop {
                if self.arrivals.is_suspended(partition) {
                    are_all_searched = false;
                    break;
                }
                let mut deliveries = self.take_in(&[partition], 1, self.limits.bytes, turn).await;
                let position = self.memory.positions.of_mut(partition);
                let has_suspect = deliveries.iter().any(|delivery| delivery.attempt.is_suspect());
                let is_searched = position.is_searched();
                if has_suspect || is_searched {
                    position.restart_search();
                }
                if has_suspect {
                    return deliveries;
                }
                if !deliveries.is_empty() {
                    if is_searched {
                        self.quarantine.found_none();
                    }
                    self.take_more(&mut deliveries, turn).await;
                    return deliveries;
                }
                if is_searched {
                    break;
                }
            }
        }
        if are_all_searched {
            self.quarantine.found_none();
        }
        Vec::new()
    }

    /// Fills up a batch that has a job in it.
    async fn take_more(&mut self, deliveries: &mut Vec<Delivery>, turn: &Arc<Turn>) {
        let Some(first) = deliveries.first() else { return };
        let limit = self.most_jobs().saturating_sub(deliveries.len());
        let bytes: usize = deliveries.iter().map(|delivery| delivery.input.len()).sum();
        let max_bytes = self.limits.bytes.saturating_sub(bytes);
        if limit == 0 || max_bytes == 0 {
            return;
        }
        let partition = first.attempt.claim.job_id.partition();
        deliveries.extend(self.take_in(&[partition], limit, max_bytes, turn).await);
    }

    /// Claims from the first partition that has jobs, starting after the partition of the last take. Asks one partition first: under
    /// load it mostly has as many jobs as a call may hold. Then asks several at the same time, each for its share of them.
    async fn take_from_any(&mut self, turn: &Arc<Turn>) -> Vec<Delivery> {
        let limit = self.most_jobs();
        let (ticks, positions) = (self.arrivals.ticks(), &self.memory.positions);
        let has_searched = |partition: u8| !positions.of(partition).is_due(ticks.last(partition));
        let partitions = self.arrivals.with_jobs(self.model, positions.in_turn(), has_searched);
        let (first, others) = partitions.split_at(partitions.len().min(1));
        for group in [first].into_iter().chain(others.chunks(limit.min(MOST_AT_A_TIME))) {
            let deliveries = self.take_in(group, limit, self.limits.bytes, turn).await;
            if !deliveries.is_empty() {
                return deliveries;
            }
        }
        Vec::new()
    }

    /// Claims from all these partitions, at most `limit` jobs together.
    async fn take_in(
        &mut self,
        partitions: &[u8],
        limit: usize,
        max_bytes: usize,
        turn: &Arc<Turn>,
    ) -> Vec<Delivery> {
        let share = (limit / partitions.len().max(1)).max(1);
        let share_of_bytes = max_bytes.div_ceil(partitions.len().max(1));
        let takes = partitions.iter().map(|partition| self.prepare(*partition, share, share_of_bytes).run());
        let mut takes: FuturesUnordered<_> = takes.collect();
        let (mut deliveries, mut late, mut has_more) = (Vec::new(), partitions.to_vec(), None);
        let late_at = self.arrivals.late_at();
        while !takes.is_empty() {
            let taken = match late_at {
                Some(late_at) => timeout_at(late_at, takes.next()).await,
                None => Ok(takes.next().await),
            };
            let Ok(taken) = taken else {
                late.iter().for_each(|partition| self.arrivals.suspend(*partition));
                self.await_late(takes, Arc::clone(turn));
                break;
            };
            let Some((take, granted)) = taken else { break };
            late.retain(|partition| *partition != take.partition);
            let found = self.taken(&take, granted);
            if found.len() == take.limit {
                has_more = Some(take.partition);
            }
            deliveries.extend(found);
        }
        match (partitions, has_more) {
            ([.., last], None) | ([last], _) => self.memory.positions.begin_after(*last),
            (_, Some(partition)) => self.memory.positions.begin_with(partition),
            _ => {}
        }
        deliveries
    }

    fn prepare(&mut self, partition: u8, limit: usize, max_bytes: usize) -> Take {
        let tick = self.arrivals.ticks().last(partition);
        let position = self.memory.positions.of_mut(partition);
        let expects_suspects = self.quarantine.expects_suspects();
        let searches_due = expects_suspects || position.is_due(tick);
        if !expects_suspects {
            position.restart_search();
        }
        if searches_due {
            position.searches_after(tick);
        }
        let streams = position.next_order(self.model);
        let due_from = searches_due.then(|| position.due_from(streams));
        let (work, consumer) = (self.work.clone(), Arc::clone(&self.consumer));
        Take { work, consumer, partition, streams, limit, max_bytes, due_from }
    }

    fn taken(&mut self, take: &Take, granted: Result<Granted, StoreError>) -> Vec<Delivery> {
        match granted {
            Ok(granted) => {
                if take.due_from.is_some() {
                    self.memory.positions.of_mut(take.partition).searched_to(take.streams, &granted.cursors);
                }
                record(granted)
            }
            Err(error) => {
                failed(&self.arrivals, take.partition, self.model, &error);
                Vec::new()
            }
        }
    }

    /// A take that was sent is never cancelled. Jobs that it claims later arrive as those of a read do.
    fn await_late(
        &self,
        mut takes: FuturesUnordered<
            impl Future<Output = (Take, Result<Granted, StoreError>)> + Send + 'static,
        >,
        turn: Arc<Turn>,
    ) {
        let (arrivals, model) = (self.arrivals.clone(), self.model);
        tokio::spawn(async move {
            while let Some((take, granted)) = takes.next().await {
                match granted {
                    Ok(granted) => {
                        arrivals.resume(take.partition);
                        arrivals.hand_out(record(granted), &turn);
                    }
                    Err(error) => failed(&arrivals, take.partition, model, &error),
                }
            }
        });
    }
}

/// A take failed. The reader asks the partition until it answers.
fn failed(arrivals: &Arrivals, partition: u8, model: ModelName, error: &StoreError) {
    arrivals.suspend(partition);
    // The connection itself logs a wrong topology, once.
    if !matches!(error, StoreError::WrongTopology(_)) {
        let error = telemetry::chain(error);
        warn!(action = "take_failed", partition, model = model.as_str(), error);
    }
}
