//! The model behind one trait, in domain types.

mod call;
mod compute;
mod grpc;
mod http;
mod lazy;
mod onnx;
mod onnxruntime;
mod open_inference;
mod pace;
mod served;
pub mod settings;
mod tensorflow_serving;
mod verdict;

#[cfg(any(fuzzing, test))]
pub(crate) use http::fuzzing as http_fuzzing;
pub(crate) use lazy::Lazy;
#[cfg(any(fuzzing, test))]
pub(crate) use onnx::fuzzing as onnx_fuzzing;
#[cfg(any(fuzzing, test))]
pub(crate) use open_inference::fuzzing as open_inference_fuzzing;
#[cfg(any(fuzzing, test))]
pub(crate) use tensorflow_serving::fuzzing;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tepal_shared::{
    model::Model,
    process::{settings::ConfigError, telemetry},
    tensor::Tensor,
};

pub use self::{
    call::{ModelCall, OnlyJob},
    onnxruntime::LibraryError,
    served::ServedInterface,
    verdict::{Evidence, Step, Verdict},
};
use self::{
    compute::Compute,
    settings::{BackendKind, BackendSettings},
};

/// Something that runs a model.
pub trait Backend: Send + Sync + 'static {
    /// Its name in /health, metrics and logs.
    fn name(&self) -> &'static str;

    /// Runs all rows of a batch and returns the outputs in the order of the description. The first axis of each is the batch axis.
    /// Dropping the future aborts the call if the backend can abort.
    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>>;

    /// Most rows of a call that are worth sharing it. A backend that runs rows one by one gains nothing from long calls.
    fn most_rows(&self) -> usize {
        usize::MAX
    }

    /// Checks whether the model can be called now. Returns its metadata as TensorFlow Serving's REST API prints it. Never
    /// uses a job.
    fn probe(&self) -> BoxFuture<'_, Result<serde_json::Value, BackendError>>;

    /// The library that runs the model, with its version, if it is not part of this program.
    fn library(&self) -> Option<String> {
        None
    }
}

/// A backend cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// model.toml names an unknown backend.
    #[error("`backend` under [serving] in model.toml: `{word}` {expected}")]
    Kind {
        /// The value.
        word: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The model has no ONNX file.
    #[error(
        "the model `{0}` has no ONNX file: put model.onnx into its folder, or set MODEL_BACKEND=tensorflow_serving or open_inference"
    )]
    NoOnnxFile(String),
    /// The ONNX file cannot be loaded.
    #[error("the ONNX file {path} cannot be loaded")]
    Onnx {
        /// Which file.
        path: String,
        /// The error of the library that reads it.
        #[source]
        source: Cause,
    },
    /// ONNX Runtime cannot load the ONNX file.
    #[error("the ONNX file {path} cannot be loaded")]
    Session {
        /// Which file.
        path: String,
        /// The library's error, or a difference from the description.
        #[source]
        source: Cause,
    },
    /// The backend is `http`, and the description does not say what to call.
    #[error("the model `{0}` has no endpoint: write a table [http] into its model.toml")]
    NoEndpoint(String),
    /// The endpoint cannot be called as described.
    #[error("the table [http] in the model.toml of `{model}` cannot be used")]
    Endpoint {
        /// Which model.
        model: String,
        /// Everything that is wrong.
        #[source]
        source: ConfigError,
    },
    /// There is no ONNX Runtime library that can be used.
    #[error(transparent)]
    OnnxRuntime(onnxruntime::LibraryError),
    /// The settings of a model server are not an address.
    #[error("{prefix}_HOST `{host}` is not a host name")]
    Address {
        /// Prefix of the names of the settings.
        prefix: &'static str,
        /// The value of the setting.
        host: String,
        /// The error of the client library.
        #[source]
        source: tonic::transport::Error,
    },
    /// The certificates or the name in the server's certificate cannot be used.
    #[error("the TLS settings {prefix}_... cannot be used; {prefix}_TLS_NAME must be a host name")]
    Tls {
        /// Prefix of the names of the settings.
        prefix: &'static str,
        /// The error of the client library.
        #[source]
        source: tonic::transport::Error,
    },
}

