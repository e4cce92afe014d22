//! A queue: its connection, its keys and its numbers.

use crate::{
    job::MOST_PARTITIONS,
    queue::{keys::Keys, link::Redis, policy::Policy},
};

/// A queue in Redis. Clones share the connection. What a service may do with it is in the roles that are made of it:
/// [`Intake`](super::intake::Intake), [`Work`](super::work::Work), [`Views`](super::views::Views).
#[derive(Clone, Debug)]
pub struct Queue {
    pub(super) redis: Redis,
    pub(super) keys: Keys,
    pub(super) policy: Policy,
}

impl Queue {
    /// The queue that `keys` names.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys, policy: Policy) -> Self {
        Self { redis, keys, policy }
    }

    /// The connection, for health checks and blocking reads.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The numbers that the transitions use.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Every partition's number.
    pub fn partitions(&self) -> impl Iterator<Item = u8> + use<> {
        (0..self.policy.partitions.min(MOST_PARTITIONS)).map(|partition| partition as u8)
    }
}
