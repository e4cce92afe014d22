//! The reader: waits for new jobs of all idle lanes of the process. Nobody else asks Redis for jobs of an idle lane, so an idle process
//! costs Redis the same however many models it serves.
//!
//! The reader works in rounds of one reclaim interval. A round first searches the streams of the idle lanes for entries that are due
//! again. Then one blocking read waits for new entries in all of them, to the end of the round. A lane that becomes idle during a round
//! gets a read of its own: a read that blocks cannot be changed, and must not be cancelled. All reads end with the round, and the next
//! round reads everything together again.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tepal_shared::{
    job::{Delivery, ModelName, Stream},
    process::{retry::Backoff, telemetry},
    queue::{
        error::StoreError,
        work::{BlockingReader, Granted, TakeRequest, Work},
    },
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    fetch::{
        granted::record,
        positions::Positions,
        quarantine::{Quarantine, Turn},
    },
    run::breaker::Breaker,
    upkeep::liveness::{Activity, Pulse},
};

/// No read blocks for less than this. To block for 0 ms is to block for ever.
const SHORTEST_BLOCK: Duration = Duration::from_millis(1);

/// Where idle lanes wait for jobs. Clones belong to the same reader.
#[derive(Clone, Debug)]
pub struct Arrivals {
    idle: mpsc::UnboundedSender<IdleLane>,
}

/// An idle lane, as far as the reader must know it.
#[derive(Debug)]
pub struct Wait {
    /// Its model.
    pub model: ModelName,
    /// The right to hold the jobs that arrive.
    pub turn: Turn,
    /// How far its searches have come.
    pub positions: Positions,
    /// Most jobs to claim.
    pub limit: usize,
    /// While it is open, the lane waits for no jobs.
    pub breaker: Breaker,
    /// The lane stops.
    pub stop: CancellationToken,
    /// The lane searches for suspects itself, so it waits for one round only.
    pub is_brief: bool,
}

/// The end of a wait.
#[derive(Debug)]
pub struct Arrived {
    /// The claimed jobs. There are none if the lane has to do something else first.
    pub deliveries: Vec<Delivery>,
    /// The turn of the lane.
    pub turn: Turn,
    /// The positions of the lane.
    pub positions: Positions,
}

#[derive(Debug)]
struct IdleLane {
    wait: Wait,
    arrived: oneshot::Sender<Arrived>,
}

/// The loop of the reader. Clones start it again.
#[derive(Clone)]
pub struct Reader {
    settings: ReaderSettings,
    lanes: Arc<Mutex<mpsc::UnboundedReceiver<IdleLane>>>,
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
    /// Length of a round.
    pub interval: Duration,
    /// Start no further job of a read after this many bytes of input.
    pub max_bytes: usize,
    /// The sign of life of the loop.
    pub pulse: Pulse,
}

/// The state of the loop.
struct Rounds {
    settings: ReaderSettings,
    idle: Vec<IdleLane>,
    /// Readers that do not read now, with their connections.
    spare: Vec<BlockingReader>,
    backoff: Backoff,
}

/// The end of a read.
struct Read {
    reader: BlockingReader,
    lanes: Vec<IdleLane>,
    started: Result<Vec<Result<Granted, StoreError>>, StoreError>,
}

impl Arrivals {
    /// Waits until jobs of the lane arrive, or until it has to do something else. Never cancel it: jobs may have been claimed.
    /// `None` if the reader has failed.
    pub async fn next(&self, wait: Wait) -> Option<Arrived> {
        let (arrived, arrival) = oneshot::channel();
        match self.idle.send(IdleLane { wait, arrived }) {
            Ok(()) => arrival.await.ok(),
            // The worker stops.
            Err(mpsc::error::SendError(lane)) => Some(lane.wait.end(Vec::new())),
        }
    }
}

impl Wait {
    fn end(self, deliveries: Vec<Delivery>) -> Arrived {
        Arrived { deliveries, turn: self.turn, positions: self.positions }
    }
}

