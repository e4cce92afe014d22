//! Writes heartbeats.

use std::{collections::BTreeMap, time::Duration};

use redis::Value;

use crate::{
    job::ModelName,
    queue::{
        error::StoreError,
        scripts::{HEARTBEAT, PUBLISH, argument::millis, reply::Reply},
        work::handle::Work,
    },
};

/// A description that no worker has published for so long is removed.
const DESCRIPTION_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a removed model is remembered.
const MARK_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

impl Work {
    /// Writes a heartbeat; `state` is JSON. Returns the number of live workers.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn heartbeat(&self, worker: &str, state: &str) -> Result<u64, StoreError> {
        let mut command = HEARTBEAT.call(&[self.queue.keys.workers()]);
        command.arg(worker).arg(state).arg(millis(self.queue.policy.worker_timeout));
        parse_recorded(self.queue.primary_of_workers().run(&command).await?)
    }

    /// Publishes descriptions of models, JSON, and removes those of models that no worker has published for 24 hours.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn publish(&self, descriptions: &[(ModelName, String)]) -> Result<(), StoreError> {
        if descriptions.is_empty() {
            return Ok(());
        }
        let mut command = PUBLISH.call(&[self.queue.keys.models()]);
        command.arg(millis(DESCRIPTION_TTL)).arg(millis(MARK_TTL));
        for (name, description) in descriptions {
            command.arg(name.as_str()).arg(description);
        }
        let mut reply = Reply::new(&PUBLISH, self.queue.primary(0).run(&command).await?)?;
        reply.expect("published")
    }

    /// The models that were removed in the last 30 days, sorted by name.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn removed_models(&self) -> Result<Vec<ModelName>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.queue.keys.models());
        let models: BTreeMap<String, String> =
            redis::from_redis_value(self.queue.primary(0).run(&command).await?)
                .map_err(StoreError::unread)?;
        let removed = models.into_iter().filter(|(_, mark)| !mark.contains(' '));
        Ok(removed.filter_map(|(name, _)| name.parse().ok()).collect())
    }

    /// Removes a worker that stops.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn farewell(&self, worker: &str) -> Result<(), StoreError> {
        self.heartbeat(worker, "").await.map(|_| ())
    }
}

pub(crate) fn parse_recorded(value: Value) -> Result<u64, StoreError> {
    let mut reply = Reply::new(&HEARTBEAT, value)?;
    reply.expect("recorded")?;
    reply.count("the live workers")
}
