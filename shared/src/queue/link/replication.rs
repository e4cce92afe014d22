//! Confirms changes when enough replicas hold them (`WAIT`, Redis command page). `WAIT` covers the writes of its own connection and
//! blocks that connection. So these changes have connections of their own, and one `WAIT` confirms all changes before it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::RedisError;
use tokio::sync::{mpsc, oneshot};

use crate::queue::{
    error::StoreError,
    link::{
        connection::{Generation, SharedConnection},
        handle::Redis,
        request::Answered,
        settings::ConnectionSettings,
    },
};

/// Changes that may wait for one confirmation.
const MOST_WAITING: usize = 10_000;

/// When a change counts as replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// Number of replicas that must hold it; at least one.
    pub replicas: u32,
    /// How long to wait for them.
    pub timeout: Duration,
}

/// Confirms changes. Clones share the connections.
#[derive(Clone, Debug)]
pub(crate) struct Replicated {
    redis: Redis,
    settings: ReplicationSettings,
    confirmations: Arc<Mutex<HashMap<Generation, Confirmation>>>,
}

/// The confirmation of the changes of one connection.
#[derive(Debug)]
struct Confirmation {
    on: Written,
    waiting: mpsc::Sender<oneshot::Sender<Result<(), StoreError>>>,
}

/// Where a change was made.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    primary: Arc<SharedConnection>,
    generation: Generation,
}

impl Written {
    /// Where the answer came from.
    pub(crate) fn of(answered: &Answered) -> Self {
        Self { primary: Arc::clone(&answered.primary), generation: answered.generation }
    }

    /// The connection.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    fn is_open(&self) -> bool {
        self.primary.state().is_ok_and(|generation| generation == self.generation)
    }
}

impl Replicated {
    /// Opens connections for changes that must be confirmed; needs a tokio runtime.
    pub(crate) fn open(
        connection: ConnectionSettings,
        settings: ReplicationSettings,
    ) -> Result<Self, RedisError> {
        let redis = Redis::open(connection.with_response_timeout(settings.timeout + Duration::from_secs(2)))?;
        Ok(Self { redis, settings, confirmations: Arc::default() })
    }

    /// The connections for such changes. The caller must wait until they are confirmed.
    pub(crate) fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Waits until the replicas have what was written there. Fails only with `NotReplicated`.
    pub(crate) async fn confirmed(&self, on: &Written) -> Result<(), StoreError> {
        let (confirmed, confirmation) = oneshot::channel();
        // The change was made, so no failure of the confirmation may claim that nothing happened.
        let unconfirmed = || not_replicated(0, self.settings);
        self.waiting(on).send(confirmed).await.map_err(|_| unconfirmed())?;
        confirmation.await.map_err(|_| unconfirmed())?
    }

    /// Where changes on that connection wait. The first one starts the task, which ends some time after the connection.
    fn waiting(&self, on: &Written) -> mpsc::Sender<oneshot::Sender<Result<(), StoreError>>> {
        let mut confirmations = self.confirmations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(confirmation) = confirmations.get(&on.generation) {
            return confirmation.waiting.clone();
        }
        confirmations.retain(|_, confirmation| confirmation.on.is_open());
        let (waiting, queue) = mpsc::channel(MOST_WAITING);
        self.redis.spawn(confirm(on.clone(), self.settings, queue));
        confirmations.insert(on.generation, Confirmation { on: on.clone(), waiting: waiting.clone() });
        waiting
    }
}

/// Confirms all changes that wait, with one `WAIT` after another.
async fn confirm(
    on: Written,
    settings: ReplicationSettings,
    mut queue: mpsc::Receiver<oneshot::Sender<Result<(), StoreError>>>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, MOST_WAITING).await > 0 {
        let reached = replicas_reached(&on, settings).await;
        for waiting in batch.drain(..) {
            let is_enough = reached >= settings.replicas;
            // The receiver is gone if the client has gone away.
            let _ = waiting.send(if is_enough { Ok(()) } else { Err(not_replicated(reached, settings)) });
        }
    }
}

/// The replicas that have all changes of that connection; none if it broke. A `WAIT` on a newer one proves nothing about them.
async fn replicas_reached(on: &Written, settings: ReplicationSettings) -> u32 {
    let Some(mut connection) = on.primary.connected().filter(|_| on.is_open()) else { return 0 };
    let mut command = redis::cmd("WAIT");
    command.arg(settings.replicas).arg(u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX));
    match command.query_async(&mut connection).await.map_err(StoreError::from) {
        Ok(reached) => reached,
        Err(error) => {
            if error.breaks_connection() {
                on.primary.discard(on.generation);
            }
            0
        }
    }
}

fn not_replicated(reached: u32, settings: ReplicationSettings) -> StoreError {
    StoreError::NotReplicated { reached, required: settings.replicas }
}
