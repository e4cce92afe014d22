//! The servers of a queue: one primary, or the primaries of a cluster.

use std::sync::Arc;

use redis::{Client, RedisError};
use tokio::time::Instant;

use crate::{
    job::MOST_PARTITIONS,
    queue::{
        error::{StoreError, WrongTopology},
        link::{
            cluster::{Cluster, Connected, QueueSlots},
            connection::{Connections, Generation, SharedConnection, Source},
            place::{NodeAddress, Place},
            settings::{ConnectionSettings, QueueKeys},
        },
        slots::slot_of,
    },
};

/// The servers.
#[derive(Clone)]
pub(super) enum Topology {
    /// One primary owns all keys.
    One(Arc<SharedConnection>),
    Cluster(Arc<Cluster>),
}

fn slots_of(queue: &QueueKeys) -> QueueSlots {
    let partitions = (0..queue.partitions.min(MOST_PARTITIONS)).map(|partition| partition as u8);
    QueueSlots {
        partitions: partitions.map(|partition| slot_of(&queue.keys.log(partition))).collect(),
        others: [slot_of(&queue.keys.workers())].into(),
        format: queue.has_format.then(|| slot_of(&queue.keys.format())),
    }
}

/// Where a primary sends a call.
pub(super) enum Redirection {
    /// The slot has a new owner.
    Moved,
    /// The slot is being migrated: the node at this connection may have the key.
    Ask(Arc<SharedConnection>),
}

impl Topology {
    /// Starts to connect.
    pub(super) fn open(settings: ConnectionSettings) -> Result<Self, RedisError> {
        if let Place::Cluster { nodes } = settings.place.clone() {
            let slots = settings.queue.as_ref().map(slots_of).unwrap_or_default();
            return Ok(Self::Cluster(Cluster::open(settings, nodes, slots)));
        }
        let source = match settings.sentinels() {
            Some(sentinels) => Source::Sentinels(sentinels),
            None => Source::Fixed(Client::open(settings.info.clone())?),
        };
        Ok(Self::One(SharedConnection::open(settings, source, Connections::default())))
    }

    /// The slot of the key; `None` if one primary owns all keys.
    pub(super) fn slot_of(&self, key: &str) -> Option<u16> {
        match self {
            Self::One(_) => None,
            Self::Cluster(_) => Some(slot_of(key)),
        }
    }

    /// The connection to the primary of the slot, or why there is none. Without a slot: to any primary.
    pub(super) fn state(&self, slot: Option<u16>) -> Result<Generation, StoreError> {
        match self {
            Self::One(shared) => shared.state(),
            Self::Cluster(cluster) => cluster.state(slot),
        }
    }

    /// Waits until a primary of the slot is connected.
    pub(super) async fn up(&self, slot: Option<u16>) {
        match self {
            Self::One(shared) => shared.up().await,
            Self::Cluster(cluster) => cluster.up(slot).await,
        }
    }

    /// Waits until the primary of the slot is at another address than this one, and connected.
    pub(super) async fn replaced(&self, slot: Option<u16>, former: &str) {
        match self {
            Self::One(shared) => shared.replaced(former).await,
            Self::Cluster(cluster) => cluster.replaced(slot, former).await,
        }
    }

    /// Waits for the connection to the primary of the slot.
    pub(super) async fn connection(
        &self,
        slot: Option<u16>,
        give_up: Instant,
    ) -> Result<Connected, StoreError> {
        match self {
            Self::One(shared) => {
                let (generation, connection) = shared.connection(give_up).await?;
                Ok((Arc::clone(shared), generation, connection))
            }
            Self::Cluster(cluster) => cluster.connection(slot, give_up).await,
        }
    }

    /// What to do about an error that names another node. Nothing was executed.
    pub(super) fn redirection(&self, error: &RedisError, from: &SharedConnection) -> Option<Redirection> {
        let Self::Cluster(cluster) = self else { return None };
        let (address, slot) = error.redirect_node()?;
        let address = NodeAddress::parse(address, from.host()?)?;
        if error.code() == Some("ASK") {
            return Some(Redirection::Ask(cluster.node(&address)));
        }
        cluster.moved(slot, address);
        Some(Redirection::Moved)
    }

    /// A connection broke, or was answered by a node that is not the primary of the slot.
    pub(super) fn doubt(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.doubt();
        }
    }

    /// Waits for the first connection. Returns why, if the queue has another stored format; otherwise it waits for ever.
    pub(super) async fn refused_format(&self, format_key: &str) -> WrongTopology {
        let slot = self.slot_of(format_key);
        match self {
            Self::One(shared) => shared.refused_format().await,
            Self::Cluster(cluster) => loop {
                match cluster.state(slot) {
                    Err(StoreError::WrongTopology(format @ WrongTopology::StoredFormat { .. })) => {
                        return format;
                    }
                    Ok(_) => return std::future::pending().await,
                    Err(_) => tokio::time::sleep(super::connection::FIRST_PAUSE).await,
                }
            },
        }
    }
}
