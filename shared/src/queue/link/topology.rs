//! Checks the server at Redis's address. Sentinels, replicas, and Redis Cluster nodes without all keys of the queue are refused.

use std::collections::HashMap;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};

use crate::queue::{
    error::{StoreError, WrongTopology},
    keys::Keys,
};

/// The error of a connection to a replica: the same as that of a write.
pub(super) const REPLICA: ErrorKind = ErrorKind::Server(ServerErrorKind::ReadOnly);

/// The keys that a Redis Cluster node must own to serve a queue.
#[derive(Clone, Debug)]
pub(super) struct QueueKeys {
    pub(super) partitions: u16,
    /// Whether the stored format is checked.
    pub(super) has_format: bool,
    pub(super) keys: Keys,
    /// One key of each slot. No job is stored under these keys.
    samples: [String; 2],
}

impl QueueKeys {
    pub(super) fn new(keys: &Keys, partitions: u16) -> Self {
        Self {
            partitions,
            has_format: true,
            keys: keys.clone(),
            samples: [keys.job_prefix(0), keys.workers()],
        }
    }
}

/// Whether a server is part of a Redis Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Standalone,
    Cluster,
}

/// Checks that the server is a primary. A replica may have old data and refuses writes. Every user may send HELLO, whatever the
/// ACL, and a replica that has lost its primary answers it, too.
pub(super) async fn expect_primary(connection: &mut MultiplexedConnection) -> Result<Mode, StoreError> {
    let reply: HashMap<String, Value> = redis::cmd("HELLO").query_async(connection).await?;
    let is = |field: &str, word: &str| match reply.get(field) {
        Some(Value::BulkString(text)) => text == word.as_bytes(),
        _ => false,
    };
    if is("mode", "sentinel") {
        return Err(StoreError::WrongTopology(WrongTopology::Sentinel));
    }
    if is("role", "replica") {
        return Err(RedisError::from((REPLICA, "it says so itself")).into());
    }
    Ok(if is("mode", "cluster") { Mode::Cluster } else { Mode::Standalone })
}

/// Checks that a cluster node owns the keys of the queue.
pub(super) async fn expect_keys(
    connection: &mut MultiplexedConnection,
    queue: &QueueKeys,
) -> Result<(), StoreError> {
    if queue.partitions > 1 {
        return Err(StoreError::WrongTopology(WrongTopology::SeveralPartitions));
    }
    for key in &queue.samples {
        redis::cmd("HGET").arg(key).arg("").exec_async(connection).await?;
    }
    Ok(())
}
