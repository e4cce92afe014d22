//! Settings of the backend: what runs the model, where ONNX Runtime is, and how to reach model servers.

mod model_server;

use std::{path::PathBuf, str::FromStr, thread};

use clap::Args;
use tepal_shared::{model::HTTP, process::settings::Mistakes};

pub use self::model_server::{ModelServer, ModelServerTls, OpenInferenceArgs, TensorflowServingArgs};

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct BackendArgs {
    /// What runs the model: onnx or onnxruntime (both in this process), or the server of tensorflow_serving or open_inference. Models
    /// with a table [http] have the backend http
    #[arg(long, env = "MODEL_BACKEND", default_value = "onnx", value_name = "KIND")]
    model_backend: String,
    /// ONNX Runtime library; none = the one of the Python package onnxruntime, or of the system
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    ort_dylib_path: Option<PathBuf>,
    /// Threads on which ONNX Runtime computes, for all models together; none = as many as cores
    #[arg(long, env = "ONNXRUNTIME_THREADS", value_name = "NUMBER")]
    onnxruntime_threads: Option<String>,
    #[command(flatten)]
    tensorflow_serving: TensorflowServingArgs,
    #[command(flatten)]
    open_inference: OpenInferenceArgs,
}

/// [`BackendArgs`] after checking.
#[derive(Clone, Debug)]
pub struct BackendSettings {
    /// What runs the model.
    pub kind: BackendKind,
    /// Library and threads of ONNX Runtime.
    pub onnxruntime: OnnxRuntimeSettings,
    /// Address and TLS of TensorFlow Serving.
    pub tensorflow_serving: ModelServer,
    /// Address and TLS of the server of the Open Inference Protocol.
    pub open_inference: ModelServer,
    /// Largest result of a job, bytes. A backend need not read a larger answer.
    pub max_result_bytes: usize,
}

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// In this process, from an ONNX file.
    Onnx,
    /// In this process with the ONNX Runtime library, from an ONNX file.
    OnnxRuntime,
    /// TensorFlow Serving, over gRPC.
    TensorflowServing,
    /// A server of the Open Inference Protocol, over gRPC.
    OpenInference,
    /// The endpoint that the model's description names, over HTTP.
    Http,
}

impl BackendKind {
    /// The word of the setting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::OnnxRuntime => "onnxruntime",
            Self::TensorflowServing => "tensorflow_serving",
            Self::OpenInference => "open_inference",
            Self::Http => HTTP,
        }
    }

    /// Whether a model server runs the model, and describes it.
    #[must_use]
    pub fn is_server(self) -> bool {
        matches!(self, Self::TensorflowServing | Self::OpenInference)
    }
}

impl FromStr for BackendKind {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "onnx" => Ok(Self::Onnx),
            "onnxruntime" => Ok(Self::OnnxRuntime),
            "tensorflow_serving" => Ok(Self::TensorflowServing),
            "open_inference" => Ok(Self::OpenInference),
            HTTP => Ok(Self::Http),
            _ => Err("must be onnx, onnxruntime, tensorflow_serving, open_inference or http"),
        }
    }
}

/// Library and threads of ONNX Runtime.
#[derive(Clone, Debug)]
pub struct OnnxRuntimeSettings {
    /// The library; `None` to search for it.
    pub library: Option<PathBuf>,
    /// Number of threads for all models together.
    pub threads: usize,
}

impl BackendSettings {
    /// The model server of this kind, if it is one.
    #[must_use]
    pub fn server(&self, kind: BackendKind) -> Option<&ModelServer> {
        match kind {
            BackendKind::Onnx | BackendKind::OnnxRuntime | BackendKind::Http => None,
            BackendKind::TensorflowServing => Some(&self.tensorflow_serving),
            BackendKind::OpenInference => Some(&self.open_inference),
        }
    }
}

impl BackendArgs {
    /// With the limit of results, which concerns more than the backend.
    pub(crate) fn check(&self, max_result_bytes: usize, mistakes: &mut Mistakes) -> BackendSettings {
        BackendSettings {
            kind: mistakes.parsed("MODEL_BACKEND", &self.model_backend, BackendKind::Onnx),
            onnxruntime: OnnxRuntimeSettings {
                library: self.ort_dylib_path.clone(),
                threads: self.threads(mistakes),
            },
            tensorflow_serving: self.tensorflow_serving.check(mistakes),
            open_inference: self.open_inference.check(mistakes),
            max_result_bytes,
        }
    }

    fn threads(&self, mistakes: &mut Mistakes) -> usize {
        match &self.onnxruntime_threads {
            Some(text) => mistakes.number("ONNXRUNTIME_THREADS", text, 1..=1024),
            None => thread::available_parallelism().map_or(1, usize::from),
        }
    }
}
