//! The connection to TensorFlow Serving, and questions about a model.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tepal_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, ModelSpec, PredictRequest,
    PredictResponse, model_service_client::ModelServiceClient,
    prediction_service_client::PredictionServiceClient,
};
use tepal_shared::process::{
    settings::Host,
    telemetry,
    tls::{ClientTls, Reason, TlsServer},
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tracing::debug;

use super::{convert, failure};
use crate::backend::{BackendError, OpenError, Verdict, settings::ModelServer};

/// The reply of a full batch of wide rows is larger than tonic's default limit of 4 MiB.
const LARGEST_REPLY_BYTES: usize = 64 << 20;
/// How often a call is sent again whose connection the server closed before it saw the call. More than once, because the
/// client notices a moment later that a connection closes.
const MOST_RESENDS: u32 = 5;
const RESEND_PAUSE: Duration = Duration::from_millis(5);

/// A TensorFlow Serving, and one of its models.
pub(super) struct Server {
    predictions: PredictionServiceClient<Channel>,
    models: ModelServiceClient<Channel>,
    spec: ModelSpec,
    /// The server, for explanations of failed handshakes; `None` without TLS.
    tls: Option<TlsServer>,
    /// Whether the server answered a call since it was last unreachable.
    has_answered: AtomicBool,
}

impl Server {
    /// Connects at the first call.
    pub(super) fn open(server: &ModelServer, spec: ModelSpec) -> Result<Self, OpenError> {
        let ModelServer { host, port, tls } = server;
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
            spec,
            tls: tls.as_ref().map(|tls| TlsServer {
                name: "the model server",
                prefix: "TF_SERVING",
                has_identity: tls.client.identity.is_some(),
            }),
            has_answered: AtomicBool::new(false),
        })
    }

    /// Runs the model.
    pub(super) async fn predict(
        &self,
        request: impl Fn() -> PredictRequest,
    ) -> Result<PredictResponse, BackendError> {
        let predict = || {
            let (mut client, request) = (self.predictions.clone(), request());
            let request = PredictRequest { model_spec: Some(self.spec.clone()), ..request };
            async move { client.predict(request).await }
        };
        let reply = self.send(predict).await.map_err(|status| self.failure(status))?;
        Ok(reply.into_inner())
    }

    /// The metadata of the model; `None` if the server serves it, but has no metadata.
    pub(super) async fn metadata(&self) -> Result<Option<GetModelMetadataResponse>, BackendError> {
        let has_status = self.check_status().await?;
        let request = GetModelMetadataRequest {
            model_spec: Some(self.spec.clone()),
            metadata_field: vec!["signature_def".to_owned()],
        };
        let ask = || {
            let (mut client, request) = (self.predictions.clone(), request.clone());
            async move { client.get_model_metadata(request).await }
        };
        match self.send(ask).await {
            Ok(reply) => Ok(Some(reply.into_inner())),
            // Some compatible servers lack this call. A server that lacks both calls is not known to serve the model.
            Err(status) if status.code() == Code::Unimplemented && has_status => Ok(None),
            Err(status) => Err(self.failure(status)),
        }
    }

    /// Whether the server answered a call since it was last unreachable.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// Asks GetModelStatus. `false` if the server lacks this call; `true` if the model is available.
    async fn check_status(&self) -> Result<bool, BackendError> {
        let request = GetModelStatusRequest { model_spec: Some(self.spec.clone()) };
        let ask = || {
            let (mut client, request) = (self.models.clone(), request.clone());
            async move { client.get_model_status(request).await }
        };
        match self.send(ask).await {
            Ok(reply) if convert::is_available(&reply.get_ref().model_version_status) => Ok(true),
            Ok(_) => Err(BackendError::new(
                Verdict::Unavailable,
                "model_unavailable",
                "The model server has no available version of the model",
            )),
            Err(status) if status.code() == Code::Unimplemented => Ok(false),
            // The server may have rejected our certificate and closed the connection before the alert arrived.
            Err(status) => Err(match self.tls_server(&status) {
                Some(server) if !failure::never_connected(&status) && server.explain(&status).is_none() => {
                    unavailable(&server.explain_closed(), status)
                }
                _ => self.failure(status),
            }),
        }
    }

    fn failure(&self, status: Status) -> BackendError {
        match self.tls_server(&status).and_then(|server| server.explain(&status)) {
            Some(reason) => unavailable(&reason, status),
            None => failure::from_status(status),
        }
    }

    /// The server, if the connection to it failed and is to be secured.
    fn tls_server(&self, status: &Status) -> Option<TlsServer> {
        self.tls.filter(|_| failure::is_connection_failure(status))
    }

    /// Makes a call. If the server closed the connection in order and did not see the call, sends it on a new connection.
    async fn send<T, Sent>(&self, call: impl Fn() -> Sent) -> Result<T, Status>
    where
        Sent: Future<Output = Result<T, Status>>,
    {
        let mut left = MOST_RESENDS;
        loop {
            let ended = call().await;
            let failed = ended.as_ref().err().filter(|status| failure::is_connection_failure(status));
            let Some(status) = failed else {
                self.has_answered.store(true, Ordering::Relaxed);
                return ended;
            };
            // The breaker deals with a server that has not answered since it was unreachable.
            let may_resend = self.has_answered.load(Ordering::Relaxed) && left > 0;
            if !may_resend || !failure::was_left_unsent(status) {
                // A server that broke a connection was reachable.
                self.has_answered.fetch_and(failure::was_sent(status), Ordering::Relaxed);
                return ended;
            }
            debug!(action = "call_sent_again", error = telemetry::chain(status));
            left -= 1;
            tokio::time::sleep(RESEND_PAUSE).await;
        }
    }
}

/// Trusted authorities, client certificate, and the expected name.
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

fn unavailable(reason: &Reason, status: Status) -> BackendError {
    let message = format!("The model server is not available: {reason}");
    BackendError::new(Verdict::Unavailable, "model_unavailable", message).because(status)
}
