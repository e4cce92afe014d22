//! The reader: waits for new jobs of all idle lanes of the process, in each partition by itself. A partition that fails or hangs delays
//! no other.
//!
//! For each partition, one blocking read at a time covers the streams of all idle lanes. It ends early when it must cover other lanes.
//! Beside it, every reclaim interval, a take searches these streams for entries that are due again. Nobody else asks Redis for jobs of
//! an idle lane, so an idle process costs Redis the same however many models it serves.

use std::{mem, pin::pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use tepal_shared::{
    job::{ModelName, Stream},
    process::{retry::Backoff, telemetry},
    queue::{
        error::StoreError,
        work::{BlockingReader, Granted, ReadSettings, Settlement, TakeRequest, Work},
    },
};
use tokio::time::{sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    fetch::{
        arrivals::{Arrivals, Arrived},
        granted::record,
        positions::{OLDEST, order},
        quarantine::{Quarantine, Turn},
        ticks::Ticks,
    },
    upkeep::liveness::{Activity, Pulse},
};

/// The longest time that a read blocks. A connection that broke unnoticed costs new jobs up to a reclaim interval, for so long.
const LONGEST_BLOCK: Duration = Duration::from_secs(5);
/// At the end, how long to wait for reads of a Redis that does not end them.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The loop of the reader. Clones start it again.
#[derive(Clone)]
pub struct Reader {
    settings: ReaderSettings,
    arrivals: Arrivals,
}

/// What a reader needs.
#[derive(Clone)]
pub struct ReaderSettings {
    /// The consumer of the process.
    pub consumer: Arc<str>,
    /// The queue.
    pub work: Work,
    /// The quarantine of the process.
    pub quarantine: Quarantine,
    /// How often to search for entries that are due again.
    pub interval: Duration,
    /// Start no further job of a read after this many bytes of input.
    pub max_bytes: usize,
    /// The sign of life of the loop.
    pub pulse: Pulse,
}

/// The part of the reader that reads one partition.
struct PartitionReader {
    partition: u8,
    settings: ReaderSettings,
    arrivals: Arrivals,
    stop: CancellationToken,
}

impl Reader {
    /// A reader, and where lanes wait for it.
    #[must_use]
    pub fn new(settings: ReaderSettings) -> (Self, Arrivals) {
        let partitions = settings.work.queue().policy().partitions;
        let arrivals = Arrivals::new(partitions, Ticks::new(settings.interval));
        (Self { settings, arrivals: arrivals.clone() }, arrivals)
    }

    /// Reads until `shutdown` begins.
    pub async fn run(self, shutdown: CancellationToken) {
        let of_partition = |partition| {
            let (settings, arrivals) = (self.settings.clone(), self.arrivals.clone());
            PartitionReader { partition, settings, arrivals, stop: shutdown.clone() }.run().boxed()
        };
        let partitions: FuturesUnordered<_> =
            self.settings.work.queue().partitions().map(of_partition).collect();
        let mut ended = pin!(async {
            let reads_end = partitions.for_each(|()| async {});
            let is_late = async {
                shutdown.cancelled().await;
                sleep(END_TIMEOUT).await;
            };
            tokio::select! {
                () = reads_end => {}
                // Entries that a dropped read delivers are due again when the lease lapses.
                () = is_late => {}
            }
        });
        let mut releases = FuturesUnordered::new();
        loop {
            tokio::select! {
                expired = self.arrivals.expired() => releases.push(self.release(expired)),
                Some(()) = releases.next() => {}
                () = &mut ended => break,
            }
        }
        releases.push(self.release(self.arrivals.all_kept()));
        releases.for_each(|()| async {}).await;
        self.settings.pulse.end();
    }

    /// Releases jobs whose lanes are busy: other workers may be idle.
    async fn release(&self, arrived: Vec<Arrived>) {
        let claims = arrived.iter().flat_map(|arrived| &arrived.deliveries).map(|job| job.attempt.claim);
        let settlements: Vec<_> = claims.map(|claim| (claim, Settlement::Release)).collect();
        if settlements.is_empty() {
            return;
        }
        let settled = self.settings.work.settle(&settlements).await;
        let failure = settled.map_or_else(Some, |settled| settled.into_iter().find_map(Result::err));
        if let Some(error) = failure {
            warn!(action = "release_failed", error = telemetry::chain(&error));
        }
    }
}

impl PartitionReader {
    async fn run(self) {
        tokio::join!(self.reads(), self.searches());
    }

    /// Reads until `stop`.
    async fn reads(&self) {
        let (mut reader, mut backoff) = (self.blocking_reader(), new_backoff());
        let mut served = Vec::new();
        loop {
            let begin = async {
                self.arrivals.readable(self.partition, &served).await;
                self.turn().await
            };
            let Some(turn) = self.stop.run_until_cancelled(begin).await else { return };
            match self.read(&mut reader, &turn).await {
                Ok(models) => {
                    backoff.reset();
                    served = models;
                }
                Err(error) => {
                    drop(turn);
                    // A take creates missing groups, now or in a moment.
                    self.pause(&error, &mut backoff).await;
                }
            }
        }
    }

    /// Reads once. Returns the models whose jobs arrived.
    async fn read(
        &self,
        reader: &mut BlockingReader,
        turn: &Arc<Turn>,
    ) -> Result<Vec<ModelName>, StoreError> {
        let models = self.arrivals.begin(self.partition);
        if models.is_empty() {
            return Ok(models);
        }
        reader.read_from(models.into_iter().flat_map(Stream::all_of).collect());
        let read = reader.read_until(self.end_of_read()).await;
        self.arrivals.end(self.partition);
        match read {
            Ok(granted) => Ok(self.arrivals.hand_out(record(granted), turn)),
            Err(error) => {
                if matches!(error, StoreError::GroupMissing(_)) {
                    self.search(turn).await?;
                }
                Err(error)
            }
        }
    }

    /// Waits until the read must end. From then on, takes must not rely on it.
    async fn end_of_read(&self) {
        tokio::select! {
            () = self.arrivals.outdated(self.partition) => {}
            () = self.settings.quarantine.lone_turn_wanted() => {}
            () = self.stop.cancelled() => {}
        }
        self.arrivals.end(self.partition);
    }

    /// Searches at each tick, until `stop`.
    async fn searches(&self) {
        let (ticks, mut backoff) = (self.arrivals.ticks(), new_backoff());
        while self.stop.run_until_cancelled(sleep_until(ticks.next(self.partition))).await.is_some() {
            self.settings.pulse.set(Activity::Work);
            if self.arrivals.searched_models().is_empty() && !self.arrivals.are_any_suspended() {
                continue;
            }
            let Some(turn) = self.stop.run_until_cancelled(self.turn()).await else { return };
            match self.search_in_time(&turn).await {
                Ok(()) => {
                    backoff.reset();
                    self.arrivals.resume(self.partition);
                }
                Err(error) => {
                    drop(turn);
                    self.arrivals.suspend(self.partition);
                    self.pause(&error, &mut backoff).await;
                }
            }
        }
    }

    /// Suspends the partition while its search is late. A search that was sent is awaited: it may claim jobs.
    async fn search_in_time(&self, turn: &Arc<Turn>) -> Result<(), StoreError> {
        let mut search = pin!(self.search(turn));
        if let Some(late_at) = self.arrivals.late_at() {
            match timeout_at(late_at, &mut search).await {
                Ok(searched) => return searched,
                Err(_) => self.arrivals.suspend(self.partition),
            }
        }
        search.await
    }

    /// Searches the streams of the idle lanes for entries that are due again, to their ends. Claims job by job: a lane that has a job
    /// is no longer idle, and then takes the others itself.
    async fn search(&self, turn: &Arc<Turn>) -> Result<(), StoreError> {
        let tick = self.arrivals.ticks().last(self.partition);
        let mut models = self.arrivals.searched_models();
        if models.is_empty() {
            return self.probe().await;
        }
        let ordered = models.iter().flat_map(|model| order(*model, tick as usize));
        let mut left: Vec<_> = ordered.map(|stream| (stream, OLDEST.to_owned())).collect();
        while !left.is_empty() {
            let (streams, due_from): (Vec<_>, Vec<_>) = left.drain(..).unzip();
            let mut granted = self.take(&streams, 1, Some(&due_from)).await?;
            let cursors = mem::take(&mut granted.cursors);
            self.arrivals.hand_out(record(granted), turn);
            let idle = self.arrivals.searched_models();
            for (stream, cursor) in streams.into_iter().zip(cursors).filter(|(_, cursor)| cursor != OLDEST) {
                match idle.contains(&stream.model) {
                    true => left.push((stream, cursor)),
                    false => models.retain(|model| *model != stream.model),
                }
            }
        }
        self.arrivals.searched(self.partition, tick, models);
        Ok(())
    }

    /// Whether the partition answers: claims nothing.
    async fn probe(&self) -> Result<(), StoreError> {
        match self.arrivals.all_models().first() {
            Some(model) => self.take(&Stream::all_of(*model), 0, None).await.map(drop),
            None => Ok(()),
        }
    }

    async fn take(
        &self,
        streams: &[Stream],
        limit: usize,
        due_from: Option<&[String]>,
    ) -> Result<Granted, StoreError> {
        let ReaderSettings { consumer, work, max_bytes, .. } = &self.settings;
        let (partition, max_bytes) = (self.partition, *max_bytes);
        work.take(&TakeRequest { partition, consumer, streams, limit, max_bytes, due_from }).await
    }

    /// Waits for the right to hold the jobs that arrive.
    async fn turn(&self) -> Arc<Turn> {
        self.settings.pulse.set(Activity::WaitForJobs);
        let turn = self.settings.quarantine.turn(false).await;
        self.settings.pulse.set(Activity::Work);
        Arc::new(turn)
    }

    /// Logs a failure and pauses.
    async fn pause(&self, error: &StoreError, backoff: &mut Backoff) {
        use StoreError::{Ambiguous, Disconnected, GroupMissing, WrongTopology};
        let pause = backoff.next_pause();
        // The connection itself logs that Redis is unreachable or of a wrong topology.
        if !matches!(error, Disconnected | Ambiguous(_) | WrongTopology(_) | GroupMissing(_)) {
            let (partition, retry_ms) = (self.partition, pause.as_millis() as u64);
            warn!(action = "take_failed", partition, error = telemetry::chain(error), retry_ms);
        }
        self.stop.run_until_cancelled(sleep(pause)).await;
    }

    fn blocking_reader(&self) -> BlockingReader {
        let ReaderSettings { consumer, work, interval, max_bytes, .. } = &self.settings;
        let settings = ReadSettings {
            partition: self.partition,
            consumer: consumer.to_string(),
            longest_block: LONGEST_BLOCK,
            longest_unendable_block: *interval,
            max_bytes: *max_bytes,
        };
        BlockingReader::new(work.clone(), settings, Vec::new())
    }
}

fn new_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(2))
}
