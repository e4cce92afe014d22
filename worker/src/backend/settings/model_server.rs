//! The connection to a model server: its address, and TLS.

use clap::Args;
use tepal_shared::process::{
    settings::{Host, Mistakes},
    tls::{ClientFiles, ClientTls},
};

/// Flags and environment variables of the connection to TensorFlow Serving.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct TensorflowServingArgs {
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

/// Flags and environment variables of the connection to a server of the Open Inference Protocol.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct OpenInferenceArgs {
    /// Host of the server of the Open Inference Protocol: Triton, MLServer, KServe, OpenVINO Model Server
    #[arg(long, env = "OPEN_INFERENCE_HOST", default_value = "127.0.0.1", value_name = "HOST")]
    open_inference_host: String,
    /// gRPC port of the server of the Open Inference Protocol
    #[arg(long, env = "OPEN_INFERENCE_GRPC_PORT", default_value = "8001", value_name = "PORT")]
    open_inference_grpc_port: String,
    /// Whether that server uses TLS, true or false; none = true if another TLS setting is given
    #[arg(long, env = "OPEN_INFERENCE_TLS", value_name = "BOOL")]
    open_inference_tls: Option<String>,
    /// PEM file of the authorities that may have signed its certificate; none = those that browsers trust
    #[arg(long, env = "OPEN_INFERENCE_CA_FILE", value_name = "FILE")]
    open_inference_ca_file: Option<String>,
    /// PEM file of the client certificate, for a server that asks for one
    #[arg(long, env = "OPEN_INFERENCE_CERT_FILE", value_name = "FILE")]
    open_inference_cert_file: Option<String>,
    /// PEM file of its private key
    #[arg(long, env = "OPEN_INFERENCE_KEY_FILE", value_name = "FILE")]
    open_inference_key_file: Option<String>,
    /// Name that its certificate must contain; none = OPEN_INFERENCE_HOST
    #[arg(long, env = "OPEN_INFERENCE_TLS_NAME", value_name = "NAME")]
    open_inference_tls_name: Option<String>,
}

/// The address of a model server, and its TLS settings.
#[derive(Clone, Debug)]
pub struct ModelServer {
    /// Prefix of the names of its settings: `TF_SERVING` for `TF_SERVING_HOST`.
    pub prefix: &'static str,
    /// Its host.
    pub host: Host,
    /// Its gRPC port.
    pub port: u16,
    /// `None` without TLS.
    pub tls: Option<ModelServerTls>,
}

/// TLS of the connection to a model server.
#[derive(Clone, Debug)]
pub struct ModelServerTls {
    /// Trusted authorities and client certificate.
    pub client: ClientTls,
    /// The name in the server's certificate, if it is not the host.
    pub name: Option<Host>,
}

/// The settings of one model server as they were given.
struct Given<'a> {
    host: &'a str,
    port: &'a str,
    tls: Option<&'a str>,
    files: ClientFiles<'a>,
    tls_name: Option<&'a str>,
}

impl TensorflowServingArgs {
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> ModelServer {
        let given = Given {
            host: &self.tf_serving_host,
            port: &self.tf_serving_grpc_port,
            tls: self.tf_serving_tls.as_deref(),
            files: ClientFiles {
                prefix: "TF_SERVING",
                authorities: self.tf_serving_ca_file.as_deref(),
                certificate: self.tf_serving_cert_file.as_deref(),
                key: self.tf_serving_key_file.as_deref(),
            },
            tls_name: self.tf_serving_tls_name.as_deref(),
        };
        given.check("TF_SERVING", mistakes)
    }
}

impl OpenInferenceArgs {
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> ModelServer {
        let given = Given {
            host: &self.open_inference_host,
            port: &self.open_inference_grpc_port,
            tls: self.open_inference_tls.as_deref(),
            files: ClientFiles {
                prefix: "OPEN_INFERENCE",
                authorities: self.open_inference_ca_file.as_deref(),
                certificate: self.open_inference_cert_file.as_deref(),
                key: self.open_inference_key_file.as_deref(),
            },
            tls_name: self.open_inference_tls_name.as_deref(),
        };
        given.check("OPEN_INFERENCE", mistakes)
    }
}

impl Given<'_> {
    fn check(&self, prefix: &'static str, mistakes: &mut Mistakes) -> ModelServer {
        ModelServer {
            prefix,
            host: mistakes.host(&format!("{prefix}_HOST"), self.host),
            port: mistakes.port(&format!("{prefix}_GRPC_PORT"), self.port),
            tls: self.tls(prefix, mistakes),
        }
    }

    fn tls(&self, prefix: &str, mistakes: &mut Mistakes) -> Option<ModelServerTls> {
        let (tls, tls_name) = (format!("{prefix}_TLS"), format!("{prefix}_TLS_NAME"));
        let name = self.tls_name.map(|name| mistakes.host(&tls_name, name));
        let mut others = self.files.given();
        others.extend(name.as_ref().map(|_| tls_name));
        let is_on = self.tls.map_or(!others.is_empty(), |text| mistakes.parsed(&tls, text, false));
        if is_on {
            return Some(ModelServerTls { client: self.files.read(mistakes), name });
        }
        if !others.is_empty() {
            mistakes.add(&others.join(" and "), format!("without effect: {tls} is not true"));
        }
        None
    }
}
