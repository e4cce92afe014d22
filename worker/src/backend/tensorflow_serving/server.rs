//! The calls of TensorFlow Serving for one model.

use tepal_proto::tensorflow::serving::{
    GetModelMetadataRequest, GetModelMetadataResponse, GetModelStatusRequest, ModelSpec, PredictRequest,
    PredictResponse, model_service_client::ModelServiceClient,
    prediction_service_client::PredictionServiceClient,
};
use tonic::{Code, transport::Channel};

use super::convert;
use crate::backend::{
    BackendError, OpenError,
    grpc::{Connection, LARGEST_REPLY_BYTES, not_served},
    settings::ModelServer,
};

/// A TensorFlow Serving, and one of its models.
pub(super) struct Server {
    predictions: PredictionServiceClient<Channel>,
    models: ModelServiceClient<Channel>,
    spec: ModelSpec,
    pub(super) connection: Connection,
}

impl Server {
    /// Connects at the first call.
    pub(super) fn open(server: &ModelServer, spec: ModelSpec) -> Result<Self, OpenError> {
        let connection = Connection::open(server)?;
        let predictions = PredictionServiceClient::new(connection.channel());
        Ok(Self {
            predictions: predictions.max_decoding_message_size(LARGEST_REPLY_BYTES),
            models: ModelServiceClient::new(connection.channel()),
            spec,
            connection,
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
        let reply = self.connection.send(predict).await;
        Ok(reply.map_err(|status| self.connection.failure(status))?.into_inner())
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
        match self.connection.send(ask).await {
            Ok(reply) => Ok(Some(reply.into_inner())),
            // Some compatible servers lack this call. A server that lacks both calls is not known to serve the model.
            Err(status) if status.code() == Code::Unimplemented && has_status => Ok(None),
            Err(status) => Err(self.connection.failure(status)),
        }
    }

    /// Asks GetModelStatus. `false` if the server lacks this call; `true` if the model is available.
    async fn check_status(&self) -> Result<bool, BackendError> {
        let request = GetModelStatusRequest { model_spec: Some(self.spec.clone()) };
        let ask = || {
            let (mut client, request) = (self.models.clone(), request.clone());
            async move { client.get_model_status(request).await }
        };
        match self.connection.send(ask).await {
            Ok(reply) if convert::is_available(&reply.get_ref().model_version_status) => Ok(true),
            Ok(_) => Err(not_served("The model server has no available version of the model")),
            Err(status) if status.code() == Code::Unimplemented => Ok(false),
            Err(status) => Err(self.connection.first_failure(status)),
        }
    }
}
