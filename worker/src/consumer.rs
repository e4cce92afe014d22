//! Takes jobs when there is a place to run them. A busy consumer takes what waits, as many as a call may hold; an idle
//! one blocks on the streams and starts what arrives. New jobs and due ones (retries, jobs of lost workers) are both
//! found by `take`; blocking reads only end the wait for the next one. While jobs of lost workers are about, jobs are
//! taken one at a time, see [`Suspects`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tepal_shared::{
    error::StoreError,
    job::{Attempt, Priority},
    reader::Reader,
    retry::Backoff,
    scripts::Granted,
    shutdown::Shutdown,
    store::{Delivery, JobStore, Settlement, TakeRequest},
    telemetry,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    attempt::Runner,
    concurrency::Slot,
    config::Config,
    metrics,
    suspects::{Sorted, Suspects, Turn, is_suspect},
};

/// Longest script run: a take of this many jobs stays well below 5 ms.
const MOST_JOBS: usize = 256;
/// After SIGTERM, how long giving back the rest may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// The order in which the streams are read, take by take: high comes first eleven times of sixteen, normal three and
/// low two, so that a saturated high priority leaves the others a share of 19 and 12 per cent.
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

/// One consumer of the group: a loop and the batches that it has running.
pub struct Consumer {
    name: String,
    store: JobStore,
    reader: Reader,
    runner: Arc<Runner>,
    suspects: Suspects,
    places: Arc<Semaphore>,
    batches: JoinSet<()>,
    reclaim_interval: Duration,
    batch_max_bytes: usize,
    batch_max_wait: Duration,
    drain_timeout: Duration,
    /// The next job must run alone in the process.
    alone_next: bool,
    /// The partition to take from next.
    partition: u8,
    looks: Vec<Look>,
}

/// How far a consumer has come in a partition.
#[derive(Clone, Debug)]
struct Look {
    /// Number of takes; decides the order of the streams.
    takes: usize,
    /// When entries that are due again were last looked for.
    due_at: Option<Instant>,
    /// Where the next look for them goes on; `0-0` = at the oldest.
    due_from: [String; 3],
    /// Whether the last look went over all of them and left nothing.
    is_complete: bool,
}

impl Look {
    fn new() -> Self {
        Self { takes: 0, due_at: None, due_from: ["0-0"; 3].map(str::to_owned), is_complete: false }
    }
}

/// All that it needs to run a batch.
struct Place {
    slot: Slot,
    turn: Turn,
    _permit: OwnedSemaphorePermit,
}

impl Consumer {
    /// A consumer of that name.
    #[must_use]
    pub fn new(name: String, config: &Config, runner: Arc<Runner>, suspects: Suspects) -> Self {
        let store = runner.store.clone();
        let partitions = usize::from(store.policy().partitions);
        Self {
            reader: Reader::new(store.clone(), name.clone(), config.reclaim_interval),
            name,
            store,
            runner,
            suspects,
            places: Arc::new(Semaphore::new(config.max_in_flight)),
            batches: JoinSet::new(),
            reclaim_interval: config.reclaim_interval,
            batch_max_bytes: config.batch_max_bytes,
            batch_max_wait: config.batch_max_wait,
            drain_timeout: config.drain_timeout,
            alone_next: false,
            partition: 0,
            looks: vec![Look::new(); partitions],
        }
    }

