//! A worker's settings, as environment variables.

use std::{net::SocketAddr, path::Path};

use tepal_tests::{model_server::ModelServer, onnxruntime};

/// The folder with the description of the toy model.
pub(crate) const TOY_MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/models");

/// Settings of a test beside the harness's own (Redis, the iris model, JSON logs, a free METRICS_ADDR).
#[derive(Clone, Default)]
pub(crate) struct Settings(Vec<(String, String)>);

impl Settings {
    /// The model runs in the worker itself.
    pub(crate) fn onnx() -> Self {
        Self::default()
    }

    /// The model runs in the worker itself, with ONNX Runtime.
    pub(crate) fn onnxruntime() -> Self {
        Self::default()
            .with("MODEL_BACKEND", "onnxruntime")
            .with(onnxruntime::SETTING, onnxruntime::library().display())
    }

    /// The model runs in this server.
    pub(crate) fn serving(server: &ModelServer) -> Self {
        Self::serving_at(server.addr())
    }

    /// The model runs in a server that listens, or will listen, on this address.
    pub(crate) fn serving_at(addr: SocketAddr) -> Self {
        Self::default()
            .with("MODEL_BACKEND", "tensorflow_serving")
            .with("TF_SERVING_HOST", addr.ip())
            .with("TF_SERVING_GRPC_PORT", addr.port())
    }

    /// The model runs in this server of the Open Inference Protocol.
    pub(crate) fn open_inference(server: &ModelServer) -> Self {
        Self::open_inference_at(server.addr())
    }

    /// The model runs in a server of the Open Inference Protocol that listens, or will listen, on this address.
    pub(crate) fn open_inference_at(addr: SocketAddr) -> Self {
        Self::default()
            .with("MODEL_BACKEND", "open_inference")
            .with("OPEN_INFERENCE_HOST", addr.ip())
            .with("OPEN_INFERENCE_GRPC_PORT", addr.port())
    }

    /// One more variable; a later value of the same name wins.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.push((name.to_owned(), value.to_string()));
        self
    }

    /// Another model than iris, and no other of its repository.
    pub(crate) fn with_model(self, models_dir: &Path, name: &str) -> Self {
        self.with("MODELS_DIR", models_dir.display()).with("MODEL_NAME", name).with("MODELS", name)
    }

    /// One consumer that runs one batch at a time, so that waiting jobs share a call.
    pub(crate) fn one_at_a_time(self) -> Self {
        self.with("NUM_WORKERS", 1).with("MAX_IN_FLIGHT", 1)
    }

    /// A short lease, and searches for lapsed ones often enough to notice it.
    pub(crate) fn with_lease_ms(self, lease_ms: u64) -> Self {
        self.with("LEASE_MS", lease_ms).with("RECLAIM_INTERVAL_MS", 100)
    }

    /// These settings, and then others, which win.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// In the form that the harness needs.
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}
