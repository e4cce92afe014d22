//! The queue under test.

use tepal_shared::queue::{Policy, Queue, intake::Intake, keys::Keys, link::Redis, views::Views, work::Work};

/// Every role in one queue.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) queue: Queue,
    pub(crate) intake: Intake,
    pub(crate) work: Work,
    pub(crate) views: Views,
}

impl Store {
    pub(crate) fn new(redis: Redis, keys: Keys, policy: Policy) -> Self {
        let queue = Queue::new(redis, keys, policy);
        let (intake, work, views) =
            (Intake::new(queue.clone()), Work::new(queue.clone()), Views::new(queue.clone()));
        Self { queue, intake, work, views }
    }
}
