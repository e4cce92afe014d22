//! Servers that can never serve the queue. Waiting does not help; the operator must act.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::{process::tls::Reason, queue::keys::STORED_FORMAT};

/// The reason why the server at the address cannot serve the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongTopology {
    /// It is a Sentinel.
    #[error("the address leads to a Redis Sentinel, which stores no jobs")]
    Sentinel,
    /// The keys of several partitions are in several slots, but a blocking read needs all keys in one slot.
    #[error("the address leads to a Redis Cluster, which can serve one partition only")]
    SeveralPartitions,
    /// Another node owns some keys of the queue.
    #[error(
        "the address leads to a Redis Cluster node that does not own slot {slot}, which holds keys of the queue"
    )]
    ForeignSlot {
        /// Its number, as Redis wrote it.
        slot: String,
    },
    /// The queue was written by a version with another stored format.
    #[error(
        "the queue has jobs of the stored format {found}, but this version reads and writes format {}",
        STORED_FORMAT
    )]
    StoredFormat {
        /// Its number.
        found: String,
    },
}

impl WrongTopology {
    /// The topology error in an error reply, if it is one.
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
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Sentinel => "set REDIS_HOST and REDIS_PORT, or REDIS_URL, to the primary that it watches",
            Self::SeveralPartitions => "set PARTITIONS=1, or use a Redis without cluster mode",
            Self::StoredFormat { .. } => {
                "start the version that wrote the queue, let its workers drain it while no proxy accepts jobs, then start \
                 this version; or set another QUEUE_NAME"
            }
            Self::ForeignSlot { .. } => "use a Redis without cluster mode, or a cluster of one node",
        }
    }

    pub(crate) fn reason(&self) -> Reason {
        Reason { what: self.to_string(), fix: self.fix().to_owned() }
    }
}
