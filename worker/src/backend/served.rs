//! A model server that describes a model.

use tepal_shared::model::repository::{Interface, Undescribed};

use super::{
    BackendError, OpenError, grpc, kind_named, open_inference, settings::BackendKind,
    settings::BackendSettings, tensorflow_serving,
};

/// A model server, and a model to ask it about.
pub struct ServedInterface(Source);

enum Source {
    TensorflowServing(Box<tensorflow_serving::Describing>),
    OpenInference(Box<open_inference::Describing>),
}

impl ServedInterface {
    /// Connects at the first question.
    ///
    /// # Errors
    /// When no model server runs the model, and when the settings of the server cannot be used.
    pub fn open(settings: &BackendSettings, name: &str, asked: &Undescribed) -> Result<Self, OpenError> {
        let source = match kind_named(settings, asked.backend.as_deref())? {
            BackendKind::Onnx | BackendKind::OnnxRuntime => {
                return Err(OpenError::NoOnnxFile(name.to_owned()));
            }
            BackendKind::Http => return Err(OpenError::NoEndpoint(name.to_owned())),
            BackendKind::TensorflowServing => {
                let server = &settings.tensorflow_serving;
                Source::TensorflowServing(Box::new(tensorflow_serving::Describing::open(
                    server, name, asked,
                )?))
            }
            BackendKind::OpenInference => {
                let server = &settings.open_inference;
                Source::OpenInference(Box::new(open_inference::Describing::open(server, name, asked)?))
            }
        };
        Ok(Self(source))
    }

    /// Asks for the inputs and outputs of the model.
    ///
    /// # Errors
    /// When the server does not answer or does not serve the model, and when the model has no such signature.
    pub async fn ask(&self) -> Result<Interface, BackendError> {
        match &self.0 {
            Source::TensorflowServing(server) => grpc::in_time(server.ask()).await,
            Source::OpenInference(server) => grpc::in_time(server.ask()).await,
        }
    }
}