impl IdleLane {
    /// Ends the wait of the lane.
    fn end(self, deliveries: Vec<Delivery>) {
        // If the lane has panicked meanwhile, the leases of these jobs lapse.
        let _ = self.arrived.send(self.wait.end(deliveries));
    }
}

impl Reader {
    /// A reader, and where lanes wait for it.
    #[must_use]
    pub fn new(settings: ReaderSettings) -> (Self, Arrivals) {
        let (idle, lanes) = mpsc::unbounded_channel();
        (Self { settings, lanes: Arc::new(Mutex::new(lanes)) }, Arrivals { idle })
    }

    /// Reads until `shutdown` begins. Then no lane waits any more.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut newcomers = self.lanes.lock().await;
        let mut rounds = Rounds::new(self.settings);
        loop {
            if rounds.idle.is_empty() {
                rounds.settings.pulse.set(Activity::WaitForJobs);
                match shutdown.run_until_cancelled(newcomers.recv()).await.flatten() {
                    Some(lane) => rounds.idle.push(lane),
                    None => break,
                }
            }
            rounds.settings.pulse.set(Activity::Work);
            let pause = rounds.round(&mut newcomers).await;
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        newcomers.close();
        while let Ok(lane) = newcomers.try_recv() {
            rounds.idle.push(lane);
        }
        rounds.idle.drain(..).for_each(|lane| lane.end(Vec::new()));
        rounds.settings.pulse.end();
    }
}

