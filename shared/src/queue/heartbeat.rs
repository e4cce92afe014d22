//! What a worker reports with its heartbeat, and which workers are alive. The proxy answers /health and /metadata from it and
//! never calls a model server.

use std::{collections::BTreeMap, time::Duration};

use redis::Value as Reported;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::queue::{
    error::StoreError,
    handle::Queue,
    scripts::{WORKERS, argument::millis, reply::Reply},
};

/// State of a worker process, stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    /// Name of the machine.
    pub host: String,
    /// Process id on that machine.
    pub pid: u32,
    /// Version of the worker.
    pub version: String,
    /// Kind of its backend, as in `MODEL_BACKEND`.
    pub backend: String,
    /// Whether the backend can be called.
    pub backend_state: BackendState,
    /// Why it cannot be called; for the log and operators, not for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_detail: Option<String>,
    /// Metadata of the model, in the form of TensorFlow Serving's REST API, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// The models that it serves, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ServedModel>,
    /// Models whose present files it cannot load. It may serve their earlier files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_models: Vec<String>,
    /// Models that it does not serve yet, because their server has not described them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undescribed_models: Vec<String>,
    /// Number of consumers.
    pub consumers: u32,
    /// Number of partitions in which it looks for jobs; 0 = not reported.
    #[serde(default)]
    pub partitions: u16,
    /// Number of jobs that it holds.
    pub in_flight: u64,
}

/// A model that a worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedModel {
    /// Kind of its backend.
    pub backend: String,
    /// Whether the backend can be called.
    pub state: BackendState,
    /// Hash of its description.
    #[serde(default)]
    pub description: String,
}

/// Whether a backend can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It answers.
    Ok,
    /// It does not answer, or does not have the model.
    Down,
}

/// A live worker's last heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    /// The worker process.
    pub id: String,
    /// Its [`WorkerState`], JSON.
    pub state: String,
    /// Time since its last heartbeat.
    pub silence: Duration,
}

impl WorkerRecord {
    /// Whether it reports this model. A worker of another version may report something else.
    #[must_use]
    pub fn serves(&self, model: &str) -> bool {
        serde_json::from_str::<WorkerState>(&self.state).is_ok_and(|state| state.models.contains_key(model))
    }
}

impl Queue {
    /// The live workers.
    pub(super) async fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let mut command = WORKERS.call(&[self.keys.workers()]);
        command.arg(millis(self.policy.worker_timeout));
        parse_workers(self.primary_of_workers().run(&command).await?)
    }
}

pub(crate) fn parse_workers(value: Reported) -> Result<Vec<WorkerRecord>, StoreError> {
    let mut reply = Reply::new(&WORKERS, value)?;
    reply.expect("workers")?;
    let workers = reply.list("the workers")?;
    workers
        .into_iter()
        .map(|mut worker| {
            Ok(WorkerRecord {
                id: worker.text("a worker id")?,
                state: worker.text("a worker's state")?,
                silence: Duration::from_millis(worker.count("a silence")?),
            })
        })
        .collect()
}
