//! Calls TensorFlow Serving over gRPC (`PredictionService`, `ModelService`).

mod convert;

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tepal_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelStatusRequest, ModelSpec, PredictRequest,
    model_service_client::ModelServiceClient, prediction_service_client::PredictionServiceClient,
};
use tepal_shared::{
    config::Host,
    model::Model,
    tensor::{Batch, Tensor},
    tls::{ClientTls, Peer, Reason},
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{Backend, BackendError, OpenError, Verdict};
use crate::config::{Config, ModelServer};

/// The reply of a full batch of wide rows is larger than tonic's default limit of 4 MiB.
const LARGEST_REPLY_BYTES: usize = 64 << 20;
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a client may see of a server's message; TensorFlow Serving itself cuts at 1024.
const LONGEST_MESSAGE: usize = 200;

/// A TensorFlow Serving that serves the model.
pub(super) struct TensorflowServing {
    predictions: PredictionServiceClient<Channel>,
    models: ModelServiceClient<Channel>,
    model: Model,
    /// The other end of a secured connection.
    peer: Option<Peer>,
}

impl TensorflowServing {
    pub(super) fn open(config: &Config) -> Result<Self, OpenError> {
        let ModelServer { host, port, tls } = &config.model_server;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{port}"))
            .map_err(|source| OpenError::Address { host: host.to_string(), source })?;
        if let Some(tls) = tls {
            let expected = tls.name.as_ref().unwrap_or(host);
            endpoint = endpoint.tls_config(client_config(&tls.client, expected)).map_err(OpenError::Tls)?;
        }
        let channel = endpoint
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self {
            predictions: PredictionServiceClient::new(channel.clone())
                .max_decoding_message_size(LARGEST_REPLY_BYTES),
            models: ModelServiceClient::new(channel),
            model: config.common.model.clone(),
            peer: tls.as_ref().map(|tls| Peer {
                name: "the model server",
                prefix: "TF_SERVING",
                has_identity: tls.client.identity.is_some(),
            }),
        })
    }

    /// No version: the server's latest is called.
    fn model_spec(&self) -> ModelSpec {
        ModelSpec {
            name: self.model.name.clone(),
            signature_name: self.model.signature.clone(),
            version_choice: None,
        }
    }

    async fn call(&self, batch: Batch) -> Result<Tensor, BackendError> {
        let inputs = batch.inputs.into_iter().map(convert::to_proto).collect();
        let request =
            PredictRequest { model_spec: Some(self.model_spec()), inputs, output_filter: Vec::new() };
        let reply =
            self.predictions.clone().predict(request).await.map_err(|status| self.failure(&status))?;
        let mut outputs = reply.into_inner().outputs;
        let name = &self.model.output.name;
        let output = outputs.remove(name).ok_or_else(|| {
            BackendError::bad_answer(format!("The model answered without the output `{name}`"))
        })?;
        convert::from_proto(name.clone(), output).map_err(BackendError::bad_answer)
    }

    async fn metadata(&self) -> Result<Value, BackendError> {
        let has_status = self.check_status().await?;
        let request = GetModelMetadataRequest {
            model_spec: Some(self.model_spec()),
            metadata_field: vec!["signature_def".to_owned()],
        };
        match self.predictions.clone().get_model_metadata(request).await {
            Ok(reply) => convert::metadata(reply.into_inner()).map_err(BackendError::bad_answer),
            // Some compatible servers have no such call: the description carries what it would say. One that has neither
            // call is not known to serve the model.
            Err(status) if status.code() == Code::Unimplemented && has_status => Ok(self.model.metadata()),
            Err(status) => Err(self.failure(&status)),
        }
    }

    /// Whether the server has a call that tells; if so, the model is available.
    async fn check_status(&self) -> Result<bool, BackendError> {
        let request = GetModelStatusRequest { model_spec: Some(self.model_spec()) };
        match self.models.clone().get_model_status(request).await {
            Ok(reply) if convert::is_available(&reply.get_ref().model_version_status) => Ok(true),
            Ok(_) => Err(BackendError::new(
                Verdict::Unavailable,
                "model_unavailable",
                "The model server has no available version of the model",
            )),
            Err(status) if status.code() == Code::Unimplemented => Ok(false),
            // The server may have refused our certificate, and closed the connection before that came through.
            Err(status) => Err(self.explained(&status).unwrap_or_else(|| match self.tls_peer(&status) {
                Some(peer) if !never_connected(&status) => unavailable(&peer.explain_closed()),
                _ => from_status(&status),
            })),
        }
    }

    fn failure(&self, status: &Status) -> BackendError {
        self.explained(status).unwrap_or_else(|| from_status(status))
    }

    /// The failure, if it is known why TLS is to blame.
    fn explained(&self, status: &Status) -> Option<BackendError> {
        Some(unavailable(&self.tls_peer(status)?.explain(status)?))
    }

    /// The server, if the connection to it failed and is to be secured.
    fn tls_peer(&self, status: &Status) -> Option<Peer> {
        self.peer.filter(|_| is_connection_failure(status))
    }
}

