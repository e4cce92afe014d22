//! The role of a worker.

use std::time::Duration;

use crate::queue::{error::StoreError, handle::Queue, heartbeat::WorkerRecord, loss::LogMark};

/// What a worker may do with a queue: claim jobs, renew their leases, settle them, keep the stored data in order.
#[derive(Clone, Debug)]
pub struct Work {
    pub(super) queue: Queue,
}

impl Work {
    /// The role of a worker in this queue.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self { queue }
    }

    /// The same for jobs that are kept for so long after their end.
    #[must_use]
    pub fn with_result_ttl(&self, result_ttl: Duration) -> Self {
        let mut queue = self.queue.clone();
        queue.policy.failed_input_ttl = queue.policy.failed_input_ttl.min(result_ttl);
        queue.policy.result_ttl = result_ttl;
        Self { queue }
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The live workers.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.queue.live_workers().await
    }

    /// The end of the partition's log.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn log_mark(&self, partition: u8) -> Result<LogMark, StoreError> {
        self.queue.log_mark(partition).await
    }
}