impl Rounds {
    fn new(settings: ReaderSettings) -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        Self { settings, idle: Vec::new(), spare: Vec::new(), backoff }
    }

    /// One round. Returns how long to pause after it.
    async fn round(&mut self, newcomers: &mut mpsc::UnboundedReceiver<IdleLane>) -> Duration {
        let end = Instant::now() + self.settings.interval;
        self.end_waits();
        if let Err(error) = self.search().await {
            return self.failed(&error);
        }
        let (mut reads, mut failure) = (FuturesUnordered::new(), None);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !self.idle.is_empty() && left >= SHORTEST_BLOCK && failure.is_none() {
                reads.push(self.read(left));
            }
            tokio::select! {
                biased;
                Some(read) = reads.next() => failure = self.distribute(read).or(failure),
                Some(lane) = newcomers.recv(), if !reads.is_empty() => {
                    self.idle.push(lane);
                    self.idle.extend(std::iter::from_fn(|| newcomers.try_recv().ok()));
                }
                else => break,
            }
        }
        self.end_brief_waits();
        match failure {
            Some(error) => self.failed(&error),
            None => {
                self.backoff.reset();
                Duration::ZERO
            }
        }
    }

    /// Logs a failure. Returns how long to pause.
    fn failed(&mut self, error: &StoreError) -> Duration {
        let pause = self.backoff.next_pause();
        // The connection itself logs a wrong topology, once.
        if !matches!(error, StoreError::WrongTopology(_)) {
            let retry_ms = pause.as_millis() as u64;
            warn!(action = "take_failed", error = telemetry::chain(error), retry_ms);
        }
        pause
    }

    /// Ends the waits of lanes that stop or whose backend does not answer; of all, if a suspect must run alone.
    fn end_waits(&mut self) {
        let is_alone = self.settings.quarantine.expects_lone_turn();
        let ends = |IdleLane { wait, .. }: &mut IdleLane| {
            is_alone || !wait.breaker.is_closed() || wait.stop.is_cancelled()
        };
        self.idle.extract_if(.., ends).for_each(|lane| lane.end(Vec::new()));
    }

    fn end_brief_waits(&mut self) {
        self.idle.extract_if(.., |lane| lane.wait.is_brief).for_each(|lane| lane.end(Vec::new()));
    }

    /// Searches the streams of the idle lanes for entries that are due again.
    async fn search(&mut self) -> Result<(), StoreError> {
        for partition in self.settings.work.queue().partitions() {
            let interval = self.settings.interval;
            let searched = |lane: &mut IdleLane| {
                !lane.wait.is_brief && lane.wait.positions.of(partition).is_due(interval)
            };
            let mut lanes: Vec<_> = self.idle.extract_if(.., searched).collect();
            let granted = self.search_in(partition, &mut lanes).await;
            self.idle.extend(match granted {
                Ok(deliveries) => hand_out(lanes, deliveries),
                Err(error) => {
                    self.idle.extend(lanes);
                    return Err(error);
                }
            });
        }
        Ok(())
    }

    async fn search_in(&self, partition: u8, lanes: &mut [IdleLane]) -> Result<Vec<Delivery>, StoreError> {
        let Some(limit) = lanes.iter().map(|lane| lane.wait.limit).min() else { return Ok(Vec::new()) };
        let mut streams = Vec::with_capacity(3 * lanes.len());
        let mut due_from = Vec::with_capacity(3 * lanes.len());
        for IdleLane { wait, .. } in &mut *lanes {
            let position = wait.positions.of(partition);
            let order = position.next_order(wait.model);
            due_from.extend(position.due_from(order));
            streams.extend(order);
        }
        let request = TakeRequest {
            partition,
            consumer: &self.settings.consumer,
            streams: &streams,
            limit,
            max_bytes: self.settings.max_bytes,
            due_from: Some(&due_from),
        };
        let granted = self.settings.work.take(&request).await?;
        let (orders, _) = streams.as_chunks::<3>();
        for ((lane, order), cursors) in lanes.iter_mut().zip(orders).zip(granted.cursors.chunks(3)) {
            lane.wait.positions.of(partition).searched_to(*order, cursors);
        }
        Ok(record(granted))
    }

    /// Starts a read for all lanes that no other read waits for.
    fn read(&mut self, block: Duration) -> impl Future<Output = Read> + Send + use<> {
        let lanes = mem::take(&mut self.idle);
        let streams = lanes.iter().flat_map(|lane| Stream::all_of(lane.wait.model)).collect();
        let mut reader = self.spare.pop().unwrap_or_else(|| self.new_reader());
        reader.read_from(streams);
        async move {
            let started = reader.read_for(block).await;
            Read { reader, lanes, started }
        }
    }

    fn new_reader(&self) -> BlockingReader {
        let ReaderSettings { consumer, work, interval, max_bytes, .. } = &self.settings;
        // A read may deliver to all partitions at the same time.
        let max_bytes = max_bytes.div_ceil(usize::from(work.queue().policy().partitions).max(1));
        BlockingReader::new(work.clone(), consumer.to_string(), Vec::new(), *interval, max_bytes)
    }

    /// Passes the jobs of a read to their lanes. The other lanes stay idle.
    fn distribute(&mut self, Read { reader, lanes, started }: Read) -> Option<StoreError> {
        self.spare.push(reader);
        let (started, mut failure) = match started {
            Ok(started) => (started, None),
            // The next take of each lane creates the missing groups.
            Err(StoreError::GroupMissing(_)) => {
                lanes.into_iter().for_each(|lane| lane.end(Vec::new()));
                return None;
            }
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut deliveries = Vec::new();
        for granted in started {
            match granted {
                Ok(granted) => deliveries.extend(record(granted)),
                // The next read starts the others.
                Err(error) => failure = Some(error),
            }
        }
        self.idle.extend(hand_out(lanes, deliveries));
        failure
    }
}

/// Passes jobs to the lanes of their models. Returns the lanes without jobs.
fn hand_out(lanes: Vec<IdleLane>, deliveries: Vec<Delivery>) -> Vec<IdleLane> {
    let mut by_model = HashMap::<ModelName, Vec<Delivery>>::new();
    for delivery in deliveries {
        by_model.entry(delivery.attempt.claim.stream.model).or_default().push(delivery);
    }
    let mut idle = Vec::new();
    for lane in lanes {
        match by_model.remove(&lane.wait.model) {
            Some(deliveries) => lane.end(deliveries),
            None => idle.push(lane),
        }
    }
    idle
}
