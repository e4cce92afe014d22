//! The workers' heartbeats.

use super::{JobStore, millis};
use crate::queue::{
    error::StoreError,
    scripts::{self, WorkerRecord},
};

impl JobStore {
    /// Records that a worker lives; `state` is JSON. Returns the number of live workers.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn heartbeat(&self, worker: &str, state: &str) -> Result<u64, StoreError> {
        let mut command = scripts::HEARTBEAT.call(&[self.keys.workers()]);
        command.arg(worker).arg(state).arg(millis(self.policy.worker_timeout));
        scripts::parse_recorded(self.redis.run(&command).await?)
    }

    /// Records that a worker leaves.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn farewell(&self, worker: &str) -> Result<(), StoreError> {
        self.heartbeat(worker, "").await.map(|_| ())
    }

    /// The live workers.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let mut command = scripts::WORKERS.call(&[self.keys.workers()]);
        command.arg(millis(self.policy.worker_timeout));
        scripts::parse_workers(self.redis.run(&command).await?)
    }
}
