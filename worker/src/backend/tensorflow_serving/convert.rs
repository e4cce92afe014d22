//! Converts between our tensors and TensorFlow's. Sends `tensor_content`, the fast form, and reads both forms.

use std::num::TryFromIntError;

use prost::{DecodeError, Message as _};
use serde_json::{Map, Value, json};
use tepal_proto::tensorflow::{
    DataType, SignatureDef, TensorInfo, TensorProto, TensorShapeProto,
    serving::{GetModelMetadataResponse, ModelVersionStatus, SignatureDefMap, model_version_status::State},
    tensor_info::Encoding,
    tensor_shape_proto::Dim,
};
use tepal_shared::tensor::{DType, Tensor, Values};

/// An answer that cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ConvertError {
    #[error("The model answered with a negative axis length")]
    NegativeAxis(#[source] TryFromIntError),
    #[error("The model answered with {0}")]
    DType(&'static str),
    #[error("The model answered with the unknown type {0}")]
    UnknownDType(i32),
    #[error("The model answered with {given} bytes, not a multiple of {width}")]
    Bytes { given: usize, width: usize },
    #[error("The model server's metadata has no signature_def")]
    NoSignatures,
    #[error("The model server's signature_def cannot be read")]
    Signatures(#[source] DecodeError),
}

/// The tensor under its input's name.
pub(super) fn to_proto(tensor: &Tensor) -> (String, TensorProto) {
    let dim = tensor.shape.iter().map(|size| Dim { size: *size as i64, name: String::new() }).collect();
    let tensor_content = match &tensor.values {
        Values::Float(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Values::Double(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Values::Int32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Values::Int64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    let proto = TensorProto {
        dtype: data_type(tensor.values.dtype()).into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        tensor_content,
        ..TensorProto::default()
    };
    (tensor.name.clone(), proto)
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::Float => DataType::DtFloat,
        DType::Double => DataType::DtDouble,
        DType::Int32 => DataType::DtInt32,
        DType::Int64 => DataType::DtInt64,
    }
}

/// The tensor of a reply. The caller checks its shape and number of values against the description.
pub(super) fn from_proto(name: String, proto: TensorProto) -> Result<Tensor, ConvertError> {
    let dims = proto.tensor_shape.unwrap_or_default().dim;
    let shape = dims.iter().map(|dim| usize::try_from(dim.size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(ConvertError::NegativeAxis)?;
    let content = proto.tensor_content;
    let values = match DataType::try_from(proto.dtype) {
        Ok(DataType::DtFloat) => Values::Float(either(proto.float_val, &content, f32::from_le_bytes)?),
        Ok(DataType::DtDouble) => Values::Double(either(proto.double_val, &content, f64::from_le_bytes)?),
        Ok(DataType::DtInt32) => Values::Int32(either(proto.int_val, &content, i32::from_le_bytes)?),
        Ok(DataType::DtInt64) => Values::Int64(either(proto.int64_val, &content, i64::from_le_bytes)?),
        Ok(other) => return Err(ConvertError::DType(other.as_str_name())),
        Err(_) => return Err(ConvertError::UnknownDType(proto.dtype)),
    };
    Ok(Tensor { name, shape, values })
}

/// The typed values, or the raw little-endian bytes when there are any.
fn either<T, const N: usize>(
    typed: Vec<T>,
    content: &[u8],
    read: fn([u8; N]) -> T,
) -> Result<Vec<T>, ConvertError> {
    if content.is_empty() {
        return Ok(typed);
    }
    let (values, rest) = content.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(ConvertError::Bytes { given: content.len(), width: N });
    }
    Ok(values.iter().map(|bytes| read(*bytes)).collect())
}

/// Whether any version answers Predict.
pub(super) fn is_available(versions: &[ModelVersionStatus]) -> bool {
    versions.iter().any(|version| version.state() == State::Available)
}

/// The reply of GetModelMetadata as the REST API prints it
/// (`GET /v1/models/<name>/metadata`; 64-bit integers are strings in proto3's JSON mapping).
pub(super) fn metadata(reply: GetModelMetadataResponse) -> Result<Value, ConvertError> {
    let spec = reply.model_spec.unwrap_or_default();
    let packed = reply.metadata.get("signature_def").ok_or(ConvertError::NoSignatures)?;
    let map = SignatureDefMap::decode(packed.value.as_slice()).map_err(ConvertError::Signatures)?;
    let signatures: Map<_, _> =
        map.signature_def.into_iter().map(|(name, signature)| (name, signature_json(signature))).collect();
    Ok(json!({
        "model_spec": {"name": spec.name, "version": version_text(spec.version_choice)},
        "metadata": {"signature_def": signatures},
    }))
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
    let tensors = |infos: std::collections::BTreeMap<String, TensorInfo>| -> Map<String, Value> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn tensor() -> Tensor {
        Tensor { name: "x".to_owned(), shape: vec![2, 1], values: Values::Float(vec![1.5, -2.0]) }
    }

    #[test]
    fn a_tensor_survives_the_wire() {
        let (name, proto) = to_proto(&tensor());
        assert_eq!(proto.tensor_content.len(), 8);
        assert_eq!(from_proto(name, proto), Ok(tensor()));
    }

    #[test]
    fn typed_values_are_read_as_well() {
        let (name, mut proto) = to_proto(&tensor());
        (proto.tensor_content, proto.float_val) = (Vec::new(), vec![1.5, -2.0]);
        assert_eq!(from_proto(name, proto), Ok(tensor()));
    }

    #[test]
    fn half_a_number_and_foreign_types_are_errors() {
        let (name, mut proto) = to_proto(&tensor());
        proto.tensor_content.pop();
        assert!(from_proto(name.clone(), proto.clone()).unwrap_err().to_string().contains("7 bytes"));
        proto.dtype = DataType::DtString.into();
        assert!(from_proto(name, proto).unwrap_err().to_string().contains("DT_STRING"));
    }
}