impl OpenError {
    /// What the operator can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        let fix = match self {
            Self::NoOnnxFile(_) => "put model.onnx into the folder of the model, or set MODEL_BACKEND",
            Self::Kind { .. } => "change `backend` under [serving] in model.toml",
            Self::Onnx { .. } => {
                "see onnx_file, inputs and outputs in model.toml, or try MODEL_BACKEND=onnxruntime, which has every operator"
            }
            Self::Session { .. } => "see onnx_file, inputs and outputs in model.toml",
            Self::OnnxRuntime(_) => {
                "run `pip install onnxruntime`, or set ORT_DYLIB_PATH to a libonnxruntime.so"
            }
            Self::NoEndpoint(_) | Self::Endpoint { .. } => "see the table [http] in docs/models.md",
            Self::Address { prefix, .. } => return format!("set {prefix}_HOST to a host name"),
            Self::Tls { prefix, .. } => return format!("see the settings {prefix}_..."),
        };
        fix.to_owned()
    }
}

/// What runs the model: the model's own backend, or that of the settings.
///
/// # Errors
/// When `model.toml` names an unknown one.
pub fn kind(settings: &BackendSettings, model: &Model) -> Result<BackendKind, OpenError> {
    kind_named(settings, model.serving.backend.as_deref())
}

/// The backend of this name, or that of the settings.
///
/// # Errors
/// When there is no such backend.
pub fn kind_named(settings: &BackendSettings, word: Option<&str>) -> Result<BackendKind, OpenError> {
    match word {
        Some(word) => word.parse().map_err(|expected| OpenError::Kind { word: word.to_owned(), expected }),
        None => Ok(settings.kind),
    }
}

/// Sets up the backend that the model or the settings name. Does not wait for a model server.
///
/// # Errors
/// When the model cannot be loaded or the address is malformed.
pub fn open(settings: &BackendSettings, model: &Model) -> Result<Arc<dyn Backend>, OpenError> {
    match kind(settings, model)? {
        BackendKind::Onnx => Ok(Arc::new(onnx::Onnx::open(model, &Compute::of_process())?)),
        BackendKind::OnnxRuntime => {
            let compute = Compute::of_process();
            Ok(Arc::new(onnxruntime::OnnxRuntime::open(&settings.onnxruntime, model, &compute)?))
        }
        BackendKind::Http => Ok(Arc::new(http::Http::open(model, settings.max_result_bytes)?)),
        BackendKind::TensorflowServing => {
            let server = &settings.tensorflow_serving;
            Ok(Arc::new(tensorflow_serving::TensorflowServing::open(server, model)?))
        }
        BackendKind::OpenInference => {
            Ok(Arc::new(open_inference::OpenInference::open(&settings.open_inference, model)?))
        }
    }
}

/// The cause of a failure, as a library reports it.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A batch that waits for longer would hold its jobs and its slot, and would delay the end of the worker. It is released.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A failed call. [`Verdict::step`] decides what the worker does next.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub struct BackendError {
    /// Who is to blame, as far as the failure shows.
    pub verdict: Verdict,
    /// One word for programs: the `error_code` of the job if it fails.
    pub code: &'static str,
    /// A sentence for the client: the `error` of the job if it fails.
    pub message: String,
    /// How long the server asked not to be called.
    pub retry_after: Option<Duration>,
    /// The cause, for the log.
    #[source]
    pub cause: Option<Cause>,
}

impl BackendError {
    /// A failure without a cause.
    #[must_use]
    pub fn new(verdict: Verdict, code: &'static str, message: impl Into<String>) -> Self {
        Self { verdict, code, message: message.into(), retry_after: None, cause: None }
    }

    /// What the worker does next.
    #[must_use]
    pub fn step(&self, evidence: Evidence) -> Step {
        let is_put_off = self.retry_after.is_some_and(|pause| pause > LONGEST_WAIT);
        self.verdict.step(Evidence { is_put_off, ..evidence })
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(self, cause: impl Into<Cause>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub(crate) fn timeout() -> Self {
        Self::new(Verdict::Silent, "inference_timeout", "Model inference timeout")
    }

    /// A model in this process failed. The same input fails again, so a retry is useless.
    pub(crate) fn inference(cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        let message = format!("Model inference failed: {}", telemetry::chain(cause.as_ref()));
        Self::new(Verdict::Unusable, "model_error", message).because(cause)
    }

    pub(crate) fn bad_answer(reason: impl fmt::Display) -> Self {
        Self::new(Verdict::Unusable, "bad_model_answer", reason.to_string())
    }
}
