//! GetModelMetadata and GetModelStatus.

use std::collections::BTreeMap;

use tepal_proto::Any;
use tepal_proto::tensorflow::serving::model_spec::VersionChoice;
use tepal_proto::tensorflow::serving::model_version_status::State;
use tepal_proto::tensorflow::serving::{
    GetModelMetadataResponse, GetModelStatusResponse, ModelSpec, ModelVersionStatus, SignatureDefMap,
    StatusProto,
};
use tepal_proto::tensorflow::tensor_info::Encoding;
use tepal_proto::tensorflow::{DataType, SignatureDef, TensorInfo, TensorShapeProto};
use tonic::Status;

use super::reply::shape;
use super::request::{SIGNATURE, version_of};
use super::spec::{ServerSpec, TensorSpec};

/// The only metadata that there is.
const SIGNATURE_DEF: &str = "signature_def";
/// The signature that TensorFlow adds to every model, to be run once after loading.
const INIT_SIGNATURE: &str = "__saved_model_init_op";

/// What an answer says about the model that gave it.
pub(super) fn model_spec(spec: &ServerSpec, signature: &str) -> ModelSpec {
    ModelSpec {
        name: spec.model.clone(),
        version_choice: Some(VersionChoice::Version(spec.version)),
        signature_name: signature.to_owned(),
    }
}

/// The answer of GetModelMetadata.
pub(super) fn metadata(spec: &ServerSpec, fields: &[String]) -> Result<GetModelMetadataResponse, Status> {
    if fields.is_empty() {
        let text = "GetModelMetadataRequest must specify at least one metadata_field";
        return Err(Status::invalid_argument(text));
    }
    if let Some(unknown) = fields.iter().find(|field| *field != SIGNATURE_DEF) {
        return Err(Status::invalid_argument(format!("Metadata field {unknown} is not supported")));
    }
    let packed = Any::from_msg(&signatures(spec)).expect("a message fits into an Any");
    Ok(GetModelMetadataResponse {
        model_spec: Some(model_spec(spec, "")),
        metadata: BTreeMap::from([(SIGNATURE_DEF.to_owned(), packed)]),
    })
}

/// The answer of GetModelStatus (tensorflow_serving/model_servers/get_model_status_impl.cc).
pub(super) fn status(
    spec: &ServerSpec,
    model: Option<&ModelSpec>,
    available: bool,
) -> Result<GetModelStatusResponse, Status> {
    let model = model.ok_or_else(|| Status::invalid_argument("Missing ModelSpec"))?;
    let name = &model.name;
    match version_of(model) {
        Some(version) if *name != spec.model || version != spec.version => {
            return Err(Status::not_found(format!("Could not find version {version} of model {name}")));
        }
        None if *name != spec.model => {
            return Err(Status::not_found(format!("Could not find any versions of model {name}")));
        }
        _ => {}
    }
    let state = if available { State::Available } else { State::Loading };
    let version_status = ModelVersionStatus {
        version: spec.version,
        state: state.into(),
        status: Some(StatusProto::default()),
    };
    Ok(GetModelStatusResponse { model_version_status: vec![version_status] })
}

fn signatures(spec: &ServerSpec) -> SignatureDefMap {
    let no_op = TensorInfo {
        encoding: Some(Encoding::Name("NoOp".to_owned())),
        dtype: DataType::DtInvalid.into(),
        tensor_shape: Some(TensorShapeProto { unknown_rank: true, dim: vec![] }),
    };
    let init = SignatureDef {
        outputs: BTreeMap::from([(INIT_SIGNATURE.to_owned(), no_op)]),
        ..SignatureDef::default()
    };
    let input_info = |input| tensor_info(input, format!("{SIGNATURE}_{}:0", input.name));
    let output_info = |(number, output): (usize, TensorSpec)| {
        let info = tensor_info(&output, format!("StatefulPartitionedCall:{number}"));
        (output.name, info)
    };
    let serve = SignatureDef {
        inputs: spec.inputs.iter().map(|input| (input.name.clone(), input_info(input))).collect(),
        outputs: spec.outputs().enumerate().map(output_info).collect(),
        method_name: "tensorflow/serving/predict".to_owned(),
    };
    let signature_def = BTreeMap::from([(INIT_SIGNATURE.to_owned(), init), (SIGNATURE.to_owned(), serve)]);
    SignatureDefMap { signature_def }
}

fn tensor_info(tensor: &TensorSpec, graph_name: String) -> TensorInfo {
    let row_sizes = tensor.row_shape.iter().map(|size| *size as i64);
    TensorInfo {
        encoding: Some(Encoding::Name(graph_name)),
        dtype: tensor.dtype().into(),
        tensor_shape: Some(shape([-1].into_iter().chain(row_sizes))),
    }
}
