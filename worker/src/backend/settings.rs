//! Settings of the backend: what runs the model, where ONNX Runtime is, and how to reach TensorFlow Serving.

use std::{path::PathBuf, str::FromStr, thread};

use clap::Args;
use tepal_shared::process::{
    settings::{Host, Mistakes},
    tls::{ClientFiles, ClientTls},
};

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct BackendArgs {
    /// What runs the model: onnx or onnxruntime (both in this process), or tensorflow_serving
    #[arg(long, env = "MODEL_BACKEND", default_value = "onnx", value_name = "KIND")]
    model_backend: String,
    /// ONNX Runtime library; none = the one of the Python package onnxruntime, or of the system
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE")]
    ort_dylib_path: Option<PathBuf>,
    /// Threads on which ONNX Runtime computes, for all models together; none = as many as cores
    #[arg(long, env = "ONNXRUNTIME_THREADS", value_name = "NUMBER")]
    onnxruntime_threads: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags and environment variables of the connection to TensorFlow Serving.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct ServerArgs {
    /// Host of TensorFlow Serving
    #[arg(long, env = "TF_SERVING_HOST", default_value = "127.0.0.1", value_name = "HOST")]
    tf_serving_host: String,
    /// gRPC port of TensorFlow Serving
    #[arg(long, env = "TF_SERVING_GRPC_PORT", default_value = "8500", value_name = "PORT")]
    tf_serving_grpc_port: String,
    /// Whether TensorFlow Serving uses TLS, true or false; none = true if another TLS setting is given
    #[arg(long, env = "TF_SERVING_TLS", value_name = "BOOL")]
    tf_serving_tls: Option<String>,
    /// PEM file of the authorities that may have signed its certificate; none = those that browsers trust
    #[arg(long, env = "TF_SERVING_CA_FILE", value_name = "FILE")]
    tf_serving_ca_file: Option<String>,
    /// PEM file of the client certificate, for a server that asks for one
    #[arg(long, env = "TF_SERVING_CERT_FILE", value_name = "FILE")]
    tf_serving_cert_file: Option<String>,
    /// PEM file of its private key
    #[arg(long, env = "TF_SERVING_KEY_FILE", value_name = "FILE")]
    tf_serving_key_file: Option<String>,
    /// Name that its certificate must contain; none = TF_SERVING_HOST
    #[arg(long, env = "TF_SERVING_TLS_NAME", value_name = "NAME")]
    tf_serving_tls_name: Option<String>,
}

/// [`BackendArgs`] after checking.
#[derive(Clone, Debug)]
pub struct BackendSettings {
    /// What runs the model.
    pub kind: BackendKind,
    /// Library and threads of ONNX Runtime.
    pub onnxruntime: OnnxRuntimeSettings,
    /// Address and TLS of TensorFlow Serving.
    pub server: ModelServer,
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
}

impl BackendKind {
    /// The word of the setting.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::OnnxRuntime => "onnxruntime",
            Self::TensorflowServing => "tensorflow_serving",
        }
    }
}

impl FromStr for BackendKind {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "onnx" => Ok(Self::Onnx),
            "onnxruntime" => Ok(Self::OnnxRuntime),
            "tensorflow_serving" => Ok(Self::TensorflowServing),
            _ => Err("must be onnx, onnxruntime or tensorflow_serving"),
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

/// The address of TensorFlow Serving, and its TLS settings.
#[derive(Clone, Debug)]
pub struct ModelServer {
    /// Its host.
    pub host: Host,
    /// Its gRPC port.
    pub port: u16,
    /// `None` without TLS.
    pub tls: Option<ModelServerTls>,
}

/// TLS of the connection to TensorFlow Serving.
#[derive(Clone, Debug)]
pub struct ModelServerTls {
    /// Trusted authorities and client certificate.
    pub client: ClientTls,
    /// The name in the server's certificate, if it is not the host.
    pub name: Option<Host>,
}

impl BackendArgs {
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> BackendSettings {
        BackendSettings {
            kind: mistakes.parsed("MODEL_BACKEND", &self.model_backend, BackendKind::Onnx),
            onnxruntime: OnnxRuntimeSettings {
                library: self.ort_dylib_path.clone(),
                threads: self.threads(mistakes),
            },
            server: self.server.check(mistakes),
        }
    }

    fn threads(&self, mistakes: &mut Mistakes) -> usize {
        match &self.onnxruntime_threads {
            Some(text) => mistakes.number("ONNXRUNTIME_THREADS", text, 1..=1024),
            None => thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl ServerArgs {
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> ModelServer {
        ModelServer {
            host: mistakes.host("TF_SERVING_HOST", &self.tf_serving_host),
            port: mistakes.port("TF_SERVING_GRPC_PORT", &self.tf_serving_grpc_port),
            tls: self.tls(mistakes),
        }
    }

    fn tls(&self, mistakes: &mut Mistakes) -> Option<ModelServerTls> {
        let files = ClientFiles {
            prefix: "TF_SERVING",
            authorities: self.tf_serving_ca_file.as_deref(),
            certificate: self.tf_serving_cert_file.as_deref(),
            key: self.tf_serving_key_file.as_deref(),
        };
        let name = self.tf_serving_tls_name.as_deref().map(|name| mistakes.host("TF_SERVING_TLS_NAME", name));
        let mut others = files.given();
        others.extend(name.as_ref().map(|_| "TF_SERVING_TLS_NAME".to_owned()));
        let asked = self.tf_serving_tls.as_deref();
        let is_on = asked.map_or(!others.is_empty(), |text| mistakes.parsed("TF_SERVING_TLS", text, false));
        if is_on {
            return Some(ModelServerTls { client: files.read(mistakes), name });
        }
        if !others.is_empty() {
            mistakes.add(&others.join(" and "), "without effect: TF_SERVING_TLS is not true");
        }
        None
    }
}
