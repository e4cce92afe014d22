//! Servers that can never serve the queue. Waiting does not help; the operator must act.

use crate::{process::tls::Reason, queue::keys::STORED_FORMAT};

/// The reason why the server at the address cannot serve the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongTopology {
    /// It is a Sentinel.
    #[error("the address leads to a Redis Sentinel, which stores no jobs")]
    Sentinel,
    /// It is a node of a Redis Cluster, but the URL is that of a single server.
    #[error("the address leads to a node of a Redis Cluster")]
    Cluster,
    /// It is a single server, but the URL is that of a Redis Cluster.
    #[error("REDIS_URL is that of a Redis Cluster, but the server at the address is not in cluster mode")]
    NoCluster,
    /// The URL is that of Sentinels, but there are none.
    #[error("REDIS_URL is that of Sentinels, but the server at the address is none")]
    NoSentinel,
    /// The Sentinels do not know the group.
    #[error("the Sentinels watch no group called `{name}`")]
    UnknownGroup {
        /// Its name in the URL.
        name: String,
    },
    /// The Sentinels refuse the credentials.
    #[error("the Sentinels refuse the credentials")]
    SentinelCredentials,
    /// The cluster is incomplete.
    #[error("no node of the Redis Cluster owns slot {slot}, which holds keys of the queue")]
    Uncovered {
        /// The number of the slot.
        slot: u16,
    },
    /// The queue has more partitions than this process uses.
    #[error(
        "the queue has jobs in {found} partitions, but PARTITIONS is {own}: those of the others would wait for ever"
    )]
    FewerPartitions {
        /// Partitions of the queue, at least.
        found: u16,
        /// Partitions of this process.
        own: u16,
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
    /// What the operator has to do.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Sentinel => {
                "set REDIS_URL to redis+sentinel://host:26379/name with the name of the group that it watches"
            }
            Self::Cluster => "set REDIS_URL to redis+cluster://host:port",
            Self::NoCluster => "set REDIS_URL to redis://host:port",
            Self::NoSentinel => {
                "set REDIS_URL to the addresses of the Sentinels, whose usual port is 26379, or to redis://host:port"
            }
            Self::UnknownGroup { .. } => {
                "set the name in REDIS_URL to the one after `sentinel monitor` in the configuration of the Sentinels"
            }
            Self::SentinelCredentials => {
                "set SENTINEL_PASSWORD, and SENTINEL_USERNAME if the Sentinels have users"
            }
            Self::Uncovered { .. } => {
                "check the nodes with `redis-cli --cluster check`, start those that are down, or assign the slot"
            }
            Self::FewerPartitions { .. } => "set PARTITIONS to that number or more; it must never shrink",
            Self::StoredFormat { .. } => {
                "start the version that wrote the queue, let its workers drain it while no proxy accepts jobs, then start \
                 this version; or set another QUEUE_NAME"
            }
        }
    }

    pub(crate) fn reason(&self) -> Reason {
        Reason { what: self.to_string(), fix: self.fix().to_owned() }
    }
}