    /// Takes jobs until `shutdown` begins, then lets what runs finish, and gives back what does not.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while let Some(place) = shutdown.or(self.place()).await {
            match self.next_jobs(&place.turn).await {
                Ok(sorted) => {
                    backoff.reset();
                    self.alone_next = sorted.is_last_chance;
                    self.spawn(sorted, place);
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    let retry_ms = pause.as_millis() as u64;
                    warn!(
                        action = "take_failed",
                        consumer = self.name,
                        error = telemetry::chain(&error),
                        retry_ms
                    );
                    shutdown.or(tokio::time::sleep(pause)).await;
                }
            }
            while self.batches.try_join_next().is_some() {}
        }
        self.drain().await;
    }

    /// Waits until the backend is there and a batch may run.
    async fn place(&self) -> Place {
        loop {
            self.runner.breaker.closed().await;
            if let Ok(permit) = Arc::clone(&self.places).acquire_owned().await {
                let slot = self.runner.concurrency.slot().await;
                let turn = self.suspects.turn(self.alone_next).await;
                // The backend may have gone while we waited for the place.
                if self.runner.breaker.is_closed() {
                    return Place { slot, turn, _permit: permit };
                }
            }
        }
    }

    fn spawn(&mut self, sorted: Sorted, place: Place) {
        let Sorted { run, give_back, .. } = sorted;
        if run.is_empty() && give_back.is_empty() {
            return;
        }
        self.runner.leases.hold(&self.name, &run);
        self.runner.leases.hold(&self.name, &give_back);
        let runner = Arc::clone(&self.runner);
        self.batches.spawn(async move {
            runner.give_back(&give_back).await;
            runner.run(run, &place.slot).await;
            drop(place);
        });
    }

    /// Jobs to run; none when nothing arrived for a while. Never cancelled: see [`Reader`].
    async fn next_jobs(&mut self, turn: &Turn) -> Result<Sorted, StoreError> {
        let mut attempts = match self.suspects.are_expected() {
            true => self.take_carefully().await?,
            false => self.take_from_any(self.most_jobs()).await?,
        };
        if attempts.is_empty() {
            attempts = self.wait_for_new().await?;
        }
        let may_wait = !self.batch_max_wait.is_zero() && attempts.len() < self.most_jobs();
        if may_wait && attempts.first().is_some_and(|first| !is_suspect(first)) {
            tokio::time::sleep(self.batch_max_wait).await;
            self.take_more(&mut attempts).await;
        }
        Ok(self.suspects.sort(attempts, turn))
    }

    /// Takes one job, and more if it is no suspect. Suspects are expected until a look has found nothing that is due.
    async fn take_carefully(&mut self) -> Result<Vec<Attempt>, StoreError> {
        for _ in 0..self.looks.len() {
            let partition = self.next_partition();
            loop {
                let mut attempts = self.take(partition, 1).await?;
                if attempts.iter().any(is_suspect) {
                    return Ok(attempts);
                }
                let is_complete = self.looks[usize::from(partition)].is_complete;
                if !attempts.is_empty() {
                    if is_complete {
                        self.suspects.none_found();
                    }
                    self.take_more(&mut attempts).await;
                    return Ok(attempts);
                }
                if is_complete {
                    break;
                }
            }
        }
        self.suspects.none_found();
        Ok(Vec::new())
    }

    /// Fills up a batch that has a job in it.
    async fn take_more(&mut self, attempts: &mut Vec<Attempt>) {
        let Some(first) = attempts.first() else { return };
        let more = self.take(first.job_id.partition(), self.most_jobs() - attempts.len()).await;
        // The jobs in hand are worth more than the news that no more could be had.
        attempts.extend(more.unwrap_or_default());
    }

    fn most_jobs(&self) -> usize {
        self.runner.batch_max_rows.min(MOST_JOBS)
    }

    /// Takes from the first partition that has something, beginning where the last take ended.
    async fn take_from_any(&mut self, limit: usize) -> Result<Vec<Attempt>, StoreError> {
        for _ in 0..self.looks.len() {
            let partition = self.next_partition();
            let attempts = self.take(partition, limit).await?;
            if !attempts.is_empty() {
                return Ok(attempts);
            }
        }
        Ok(Vec::new())
    }

    fn next_partition(&mut self) -> u8 {
        let partition = self.partition;
        self.partition = ((usize::from(partition) + 1) % self.looks.len()) as u8;
        partition
    }

    async fn take(&mut self, partition: u8, limit: usize) -> Result<Vec<Attempt>, StoreError> {
        let look = &mut self.looks[usize::from(partition)];
        let is_due = look.due_at.is_none_or(|at| at.elapsed() >= self.reclaim_interval);
        let looks_for_due = is_due || self.suspects.are_expected();
        look.takes = look.takes.wrapping_add(1);
        let request = TakeRequest {
            partition,
            consumer: &self.name,
            order: ORDERS[look.takes % ORDERS.len()],
            limit,
            max_bytes: self.batch_max_bytes,
            due_from: looks_for_due.then_some(&look.due_from),
        };
        let granted = self.store.take(&request).await?;
        if looks_for_due {
            let is_start = |cursors: &[String; 3]| cursors.iter().all(|cursor| cursor == "0-0");
            look.is_complete = is_start(&look.due_from) && is_start(&granted.cursors);
            (look.due_at, look.due_from) = (Some(Instant::now()), granted.cursors.clone());
        }
        Ok(self.noted(granted))
    }

    async fn wait_for_new(&mut self) -> Result<Vec<Attempt>, StoreError> {
        let delivered = match self.reader.read().await {
            Ok(delivered) => delivered,
            // The next take creates the missing group.
            Err(StoreError::GroupMissing(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut attempts = Vec::new();
        for partition in self.store.partitions() {
            let of_partition = delivered.iter().filter(|(number, _)| *number == partition);
            let deliveries: Vec<Delivery> = of_partition.map(|(_, delivery)| delivery.clone()).collect();
            if !deliveries.is_empty() {
                let granted = self.store.start(partition, &self.name, &deliveries).await?;
                attempts.extend(self.noted(granted));
            }
        }
        Ok(attempts)
    }

    /// Counts and logs what was found on the way to the granted jobs.
    fn noted(&self, granted: Granted) -> Vec<Attempt> {
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
        granted.attempts
    }

    async fn drain(&mut self) {
        let finished = async { while self.batches.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, finished).await.is_ok() {
            return;
        }
        self.batches.shutdown().await;
        let rest = self.runner.leases.of(&self.name);
        warn!(action = "drain_timed_out", consumer = self.name, released = rest.len());
        let settlements: Vec<_> = rest.iter().map(|attempt| (attempt, Settlement::Release)).collect();
        match tokio::time::timeout(RELEASE_TIMEOUT, self.store.settle(&settlements)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(action = "release_failed", consumer = self.name, error = telemetry::chain(&error));
            }
            Err(_) => {
                warn!(action = "release_failed", consumer = self.name, error = "Redis did not answer in time")
            }
        }
        rest.iter().for_each(|attempt| {
            self.runner.leases.let_go(attempt);
        });
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
