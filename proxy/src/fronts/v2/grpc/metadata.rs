//! What the server and its models are.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use tepal_proto::open_inference::{
    DataType as ConfigType, ModelConfig, ModelConfigRequest, ModelConfigResponse, ModelInput,
    ModelMetadataRequest, ModelMetadataResponse, ModelOutput, ServerMetadataRequest, ServerMetadataResponse,
    model_metadata_response::TensorMetadata,
};
use tepal_shared::{
    model::{Model, Shape},
    tensor::DataType,
};

use super::{
    Named,
    facts::{PLATFORM, SERVER, VERSION, config_type, known, lengths, whole},
    message,
};
use crate::{edge::access::Caller, error::ApiError, state::App};

/// The server.
pub(super) async fn server(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let ServerMetadataRequest {} = message::small(request, &app.bodies).await?;
    Ok(message::answer(&ServerMetadataResponse {
        name: SERVER.to_owned(),
        version: VERSION.to_owned(),
        extensions: vec!["model_configuration".to_owned()],
    }))
}

/// A model's tensors and versions.
pub(super) async fn model(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let ModelMetadataRequest { name, version } = message::small(request, &app.bodies).await?;
    let served = Named::of(name, version).model(&app.models.registry(), &caller)?;
    let model = &served.description;
    let versions = served.versions();
    Ok(message::answer(&ModelMetadataResponse {
        name: served.name.to_string(),
        versions: known(&versions, model).into_iter().map(str::to_owned).collect(),
        platform: PLATFORM.to_owned(),
        inputs: model.inputs.iter().map(|it| tensor(&it.name, it.datatype, &it.shape, model)).collect(),
        outputs: model.outputs().map(|it| tensor(&it.name, it.datatype, &it.shape, model)).collect(),
    }))
}

fn tensor(name: &str, datatype: DataType, shape: &Shape, model: &Model) -> TensorMetadata {
    let (name, datatype) = (name.to_owned(), datatype.as_str().to_owned());
    TensorMetadata { name, datatype, shape: whole(shape, model) }
}

/// The part of Triton's model configuration that clients read.
pub(super) async fn config(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let ModelConfigRequest { name, version } = message::small(request, &app.bodies).await?;
    let served = Named::of(name, version).model(&app.models.registry(), &caller)?;
    let model = &served.description;
    let input = model.inputs.iter().map(|it| ModelInput {
        name: it.name.clone(),
        data_type: data_type(it.datatype),
        dims: lengths(&it.shape).collect(),
    });
    let output = model.outputs().map(|it| ModelOutput {
        name: it.name.clone(),
        data_type: data_type(it.datatype),
        dims: lengths(&it.shape).collect(),
    });
    let config = ModelConfig {
        name: served.name.to_string(),
        platform: PLATFORM.to_owned(),
        backend: PLATFORM.to_owned(),
        max_batch_size: i32::try_from(model.max_batch).unwrap_or(i32::MAX),
        input: input.collect(),
        output: output.collect(),
    };
    Ok(message::answer(&ModelConfigResponse { config: Some(config) }))
}

fn data_type(datatype: DataType) -> i32 {
    ConfigType::from_str_name(&config_type(datatype)).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_name_in_a_configuration() {
        let numbers = DataType::ALL.map(data_type);
        assert!(!numbers.contains(&ConfigType::TypeInvalid.into()), "{numbers:?}");
    }
}
