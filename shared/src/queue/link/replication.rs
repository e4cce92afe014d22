//! Confirms submissions when enough replicas hold them (`WAIT`, Redis command page). `WAIT` covers the writes of its own connection
//! and blocks that connection. So submissions have a connection of their own, and one `WAIT` confirms all submissions before it.

use std::{sync::Arc, time::Duration};

use redis::{FromRedisValue as _, RedisError};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    process::supervisor,
    queue::{
        error::StoreError,
        link::{
            handle::Redis,
            request::{Answered, Generation},
            settings::ConnectionSettings,
        },
    },
};

/// Submissions that may wait for one confirmation.
const MOST_WAITING: usize = 10_000;

/// When a submission counts as replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// Number of replicas that must hold it; at least one.
    pub replicas: u32,
    /// How long to wait for them.
    pub timeout: Duration,
}

/// Runs submissions and confirms them. Clones share one connection.
#[derive(Clone, Debug)]
pub(crate) struct Replicated {
    redis: Redis,
    settings: ReplicationSettings,
    waiting: mpsc::Sender<Waiting>,
}

/// A submission that waits for its confirmation. It was executed on the connection of this generation.
struct Waiting {
    generation: Generation,
    confirmed: oneshot::Sender<Result<(), StoreError>>,
}

impl Replicated {
    /// Opens a connection for submissions; needs a tokio runtime.
    pub(crate) fn open(
        connection: ConnectionSettings,
        settings: ReplicationSettings,
    ) -> Result<Self, RedisError> {
        let redis = Redis::open(connection.with_response_timeout(settings.timeout + Duration::from_secs(2)))?;
        let (waiting, queue) = mpsc::channel(MOST_WAITING);
        let (connection, queue) = (redis.clone(), Arc::new(Mutex::new(queue)));
        let start = move || confirm(connection.clone(), settings, Arc::clone(&queue));
        tokio::spawn(supervisor::keep("replication", start));
        Ok(Self { redis, settings, waiting })
    }

    /// The connection for submissions. The caller must wait until accepted ones are confirmed.
    pub(crate) fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Waits until the replicas have the writes of that connection. Fails only with `NotReplicated`.
    pub(crate) async fn confirmed(&self, generation: Generation) -> Result<(), StoreError> {
        let (confirmed, confirmation) = oneshot::channel();
        // The submission has been executed, so no failure of the confirmation may claim that nothing happened.
        let unconfirmed = || StoreError::NotReplicated { reached: 0, required: self.settings.replicas };
        self.waiting.send(Waiting { generation, confirmed }).await.map_err(|_| unconfirmed())?;
        confirmation.await.map_err(|_| unconfirmed())?
    }
}

/// Confirms all submissions that wait, with one `WAIT` after another. Ends with the last handle.
async fn confirm(redis: Redis, settings: ReplicationSettings, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let (mut queue, mut batch) = (queue.lock().await, Vec::new());
    while queue.recv_many(&mut batch, MOST_WAITING).await > 0 {
        let reached = replicas_reached(&redis, settings).await;
        for waiting in batch.drain(..) {
            // The receiver is gone if the client has gone away.
            let _ = waiting.confirmed.send(verdict(&reached, waiting.generation, settings));
        }
    }
}

async fn replicas_reached(
    redis: &Redis,
    settings: ReplicationSettings,
) -> Result<(Generation, u32), StoreError> {
    let mut command = redis::cmd("WAIT");
    command.arg(settings.replicas).arg(u64::try_from(settings.timeout.as_millis()).unwrap_or(u64::MAX));
    let Answered { generation, value, .. } = redis.run_on(&command).await?;
    let reached = u32::from_redis_value(value).map_err(StoreError::unreadable("WAIT"))?;
    Ok((generation, reached))
}

/// A `WAIT` on a newer connection proves nothing about writes on an older one.
fn verdict(
    reached: &Result<(Generation, u32), StoreError>,
    written_on: Generation,
    settings: ReplicationSettings,
) -> Result<(), StoreError> {
    match reached {
        Ok((generation, reached)) if *generation == written_on && *reached >= settings.replicas => Ok(()),
        Ok((generation, reached)) if *generation == written_on => {
            Err(StoreError::NotReplicated { reached: *reached, required: settings.replicas })
        }
        _ => Err(StoreError::NotReplicated { reached: 0, required: settings.replicas }),
    }
}
