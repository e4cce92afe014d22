//! The model behind one trait, in domain types.

mod onnx;
mod tensorflow_serving;

#[cfg(any(fuzzing, test))]
pub(crate) use tensorflow_serving::fuzzing;

use std::{fmt, str::FromStr, sync::Arc};

use futures_util::future::BoxFuture;
use tepal_shared::tensor::{Batch, Tensor};

use crate::config::Config;

/// Something that runs a model.
pub trait Backend: Send + Sync + 'static {
    /// The word for it in /health, metrics and logs.
    fn name(&self) -> &'static str;

    /// Runs all rows of a batch; the answer's first axis is the batch axis. Dropping the future aborts the call where
    /// that is possible.
    fn predict(&self, batch: Batch) -> BoxFuture<'_, Result<Tensor, BackendError>>;

    /// Whether the model can be called now, and its metadata as TensorFlow Serving's REST API prints it. Never costs
    /// a job.
    fn probe(&self) -> BoxFuture<'_, Result<serde_json::Value, BackendError>>;
}

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In this process, from an ONNX file.
    Onnx,
    /// TensorFlow Serving, over gRPC.
    TensorflowServing,
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "onnx" => Ok(Self::Onnx),
            "tensorflow_serving" => Ok(Self::TensorflowServing),
            _ => Err("must be onnx or tensorflow_serving"),
        }
    }
}

/// A backend cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The description names no ONNX file.
    #[error(
        "the model `{0}` has no onnx_file in its model.toml; add one or set MODEL_BACKEND=tensorflow_serving"
    )]
    NoOnnxFile(String),
    /// The ONNX file cannot be loaded.
    #[error("the ONNX file {path} cannot be loaded: {reason}")]
    Onnx {
        /// Which file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// TF_SERVING_HOST and TF_SERVING_GRPC_PORT make no address.
    #[error("TF_SERVING_HOST `{host}` is not a host name")]
    Address {
        /// What was given.
        host: String,
        /// What the client library says.
        #[source]
        source: tonic::transport::Error,
    },
    /// The certificates or the name in the server's certificate cannot be used.
    #[error("the settings TF_SERVING_... of TLS cannot be used; TF_SERVING_TLS_NAME must be a host name")]
    Tls(#[source] tonic::transport::Error),
}

/// Sets up the backend that the settings name. Does not wait for a model server.
///
/// # Errors
/// When the model cannot be loaded or the address is malformed.
pub fn open(config: &Config) -> Result<Arc<dyn Backend>, OpenError> {
    match config.backend {
        Kind::Onnx => Ok(Arc::new(onnx::Onnx::open(&config.common.model)?)),
        Kind::TensorflowServing => Ok(Arc::new(tensorflow_serving::TensorflowServing::open(config)?)),
    }
}

/// A call failed. What follows from it is decided by [`BackendError::verdict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendError {
    /// What follows.
    pub verdict: Verdict,
    /// One word for programs, the job's `error_code` if it comes to that.
    pub code: &'static str,
    /// A sentence for the client, the job's `error` if it comes to that.
    pub message: String,
}

/// What follows from a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend is not there: give the jobs back, stop taking.
    Unavailable,
    /// The backend went away during the call: the same, and one of the jobs may be why.
    Broken,
    /// The backend is overloaded: try again, with fewer batches at a time.
    Overloaded,
    /// Trying again may help.
    Retry,
    /// Trying again cannot help; if several jobs were in the batch, only some may be to blame.
    Reject,
}

impl BackendError {
    pub(crate) fn new(verdict: Verdict, code: &'static str, message: impl Into<String>) -> Self {
        Self { verdict, code, message: message.into() }
    }

    pub(crate) fn timeout() -> Self {
        Self::new(Verdict::Retry, "inference_timeout", "Model inference timeout")
    }

    pub(crate) fn bad_answer(reason: impl fmt::Display) -> Self {
        Self::new(Verdict::Reject, "bad_model_answer", reason.to_string())
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
