//! Acknowledgement by replicas (`WAIT`, Redis command page): a submission is confirmed only when enough replicas hold
//! it. `WAIT` speaks of the writes of its own connection and holds that connection up, so submissions have one of
//! their own, and one `WAIT` confirms all submissions that came before it.

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

/// How many replicas must hold a submission before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationPolicy {
    /// Number of replicas; at least one.
    pub replicas: u32,
    /// How long to wait for them.
    pub timeout: Duration,
}

/// Runs submissions and confirms them. Clones share one connection.
#[derive(Clone, Debug)]
pub(crate) struct Replicated {
    redis: Redis,
    policy: ReplicationPolicy,
    waiting: mpsc::Sender<Waiting>,
}

/// A submission that was executed on a connection of this generation and waits for its confirmation.
struct Waiting {
    generation: Generation,
    confirmed: oneshot::Sender<Result<(), StoreError>>,
}

impl Replicated {
    /// Opens a connection for submissions; needs a tokio runtime.
    pub(crate) fn open(settings: ConnectionSettings, policy: ReplicationPolicy) -> Result<Self, RedisError> {
        let redis = Redis::open(settings.with_response_timeout(policy.timeout + Duration::from_secs(2)))?;
        let (waiting, queue) = mpsc::channel(MOST_WAITING);
        let (connection, queue) = (redis.clone(), Arc::new(Mutex::new(queue)));
        let start = move || confirm(connection.clone(), policy, Arc::clone(&queue));
        tokio::spawn(supervisor::keep("replication", start));
        Ok(Self { redis, policy, waiting })
    }

    /// The connection for submissions; the caller has those confirmed that were accepted.
    pub(crate) fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Waits until the replicas have what was written on that connection; fails with `NotReplicated` only.
    pub(crate) async fn confirmed(&self, generation: Generation) -> Result<(), StoreError> {
        let (confirmed, confirmation) = oneshot::channel();
        // The submission was executed by now: whatever hinders its confirmation must not say that nothing happened.
        let unconfirmed = || StoreError::NotReplicated { reached: 0, required: self.policy.replicas };
        self.waiting.send(Waiting { generation, confirmed }).await.map_err(|_| unconfirmed())?;
        confirmation.await.map_err(|_| unconfirmed())?
    }
}

/// Confirms whatever waits with one `WAIT` after the other; ends with the last handle.
async fn confirm(redis: Redis, policy: ReplicationPolicy, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let (mut queue, mut batch) = (queue.lock().await, Vec::new());
    while queue.recv_many(&mut batch, MOST_WAITING).await > 0 {
        let reached = replicas_reached(&redis, policy).await;
        for waiting in batch.drain(..) {
            // Nobody listens when the client has gone away.
            let _ = waiting.confirmed.send(verdict(&reached, waiting.generation, policy));
        }
    }
}

async fn replicas_reached(redis: &Redis, policy: ReplicationPolicy) -> Result<(Generation, u32), StoreError> {
    let mut command = redis::cmd("WAIT");
    command.arg(policy.replicas).arg(u64::try_from(policy.timeout.as_millis()).unwrap_or(u64::MAX));
    let Answered { generation, value, .. } = redis.run_on(&command).await?;
    let reached = u32::from_redis_value(value).map_err(StoreError::unreadable("WAIT"))?;
    Ok((generation, reached))
}

/// A `WAIT` on a newer connection says nothing of writes on an older one.
fn verdict(
    reached: &Result<(Generation, u32), StoreError>,
    written_on: Generation,
    policy: ReplicationPolicy,
) -> Result<(), StoreError> {
    match reached {
        Ok((generation, reached)) if *generation == written_on && *reached >= policy.replicas => Ok(()),
        Ok((generation, reached)) if *generation == written_on => {
            Err(StoreError::NotReplicated { reached: *reached, required: policy.replicas })
        }
        _ => Err(StoreError::NotReplicated { reached: 0, required: policy.replicas }),
    }
}
