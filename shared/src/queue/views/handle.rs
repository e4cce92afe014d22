//! The role of a reader.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Semaphore;

use crate::{
    job::ModelName,
    queue::{error::StoreError, handle::Queue, heartbeat::WorkerRecord},
};

/// The mark of a model that was removed a moment ago. The next worker that publishes descriptions replaces it with the time.
const REMOVED_NOW: u64 = 0;

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
        let published = self.queue.primary(0).run(&command).await?;
        let published: HashMap<String, String> =
            redis::from_redis_value(published).map_err(StoreError::unread)?;
        // Each begins with the time at which it was published.
        let described = |(name, text): (String, String)| Some((name, text.split_once(' ')?.1.to_owned()));
        Ok(published.into_iter().filter_map(described).collect())
    }

    /// Removes a published description. Workers recognise the removed model by the mark in its place.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn unpublish(&self, model: ModelName) -> Result<(), StoreError> {
        let mut command = redis::cmd("HSET");
        command.arg(self.queue.keys.models()).arg(model.as_str()).arg(REMOVED_NOW);
        let _: u64 = redis::from_redis_value(self.queue.primary(0).run(&command).await?)
            .map_err(StoreError::unread)?;
        Ok(())
    }

    /// The live workers.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.queue.live_workers().await
    }
}
