//! Converts between our tensors and TensorFlow's. Sends `tensor_content`, the fast form, and reads both forms.

mod interface;
mod tensor;

use std::collections::BTreeMap;

use prost::{DecodeError, Message as _};
use serde_json::{Map, Value, json};
use tepal_proto::tensorflow::{
    SignatureDef, TensorInfo,
    serving::{GetModelMetadataResponse, ModelVersionStatus, SignatureDefMap, model_version_status::State},
    tensor_info::Encoding,
};

pub(super) use self::{
    interface::interface,
    tensor::{from_proto, to_proto},
};

/// An answer that cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ConvertError {
    #[error("The model answered with a negative axis length")]
    NegativeAxis(#[source] std::num::TryFromIntError),
    #[error("The model answered with {value}, which no {datatype} is")]
    Value { value: i32, datatype: &'static str },
    #[error("The model answered with text whose lengths do not fit its bytes")]
    Lengths,
    #[error("The model answered with {0}")]
    DataType(&'static str),
    #[error("The model answered with the unknown type {0}")]
    UnknownDataType(i32),
    #[error("The model answered with {given} bytes, not a multiple of {width}")]
    Bytes { given: usize, width: usize },
    #[error("The model server's metadata has no signature_def")]
    NoSignatures,
    #[error("The model has no signature `{signature}`, but `{known}`")]
    NoSignature { signature: String, known: String },
    #[error("The model server's signature_def cannot be read")]
    Signatures(#[source] DecodeError),
}

/// Whether any version answers Predict.
pub(super) fn is_available(versions: &[ModelVersionStatus]) -> bool {
    versions.iter().any(|version| version.state() == State::Available)
}

/// The reply of GetModelMetadata as the REST API prints it
/// (`GET /v1/models/<name>/metadata`; 64-bit integers are strings in proto3's JSON mapping).
pub(super) fn metadata(reply: &GetModelMetadataResponse) -> Result<Value, ConvertError> {
    let spec = reply.model_spec.clone().unwrap_or_default();
    let signatures = signatures(reply)?.into_iter();
    let signatures: Map<_, _> =
        signatures.map(|(name, signature)| (name, signature_json(signature))).collect();
    Ok(json!({
        "model_spec": {"name": spec.name, "version": version_text(spec.version_choice)},
        "metadata": {"signature_def": signatures},
    }))
}

fn signatures(reply: &GetModelMetadataResponse) -> Result<BTreeMap<String, SignatureDef>, ConvertError> {
    let packed = reply.metadata.get("signature_def").ok_or(ConvertError::NoSignatures)?;
    let map = SignatureDefMap::decode(packed.value.as_slice()).map_err(ConvertError::Signatures)?;
    Ok(map.signature_def)
}

fn version_text(choice: Option<tepal_proto::tensorflow::serving::model_spec::VersionChoice>) -> String {
    use tepal_proto::tensorflow::serving::model_spec::VersionChoice;
    match choice {
        Some(VersionChoice::Version(version)) => version.to_string(),
        Some(VersionChoice::VersionLabel(label)) => label,
        None => String::new(),
    }
}

fn signature_json(signature: SignatureDef) -> Value {
    let tensors = |infos: BTreeMap<String, TensorInfo>| -> Map<String, Value> {
        infos.into_iter().map(|(name, info)| (name, info_json(info))).collect()
    };
    json!({
        "inputs": tensors(signature.inputs),
        "outputs": tensors(signature.outputs),
        "method_name": signature.method_name,
    })
}

fn info_json(info: TensorInfo) -> Value {
    let dtype = info.dtype().as_str_name();
    let shape = info.tensor_shape.unwrap_or_default();
    let dims: Vec<_> =
        shape.dim.iter().map(|dim| json!({"size": dim.size.to_string(), "name": dim.name})).collect();
    let Encoding::Name(name) = info.encoding.unwrap_or(Encoding::Name(String::new()));
    json!({"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": shape.unknown_rank}, "name": name})
}
