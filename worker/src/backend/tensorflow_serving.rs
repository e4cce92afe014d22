//! Calls TensorFlow Serving over gRPC (`PredictionService`, `ModelService`).

mod convert;
mod failure;
mod server;

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tepal_proto::tensorflow::serving::{ModelSpec, PredictRequest, model_spec::VersionChoice};
use tepal_shared::{
    model::{Model, OutputError, ServerVersion, repository::Interface},
    tensor::{Batch, Tensor},
};

use self::server::Server;
use super::{Backend, BackendError, OpenError, Verdict, settings::ModelServer};

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A TensorFlow Serving that serves the model.
pub(super) struct TensorflowServing {
    server: Server,
    model: Model,
}

impl TensorflowServing {
    pub(super) fn open(server: &ModelServer, model: &Model) -> Result<Self, OpenError> {
        let spec = model_spec(&model.name, &model.signature, &model.server_version);
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

    /// Asks about the model. If the connection breaks and it worked before, asks again: it does not matter whether the server
    /// saw the first question.
    async fn asked_again(&self) -> Result<Value, BackendError> {
        let has_answered = self.server.has_answered();
        match self.metadata().await {
            Err(error) if error.verdict == Verdict::Broken && has_answered => self.metadata().await,
            asked => asked,
        }
    }
}

/// A TensorFlow Serving that describes a model.
pub struct ServedInterface {
    server: Server,
    signature: String,
}

impl ServedInterface {
    /// Connects at the first question.
    ///
    /// # Errors
    /// When the settings of the server cannot be used.
    pub fn open(
        server: &ModelServer,
        model: &str,
        signature: &str,
        version: &ServerVersion,
    ) -> Result<Self, OpenError> {
        let server = Server::open(server, model_spec(model, signature, version))?;
        Ok(Self { server, signature: signature.to_owned() })
    }

    /// Asks for the inputs and outputs of the model.
    ///
    /// # Errors
    /// When the server does not answer or does not serve the model, and when the model has no such signature.
    pub async fn ask(&self) -> Result<Interface, BackendError> {
        let no_metadata = || BackendError::bad_answer("The model server has no metadata of its models");
        let ask = async {
            let reply = self.server.metadata().await?.ok_or_else(no_metadata)?;
            convert::interface(&reply, &self.signature)
                .map_err(|error| BackendError::bad_answer(&error).because(error))
        };
        tokio::time::timeout(PROBE_TIMEOUT, ask).await.unwrap_or_else(|_| Err(silent()))
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

    fn predict(&self, batch: Batch) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        Box::pin(self.call(batch))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        Box::pin(async {
            tokio::time::timeout(PROBE_TIMEOUT, self.asked_again()).await.unwrap_or_else(|_| Err(silent()))
        })
    }
}

fn silent() -> BackendError {
    BackendError::new(Verdict::Silent, "model_unavailable", "The model server does not answer")
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
