//! The role of a proxy.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{Cmd, Pipeline, RedisError};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use crate::queue::{
    error::StoreError,
    handle::Queue,
    intake::{
        acknowledged::Acknowledged,
        depths::{Depths, SharedDepths},
        gathered::Gathered,
    },
    link::{Answered, ConnectionSettings, Redis, Replicated, ReplicationSettings, Written},
};

/// Calls with large inputs that are sent before Redis has answered. Redis answers in the order of the calls and needs some 5 ms for
/// each MiB, which the calls behind it wait for. Two keep it busy.
const LARGE_CALLS: usize = 2;
/// Longest time to wait for the turn of such a call: the bodies of all requests together keep Redis busy for less.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What a proxy may do with a queue: submit, cancel and requeue jobs, and fail those that missed a deadline. Clones share
/// everything.
#[derive(Clone, Debug)]
pub struct Intake {
    pub(super) queue: Queue,
    /// For changes that replicas must confirm.
    replicated: Option<ReplicatedChanges>,
    pub(super) gathered: Gathered,
    pub(super) acknowledged: Acknowledged,
    pub(super) depths: SharedDepths,
    /// For calls with large inputs.
    pub(super) large_calls: Arc<Semaphore>,
    last_out_of_memory: LastOutOfMemory,
}

/// Changes that replicas must confirm.
#[derive(Clone, Debug)]
struct ReplicatedChanges {
    confirmation: Replicated,
    /// The primary of each partition, over connections for such changes.
    primaries: Arc<[Redis]>,
}

impl Intake {
    /// The role of a proxy in this queue.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        let (gathered, acknowledged, depths, last_out_of_memory) = Default::default();
        let large_calls = Arc::new(Semaphore::new(LARGE_CALLS));
        Self { queue, replicated: None, gathered, acknowledged, depths, large_calls, last_out_of_memory }
    }

    /// The same, but a submission, a requeue or a cancellation is acknowledged only when replicas hold it.
    ///
    /// # Errors
    /// When the client library rejects the address.
    pub fn with_replication(
        mut self,
        connection: ConnectionSettings,
        replication: ReplicationSettings,
    ) -> Result<Self, RedisError> {
        let confirmation = Replicated::open(connection, replication)?;
        let keys = &self.queue.keys;
        let primaries =
            (0..=u8::MAX).map(|partition| confirmation.redis().of_key(&keys.log(partition))).collect();
        self.replicated = Some(ReplicatedChanges { confirmation, primaries });
        Ok(self)
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Notes the limits of the models, and how many jobs of each have not ended.
    pub fn note_depths(&self, depths: Depths) {
        self.depths.set(depths);
    }

    /// Whether Redis refused a job because its memory was full, at most `age` ago. Near its limit it refuses large jobs and
    /// still accepts small ones, and [`ServerState::is_full`](crate::queue::views::ServerState::is_full) is not set.
    #[must_use]
    pub fn ran_out_of_memory_within(&self, age: Duration) -> bool {
        self.last_out_of_memory.is_within(age)
    }

    /// Why Redis refuses all changes at present, if it does: its disk fails, or too few replicas are in step. At its memory
    /// limit it refuses only some.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn refusal(&self) -> Result<Option<StoreError>, StoreError> {
        let mut pipeline = Pipeline::new();
        // Refused like all other changes, and changes nothing. In a pipeline, so that a refusal is returned and not repeated.
        pipeline.ignore_errors().cmd("HDEL").arg(self.queue.keys.workers()).arg("");
        let outcome = self.queue.primary_of_workers().run_all(&pipeline).await?.pop();
        let refusal = outcome.and_then(Result::err);
        Ok(refusal.filter(|error| matches!(error, StoreError::CannotPersist(_) | StoreError::NotReady(_))))
    }

    /// Waits until a call with a large input may be sent.
    pub(super) async fn turn_of_large_call(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        match timeout(LONGEST_WAIT, self.large_calls.acquire()).await {
            // The semaphore is never closed.
            Ok(turn) => turn.map_err(|_| StoreError::Disconnected),
            // Nothing was sent: Redis has answered none of those before it.
            Err(_) => Err(StoreError::Disconnected),
        }
    }

    /// Whether changes are acknowledged only when replicas hold them. Then the log has entries of jobs that were not acknowledged.
    #[must_use]
    pub fn waits_for_replicas(&self) -> bool {
        self.replicated.is_some()
    }

    /// Runs a script that changes jobs for a client.
    pub(super) async fn run_change(&self, partition: u8, command: &Cmd) -> Result<Answered, StoreError> {
        let outcome = self.changes(partition).run_on(command).await;
        outcome.inspect_err(|error| self.last_out_of_memory.note(error))
    }

    /// The connection for such scripts.
    pub(super) fn changes(&self, partition: u8) -> &Redis {
        match &self.replicated {
            Some(replicated) => replicated.primaries.get(usize::from(partition)),
            None => None,
        }
        .unwrap_or_else(|| self.queue.primary(partition))
    }

    /// Waits until enough replicas have what was changed there.
    pub(super) async fn confirmed(&self, on: &Written) -> Result<(), StoreError> {
        match &self.replicated {
            Some(replicated) => replicated.confirmation.confirmed(on).await,
            None => Ok(()),
        }
    }
}

/// When Redis last refused a job because its memory was full. Clones share it.
#[derive(Clone, Debug, Default)]
struct LastOutOfMemory(Arc<Mutex<Option<Instant>>>);

impl LastOutOfMemory {
    /// Notes the failure if it is such a refusal.
    fn note(&self, error: &StoreError) {
        if matches!(error, StoreError::OutOfMemory(_)) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    fn is_within(&self, age: Duration) -> bool {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < age)
    }
}
