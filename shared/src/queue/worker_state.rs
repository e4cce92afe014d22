//! What a worker says of itself with each heartbeat. The proxy answers /health and /metadata from it and never talks
//! to a model server.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The state of one worker process, stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerState {
    /// Name of the machine.
    pub host: String,
    /// Process id on that machine.
    pub pid: u32,
    /// Version of the worker.
    pub version: String,
    /// Which kind of backend it calls: `onnx` or `tensorflow_serving`.
    pub backend: String,
    /// Whether the backend can be called.
    pub backend_state: BackendState,
    /// Why it cannot; for the log and the operator, not for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_detail: Option<String>,
    /// The model's metadata as TensorFlow Serving's REST API prints it, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Number of consumers.
    pub consumers: u32,
    /// Jobs that it holds.
    pub in_flight: u64,
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
