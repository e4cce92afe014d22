//! Calls TensorFlow Serving over gRPC (`PredictionService`, `ModelService`).

mod convert;
mod server;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tepal_proto::tensorflow::serving::{ModelSpec, PredictRequest, model_spec::VersionChoice};
use tepal_shared::{
    model::{
        Model, OutputError, ServerVersion,
        repository::{Interface, Undescribed},
    },
    tensor::{Batch, Tensor},
};

use self::server::Server;
use super::{Backend, BackendError, ModelCall, OpenError, grpc, settings::ModelServer};

/// A TensorFlow Serving that serves the model.
pub(super) struct TensorflowServing {
    server: Server,
    model: Model,
}

impl TensorflowServing {
    pub(super) fn open(server: &ModelServer, model: &Model) -> Result<Self, OpenError> {
        let name = model.serving.name_on_server(&model.name);
        let spec = model_spec(name, &model.signature, &model.server_version);
        Ok(Self { server: Server::open(server, spec)?, model: model.clone() })
    }

    async fn call(&self, batch: Batch) -> Result<Vec<Tensor>, BackendError> {
        let request = || PredictRequest {
            model_spec: None,
            inputs: batch.inputs.iter().map(convert::to_proto).collect(),
            output_filter: self.model.outputs().map(|output| output.name.clone()).collect(),
        };
        let mut outputs = self.server.predict(request).await?.outputs;
        let output = |name: &String| {
            let missing = || OutputError::Missing { output: name.clone() };
            let output = outputs.remove(name).ok_or_else(missing).map_err(BackendError::bad_answer)?;
            convert::from_proto(name.clone(), output)
                .map_err(|error| BackendError::bad_answer(&error).because(error))
        };
        self.model.outputs().map(|output| &output.name).map(output).collect()
    }

    async fn metadata(&self) -> Result<Value, BackendError> {
        match self.server.metadata().await? {
            Some(reply) => {
                convert::metadata(&reply).map_err(|error| BackendError::bad_answer(&error).because(error))
            }
            // The description has the same facts.
            None => Ok(self.model.metadata()),
        }
    }
}

/// A TensorFlow Serving that describes a model.
pub(super) struct Describing {
    server: Server,
    signature: String,
}

impl Describing {
    /// Connects at the first question.
    pub(super) fn open(server: &ModelServer, name: &str, asked: &Undescribed) -> Result<Self, OpenError> {
        let name = asked.served_name.as_deref().unwrap_or(name);
        let spec = model_spec(name, &asked.signature, &asked.version);
        Ok(Self { server: Server::open(server, spec)?, signature: asked.signature.clone() })
    }

    pub(super) async fn ask(&self) -> Result<Interface, BackendError> {
        let no_metadata = || BackendError::bad_answer("The model server has no metadata of its models");
        let reply = self.server.metadata().await?.ok_or_else(no_metadata)?;
        convert::interface(&reply, &self.signature)
            .map_err(|error| BackendError::bad_answer(&error).because(error))
    }
}

/// Without a version, the server's latest is called.
fn model_spec(name: &str, signature: &str, version: &ServerVersion) -> ModelSpec {
    let version_choice = match version {
        ServerVersion::Newest => None,
        ServerVersion::Number(number) => Some(VersionChoice::Version(*number)),
        ServerVersion::Label(label) => Some(VersionChoice::VersionLabel(label.clone())),
    };
    ModelSpec { name: name.to_owned(), signature_name: signature.to_owned(), version_choice }
}

impl Backend for TensorflowServing {
    fn name(&self) -> &'static str {
        "tensorflow_serving"
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        Box::pin(self.call(call.batch))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        Box::pin(grpc::in_time(self.server.connection.ask(|| self.metadata())))
    }
}

/// Answers as bytes, as the connection delivers them.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    use prost::Message as _;
    use serde_json::Value;
    use tepal_proto::tensorflow::{TensorProto, serving::GetModelMetadataResponse};
    use tepal_shared::tensor::Tensor;

    use super::convert::{self, ConvertError};

    /// The output of a call; `None` when the bytes are no such message.
    pub(crate) fn tensor(bytes: &[u8]) -> Option<Result<Tensor, ConvertError>> {
        Some(convert::from_proto("output".to_owned(), TensorProto::decode(bytes).ok()?))
    }

    /// A tensor after it was sent and read.
    pub(crate) fn resent(tensor: &Tensor) -> Result<Tensor, ConvertError> {
        let (name, sent) = convert::to_proto(tensor);
        convert::from_proto(name, sent)
    }

    /// A model's metadata; `None` when the bytes are no such message.
    pub(crate) fn metadata(bytes: &[u8]) -> Option<Result<Value, ConvertError>> {
        Some(convert::metadata(&GetModelMetadataResponse::decode(bytes).ok()?))
    }
}
