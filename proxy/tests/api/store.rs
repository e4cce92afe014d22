//! The queue of the proxy.

use tepal_shared::queue::{Policy, Queue, keys::Keys, link::Redis, work::Work};

/// The queue, and the role of a worker in it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) queue: Queue,
    pub(crate) work: Work,
}

impl Store {
    pub(crate) fn new(redis: Redis, keys: Keys, policy: Policy) -> Self {
        let queue = Queue::new(redis, keys, policy);
        Self { work: Work::new(queue.clone()), queue }
    }
}