/// Whom to trust, what to show, and which name to expect.
fn client_config(tls: &ClientTls, expected: &Host) -> ClientTlsConfig {
    let ClientTls { authorities, identity } = tls;
    let mut config = ClientTlsConfig::new().domain_name(expected.as_str());
    config = match authorities {
        Some(authorities) => config.ca_certificate(Certificate::from_pem(authorities)),
        None => config.with_webpki_roots(),
    };
    if let Some(identity) = identity {
        config = config.identity(Identity::from_pem(&identity.chain, identity.expose_key()));
    }
    config
}

impl Backend for TensorflowServing {
    fn name(&self) -> &'static str {
        "tensorflow_serving"
    }

    fn predict(&self, batch: Batch) -> BoxFuture<'_, Result<Tensor, BackendError>> {
        Box::pin(self.call(batch))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        Box::pin(async {
            tokio::time::timeout(PROBE_TIMEOUT, self.metadata()).await.unwrap_or_else(|_| {
                Err(BackendError::new(
                    Verdict::Unavailable,
                    "model_unavailable",
                    "The model server does not answer",
                ))
            })
        })
    }
}

fn unavailable(reason: &Reason) -> BackendError {
    let message = format!("The model server is not available: {reason}");
    BackendError::new(Verdict::Unavailable, "model_unavailable", message)
}

/// What each status code means for a job; see the gRPC documentation, "Status codes and their use in gRPC".
fn from_status(status: &Status) -> BackendError {
    let message = |what: &str| {
        let text: String = status.message().chars().take(LONGEST_MESSAGE).collect();
        if text.is_empty() { what.to_owned() } else { format!("{what}: {text}") }
    };
    let (verdict, code, message) = match status.code() {
        // A connection that broke in the middle of a call has the source of the break; the text has addresses.
        _ if is_connection_failure(status) && was_sent(status) => {
            (Verdict::Broken, "model_unavailable", "The connection to the model server broke".to_owned())
        }
        _ if status.code() == Code::Unavailable || is_connection_failure(status) => {
            (Verdict::Unavailable, "model_unavailable", "The model server is not available".to_owned())
        }
        // Whatever the input: the model is not loaded, the server has no such call, or this worker may not make it.
        Code::NotFound | Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied => {
            let what = message("The model server takes no calls for the model");
            (Verdict::Unavailable, "model_unavailable", what)
        }
        Code::DeadlineExceeded => return BackendError::timeout(),
        Code::ResourceExhausted => {
            (Verdict::Overloaded, "model_overloaded", message("The model server is overloaded"))
        }
        Code::Internal | Code::Unknown | Code::Aborted | Code::Cancelled => {
            (Verdict::Retry, "model_error", message("Model inference failed"))
        }
        _ => (Verdict::Reject, "model_rejected", message("The model server rejected the request")),
    };
    BackendError::new(verdict, code, message)
}

/// tonic reports a lost connection as UNKNOWN or INTERNAL with the transport's error as the source.
fn is_connection_failure(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::transport::Error>() || error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether the server may have seen the request of a call that failed with its connection. CANCELLED is what tonic makes of
/// a call that found the connection closed.
fn was_sent(status: &Status) -> bool {
    !never_connected(status) && status.code() != Code::Cancelled
}

fn never_connected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Answers as bytes, as they come out of the connection.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use prost::Message as _;
    use serde_json::Value;
    use tepal_proto::tensorflow::{TensorProto, serving::GetModelMetadataResponse};
    use tepal_shared::tensor::Tensor;

    use super::convert;

    /// The output of a call; `None` when the bytes are no such message.
    pub(crate) fn tensor(bytes: &[u8]) -> Option<Result<Tensor, String>> {
        Some(convert::from_proto("output".to_owned(), TensorProto::decode(bytes).ok()?))
    }

    /// A model's metadata; `None` when the bytes are no such message.
    pub(crate) fn metadata(bytes: &[u8]) -> Option<Result<Value, String>> {
        Some(convert::metadata(GetModelMetadataResponse::decode(bytes).ok()?))
    }
}
