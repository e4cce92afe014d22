//! Calls a server of the Open Inference Protocol over gRPC (`GRPCInferenceService`): Triton, MLServer, KServe, OpenVINO Model
//! Server.

mod convert;
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use prost::bytes::Bytes;
use serde_json::Value;
use tepal_proto::open_inference::{ModelInferRequest, model_infer_request::InferRequestedOutputTensor};
use tepal_shared::{
    model::{
        Model,
        repository::{Interface, Undescribed},
    },
    tensor::Tensor,
};

use self::{
    convert::ConvertError,
    server::{ServedModel, Server},
};
use super::{Backend, BackendError, ModelCall, OpenError, grpc, settings::ModelServer};

/// A server that serves the model.
pub(super) struct OpenInference {
    server: Server,
    model: Model,
    /// Most rows of a call, as the server says.
    most_rows: AtomicUsize,
}

impl OpenInference {
    pub(super) fn open(server: &ModelServer, model: &Model) -> Result<Self, OpenError> {
        let served = ServedModel::new(model.serving.name_on_server(&model.name), &model.server_version);
        let most_rows = AtomicUsize::new(usize::MAX);
        Ok(Self { server: Server::open(server, served)?, model: model.clone(), most_rows })
    }

    async fn call(&self, call: ModelCall) -> Result<Vec<Tensor>, BackendError> {
        let ModelCall { batch, id, only_job: _, time_limit } = call;
        let (inputs, contents): (_, Vec<Bytes>) = batch.inputs.into_iter().map(convert::to_proto).unzip();
        let requested =
            |name: &String| InferRequestedOutputTensor { name: name.clone(), ..Default::default() };
        let request = ModelInferRequest {
            id,
            inputs,
            // Without names, some servers return other outputs than all.
            outputs: self.model.outputs().map(|output| requested(&output.name)).collect(),
            raw_input_contents: contents,
            ..ModelInferRequest::default()
        };
        let reply = self.server.infer(request, time_limit).await?;
        convert::outputs(reply, self.model.outputs()).map_err(bad_answer)
    }

    /// Asks whether the model is ready, and about the model.
    async fn metadata(&self) -> Result<Value, BackendError> {
        self.server.check_ready().await?;
        let most = self.server.max_batch_size().await?.filter(|most| *most > 0);
        self.most_rows.store(most.unwrap_or(usize::MAX), Ordering::Relaxed);
        let described = self.server.metadata().await?;
        let version = self.server.model.version.as_str();
        Ok(described
            .map_or_else(|| self.model.metadata(), |reply| convert::metadata(&reply, version, &self.model)))
    }
}

impl Backend for OpenInference {
    fn name(&self) -> &'static str {
        "open_inference"
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        Box::pin(self.call(call))
    }

    fn most_rows(&self) -> usize {
        self.most_rows.load(Ordering::Relaxed)
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        Box::pin(grpc::in_time(self.server.connection.ask(|| self.metadata())))
    }
}

/// A server that describes a model.
pub(super) struct Describing {
    server: Server,
}

impl Describing {
    /// Connects at the first question.
    pub(super) fn open(server: &ModelServer, name: &str, asked: &Undescribed) -> Result<Self, OpenError> {
        let name = asked.served_name.as_deref().unwrap_or(name);
        Ok(Self { server: Server::open(server, ServedModel::new(name, &asked.version))? })
    }

    pub(super) async fn ask(&self) -> Result<Interface, BackendError> {
        self.server.check_ready().await?;
        let max_batch = self.server.max_batch_size().await?;
        let metadata = self.server.metadata().await?.unwrap_or_default();
        Ok(convert::interface(&metadata, max_batch))
    }
}

fn bad_answer(error: ConvertError) -> BackendError {
    BackendError::bad_answer(&error).because(error)
}

/// Answers as bytes, as the connection delivers them.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use prost::Message as _;
    use serde_json::Value;
    use tepal_proto::open_inference::{
        ModelInferResponse, ModelMetadataResponse, model_infer_response::InferOutputTensor,
    };
    use tepal_shared::{
        model::{Model, repository::Interface},
        tensor::Tensor,
    };

    use super::convert::{self, ConvertError};

    /// The outputs of a call that the model has; `None` when the bytes are no such message.
    pub(crate) fn outputs(bytes: &[u8], model: &Model) -> Option<Result<Vec<Tensor>, ConvertError>> {
        Some(convert::outputs(ModelInferResponse::decode(bytes).ok()?, model.outputs()))
    }

    /// Outputs after they were sent as inputs, and returned.
    pub(crate) fn returned(tensors: &[Tensor], model: &Model) -> Result<Vec<Tensor>, ConvertError> {
        let (inputs, contents): (Vec<_>, Vec<_>) = tensors.iter().cloned().map(convert::to_proto).unzip();
        let outputs = inputs.into_iter().map(|input| InferOutputTensor {
            name: input.name,
            datatype: input.datatype,
            shape: input.shape,
            ..InferOutputTensor::default()
        });
        let reply = ModelInferResponse {
            outputs: outputs.collect(),
            raw_output_contents: contents.into_iter().map(Vec::from).collect(),
            ..ModelInferResponse::default()
        };
        convert::outputs(reply, model.outputs())
    }

    /// A model's metadata, as JSON and as an interface; `None` when the bytes are no such message.
    pub(crate) fn metadata(bytes: &[u8], model: &Model) -> Option<(Value, Interface)> {
        let reply = ModelMetadataResponse::decode(bytes).ok()?;
        Some((convert::metadata(&reply, "", model), convert::interface(&reply, None)))
    }
}
