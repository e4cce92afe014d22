//! The calls of the Open Inference Protocol for one model.

use std::time::Duration;

use tepal_proto::open_inference::{
    ModelConfigRequest, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use tepal_shared::model::ServerVersion;
use tonic::{Code, Request, Status, transport::Channel};

use crate::backend::{
    BackendError, OpenError, Verdict,
    grpc::{Connection, LARGEST_REPLY_BYTES, failure, in_time, not_served},
    settings::ModelServer,
};

/// The deadline of a call is this much later than the worker's own time limit, which alone decides.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);
const NOT_READY: &str = "The model is not ready on the model server";

/// A model as the server knows it.
pub(super) struct ServedModel {
    pub(super) name: String,
    /// Empty: the server chooses.
    pub(super) version: String,
}

impl ServedModel {
    pub(super) fn new(name: &str, version: &ServerVersion) -> Self {
        let version = match version {
            ServerVersion::Newest => String::new(),
            ServerVersion::Number(number) => number.to_string(),
            // Versions are text in this protocol.
            ServerVersion::Label(label) => label.clone(),
        };
        Self { name: name.to_owned(), version }
    }
}

/// A server, and one of its models.
pub(super) struct Server {
    client: GrpcInferenceServiceClient<Channel>,
    pub(super) model: ServedModel,
    pub(super) connection: Connection,
}

impl Server {
    /// Connects at the first call.
    pub(super) fn open(server: &ModelServer, model: ServedModel) -> Result<Self, OpenError> {
        let connection = Connection::open(server)?;
        let client = GrpcInferenceServiceClient::new(connection.channel());
        let client = client.max_decoding_message_size(LARGEST_REPLY_BYTES);
        Ok(Self { client, model, connection })
    }

    /// Runs the model.
    pub(super) async fn infer(
        &self,
        request: ModelInferRequest,
        time_limit: Duration,
    ) -> Result<ModelInferResponse, BackendError> {
        let ServedModel { name, version } = &self.model;
        let request =
            ModelInferRequest { model_name: name.clone(), model_version: version.clone(), ..request };
        let infer = || {
            let (mut client, mut request) = (self.client.clone(), Request::new(request.clone()));
            request.set_timeout(time_limit + DEADLINE_GRACE);
            async move { client.model_infer(request).await }
        };
        match self.connection.send(infer).await {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) if is_answer(&status, Code::Unavailable) => Err(self.why_unavailable(status).await),
            Err(status) => Err(self.connection.failure(status)),
        }
    }

    /// Whether the model is ready.
    pub(super) async fn check_ready(&self) -> Result<(), BackendError> {
        match self.is_ready().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.why_not_ready().await),
            // MLServer answers this for a model that it does not have.
            Err(status) if is_answer(&status, Code::Unknown) => {
                Err(not_served("The model server does not have the model").because(status))
            }
            Err(status) => Err(self.connection.first_failure(status)),
        }
    }

    /// The metadata of the model; `None` if the server has none.
    pub(super) async fn metadata(&self) -> Result<Option<ModelMetadataResponse>, BackendError> {
        let ServedModel { name, version } = &self.model;
        let ask = || {
            let mut client = self.client.clone();
            let request = ModelMetadataRequest { name: name.clone(), version: version.clone() };
            async move { client.model_metadata(request).await }
        };
        self.optional(self.connection.send(ask).await)
    }

    /// Most rows of a call, 0 if the model has no batch axis; `None` if the server does not say it.
    pub(super) async fn max_batch_size(&self) -> Result<Option<usize>, BackendError> {
        let ServedModel { name, version } = &self.model;
        let ask = || {
            let mut client = self.client.clone();
            let request = ModelConfigRequest { name: name.clone(), version: version.clone() };
            async move { client.model_config(request).await }
        };
        let config = self.optional(self.connection.send(ask).await)?.and_then(|reply| reply.config);
        Ok(config.and_then(|config| usize::try_from(config.max_batch_size).ok()))
    }

    async fn is_ready(&self) -> Result<bool, Status> {
        let ServedModel { name, version } = &self.model;
        let ask = || {
            let mut client = self.client.clone();
            let request = ModelReadyRequest { name: name.clone(), version: version.clone() };
            async move { client.model_ready(request).await }
        };
        Ok(self.connection.send(ask).await?.into_inner().ready)
    }

    /// Triton is not ready while any of its models is not, so the model decides, and the server only explains.
    async fn why_not_ready(&self) -> BackendError {
        let ask = || {
            let mut client = self.client.clone();
            async move { client.server_ready(ServerReadyRequest {}).await }
        };
        match self.connection.send(ask).await {
            Ok(reply) if !reply.get_ref().ready => not_served("The model server is not ready"),
            _ => not_served(NOT_READY),
        }
    }

    /// UNAVAILABLE alone may mean an outage, or a full queue of a server that serves the model.
    async fn why_unavailable(&self, status: Status) -> BackendError {
        if is_about_a_queue(&status) {
            return full(status);
        }
        let is_ready = async { self.is_ready().await.map_err(|status| self.connection.failure(status)) };
        match in_time(is_ready).await {
            Ok(true) => full(status),
            Ok(false) => not_served(NOT_READY).because(status),
            Err(_) => self.connection.failure(status),
        }
    }

    /// The answer of a call that not every server has.
    fn optional<T>(&self, answer: Result<tonic::Response<T>, Status>) -> Result<Option<T>, BackendError> {
        match answer {
            Ok(reply) => Ok(Some(reply.into_inner())),
            Err(status) if is_missing(&status) => Ok(None),
            Err(status) => Err(self.connection.failure(status)),
        }
    }
}

fn full(status: Status) -> BackendError {
    let what = "The queue of the model server is full";
    BackendError::new(Verdict::Full, "model_overloaded", what).because(status)
}

/// Whether the server itself answered with this code.
fn is_answer(status: &Status, code: Code) -> bool {
    status.code() == code && !failure::is_connection_failure(status)
}

/// Whether the server lacks the call. Triton can restrict single calls.
fn is_missing(status: &Status) -> bool {
    is_answer(status, Code::Unimplemented)
        || is_answer(status, Code::Unavailable) && status.message().contains("protocol is restricted")
}

/// Triton's texts for a call that its queue does not take, or not long enough (`dynamic_batch_scheduler.cc`, `scheduler_utils.cc`).
fn is_about_a_queue(status: &Status) -> bool {
    ["Exceeds maximum queue size", "Request timeout expired"]
        .iter()
        .any(|text| status.message().contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_known_by_its_text() {
        let full = |text| is_about_a_queue(&Status::unavailable(text));
        assert!(full("[request id: 7] Exceeds maximum queue size"));
        assert!(full("Request timeout expired"));
        assert!(!full(
            "Server is stopping, scheduler for model has stopped accepting new inference requests"
        ));
    }

    #[test]
    fn a_call_may_be_missing_or_restricted() {
        assert!(is_missing(&Status::unimplemented("")));
        assert!(is_missing(&Status::unavailable("This protocol is restricted, expecting header 'x'")));
        assert!(!is_missing(&Status::unavailable("Server is not ready")));
    }

    #[test]
    fn a_version_is_text() {
        let version = |version| ServedModel::new("m", &version).version;
        assert_eq!(version(ServerVersion::Newest), "");
        assert_eq!(version(ServerVersion::Number(7)), "7");
        assert_eq!(version(ServerVersion::Label("v1.2".to_owned())), "v1.2");
    }
}
