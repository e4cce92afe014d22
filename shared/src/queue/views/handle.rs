//! The role of a reader.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Semaphore;

use crate::queue::{error::StoreError, handle::Queue, heartbeat::WorkerRecord};

/// Reads of a queue. Nothing here changes a job. Clones share the turns of large reads.
#[derive(Clone, Debug)]
pub struct Views {
    pub(super) queue: Queue,
    /// Reads of many jobs take turns.
    pub(super) large_reads: Arc<Semaphore>,
}

impl Views {
    /// Reads of this queue.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self { queue, large_reads: Arc::new(Semaphore::new(1)) }
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The descriptions of the models that workers published: names and JSON.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn published_models(&self) -> Result<HashMap<String, String>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.queue.keys.models());
        redis::from_redis_value(self.queue.redis.run(&command).await?).map_err(StoreError::unread)
    }

    /// The live workers.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.queue.live_workers().await
    }
}
