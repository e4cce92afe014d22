//! What answers at Redis's address. A Sentinel, or a Redis Cluster node that does not hold all keys of the queue, can
//! never serve it: waiting does not help, and only the operator can.

use std::collections::HashMap;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};

use crate::{error::StoreError, keys::Keys, tls::Reason};

/// Why the server at the address cannot serve the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongTopology {
    /// It only watches Redis servers.
    #[error("the address leads to a Redis Sentinel, which stores no jobs")]
    Sentinel,
    /// The keys of several partitions are in several slots, and a blocking read must stay in one.
    #[error("the address leads to a Redis Cluster, which can serve one partition only")]
    SeveralPartitions,
    /// Another node owns keys of the queue.
    #[error(
        "the address leads to a Redis Cluster node that does not own slot {slot}, which holds keys of the queue"
    )]
    ForeignSlot {
        /// Its number, as Redis wrote it.
        slot: String,
    },
}

impl WrongTopology {
    /// What an error reply says of the topology, if that is what it is about.
    pub(crate) fn from_reply(error: &RedisError) -> Option<Self> {
        match error.kind() {
            // `MOVED 12034 127.0.0.1:7001`
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
                let slot = error.detail().and_then(|detail| detail.split(' ').next()).unwrap_or("?");
                Some(Self::ForeignSlot { slot: slot.to_owned() })
            }
            ErrorKind::Server(ServerErrorKind::CrossSlot) => Some(Self::SeveralPartitions),
            _ => None,
        }
    }

    /// What the operator has to do.
    #[must_use]
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Sentinel => "set REDIS_HOST and REDIS_PORT, or REDIS_URL, to the primary that it watches",
            Self::SeveralPartitions => "set PARTITIONS=1, or use a Redis without cluster mode",
            Self::ForeignSlot { .. } => "use a Redis without cluster mode, or a cluster of one node",
        }
    }

    pub(super) fn reason(&self) -> Reason {
        Reason { what: self.to_string(), mend: self.mend().to_owned() }
    }
}

/// What a node of a Redis Cluster must own to serve a queue.
#[derive(Clone, Debug)]
pub(super) struct QueueKeys {
    partitions: u16,
    /// A key of each slot that is used, under which no job can be stored.
    samples: [String; 2],
}

impl QueueKeys {
    pub(super) fn new(keys: &Keys, partitions: u16) -> Self {
        Self { partitions, samples: [keys.job_prefix(0), keys.workers()] }
    }
}

/// Whether a server is part of a Redis Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Standalone,
    Cluster,
}

/// Checks that a primary answers. A replica answers, too, but its data may be old and it takes no changes. Every user may
/// send HELLO, whatever the ACL, and a replica that has lost its primary answers it as well.
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
        return Err(RedisError::from((super::REPLICA, "it says so itself")).into());
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
