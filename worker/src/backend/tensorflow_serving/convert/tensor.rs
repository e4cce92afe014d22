//! Tensors in the messages of calls.

use prost::encoding::decode_varint;
use tepal_proto::tensorflow::{
    DataType as ProtoType, TensorProto, TensorShapeProto, tensor_shape_proto::Dim,
};
use tepal_shared::tensor::{DataType, Element, Tensor, bytes};

use super::ConvertError;
use crate::backend::grpc::elements::{self, joined, joined_strings};

/// The tensor under its input's name.
pub(in super::super) fn to_proto(tensor: &Tensor) -> (String, TensorProto) {
    let dim = tensor.shape.iter().map(|size| Dim { size: *size as i64, name: String::new() }).collect();
    let mut proto = TensorProto {
        dtype: proto_type(tensor.datatype).into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        ..TensorProto::default()
    };
    match tensor.datatype {
        DataType::Bytes => proto.string_val = bytes::elements(&tensor.data).map(<[u8]>::to_vec).collect(),
        _ => proto.tensor_content.clone_from(&tensor.data),
    }
    (tensor.name.clone(), proto)
}

fn proto_type(datatype: DataType) -> ProtoType {
    ProtoType::from_str_name(datatype.tensorflow_name()).unwrap_or_default()
}

/// The tensor of a reply. The caller checks its shape and number of elements against the description.
pub(in super::super) fn from_proto(name: String, mut proto: TensorProto) -> Result<Tensor, ConvertError> {
    let dims = proto.tensor_shape.take().unwrap_or_default().dim;
    let shape = dims.iter().map(|dim| usize::try_from(dim.size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(ConvertError::NegativeAxis)?;
    let dtype = ProtoType::try_from(proto.dtype)
        .map_err(|_| ConvertError::UnknownDataType(proto.dtype))?
        .as_str_name();
    let datatype = DataType::from_tensorflow(dtype).ok_or(ConvertError::DataType(dtype))?;
    let data = match (datatype.width(), proto.tensor_content.is_empty()) {
        (_, true) => typed(datatype, proto)?,
        (None, false) => strings(&proto.tensor_content, &shape)?,
        (Some(width), false) if proto.tensor_content.len().is_multiple_of(width) => proto.tensor_content,
        (Some(width), false) => {
            return Err(ConvertError::Bytes { given: proto.tensor_content.len(), width });
        }
    };
    Ok(Tensor { name, datatype, shape, data })
}

/// The elements of the list that goes with the type.
fn typed(datatype: DataType, proto: TensorProto) -> Result<Vec<u8>, ConvertError> {
    match datatype {
        DataType::Bool => Ok(joined(&proto.bool_val)),
        DataType::Fp32 => Ok(joined(&proto.float_val)),
        DataType::Fp64 => Ok(joined(&proto.double_val)),
        DataType::Int32 => Ok(joined(&proto.int_val)),
        DataType::Int64 => Ok(joined(&proto.int64_val)),
        DataType::Uint32 => Ok(joined(&proto.uint32_val)),
        DataType::Uint64 => Ok(joined(&proto.uint64_val)),
        DataType::Int8 => narrowed::<i8>(datatype, &proto.int_val),
        DataType::Int16 => narrowed::<i16>(datatype, &proto.int_val),
        DataType::Uint8 => narrowed::<u8>(datatype, &proto.int_val),
        DataType::Uint16 => narrowed::<u16>(datatype, &proto.int_val),
        DataType::Fp16 | DataType::Bf16 => narrowed::<u16>(datatype, &proto.half_val),
        DataType::Bytes => {
            joined_strings(proto.string_val.iter().map(Vec::as_slice)).ok_or(ConvertError::Lengths)
        }
    }
}

/// Values of a type that has no list of its own.
fn narrowed<T: Element + TryFrom<i32>>(datatype: DataType, values: &[i32]) -> Result<Vec<u8>, ConvertError> {
    elements::narrowed::<_, T>(values)
        .map_err(|value| ConvertError::Value { value, datatype: datatype.as_str() })
}

/// Strings in `tensor_content`: the lengths of all as varints, then the strings (`port::EncodeStringList` of TensorFlow).
fn strings(mut content: &[u8], shape: &[usize]) -> Result<Vec<u8>, ConvertError> {
    let count = shape.iter().try_fold(1_usize, |count, axis| count.checked_mul(*axis));
    // A length has at least one byte.
    let count = count.filter(|count| *count <= content.len()).ok_or(ConvertError::Lengths)?;
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let length = decode_varint(&mut content).ok().and_then(|length| usize::try_from(length).ok());
        lengths.push(length.ok_or(ConvertError::Lengths)?);
    }
    let mut strings = Vec::with_capacity(count);
    for length in lengths {
        let (string, rest) = content.split_at_checked(length).ok_or(ConvertError::Lengths)?;
        strings.push(string);
        content = rest;
    }
    let joined = joined_strings(strings.into_iter()).filter(|_| content.is_empty());
    joined.ok_or(ConvertError::Lengths)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn tensor(datatype: DataType, data: Vec<u8>) -> Tensor {
        Tensor { name: "x".to_owned(), datatype, shape: vec![2, 1], data }
    }

    fn floats() -> Tensor {
        tensor(DataType::Fp32, joined(&[1.5_f32, -2.0]))
    }

    fn texts() -> Tensor {
        tensor(DataType::Bytes, b"\x02\0\0\0\xff\xfe\0\0\0\0".to_vec())
    }

    /// An answer with its elements in a list.
    fn typed(datatype: DataType, fill: impl FnOnce(&mut TensorProto)) -> Result<Vec<u8>, ConvertError> {
        let (name, mut proto) = to_proto(&tensor(datatype, Vec::new()));
        fill(&mut proto);
        from_proto(name, proto).map(|tensor| tensor.data)
    }

    #[test]
    fn a_tensor_of_each_type_survives_the_wire() {
        for datatype in DataType::ALL {
            let data = datatype.width().map_or_else(|| texts().data, |width| vec![1; 2 * width]);
            let (name, proto) = to_proto(&tensor(datatype, data.clone()));
            assert_eq!(proto.dtype().as_str_name(), datatype.tensorflow_name());
            assert_eq!(from_proto(name, proto), Ok(tensor(datatype, data)));
        }
    }

    #[test]
    fn values_in_lists_are_read_as_well() {
        assert_eq!(typed(DataType::Fp32, |proto| proto.float_val = vec![1.5, -2.0]), Ok(floats().data));
        assert_eq!(typed(DataType::Fp64, |proto| proto.double_val = vec![0.5]), Ok(joined(&[0.5])));
        assert_eq!(typed(DataType::Bool, |proto| proto.bool_val = vec![true, false]), Ok(vec![1, 0]));
        assert_eq!(typed(DataType::Int8, |proto| proto.int_val = vec![-1, 7]), Ok(vec![255, 7]));
        assert_eq!(typed(DataType::Uint16, |proto| proto.int_val = vec![258]), Ok(vec![2, 1]));
        assert_eq!(typed(DataType::Fp16, |proto| proto.half_val = vec![0x3c00]), Ok(vec![0, 0x3c]));
        assert_eq!(typed(DataType::Int32, |proto| proto.int_val = vec![-1]), Ok(vec![255; 4]));
        assert_eq!(typed(DataType::Int64, |proto| proto.int64_val = vec![-1]), Ok(vec![255; 8]));
        assert_eq!(typed(DataType::Uint32, |proto| proto.uint32_val = vec![1]), Ok(vec![1, 0, 0, 0]));
        assert_eq!(typed(DataType::Uint64, |proto| proto.uint64_val = vec![u64::MAX]), Ok(vec![255; 8]));
        let strings = |proto: &mut TensorProto| proto.string_val = vec![b"\xff\xfe".to_vec(), Vec::new()];
        assert_eq!(typed(DataType::Bytes, strings), Ok(texts().data));
    }

    #[test]
    fn a_value_beyond_its_type_is_an_error() {
        let error = typed(DataType::Uint8, |proto| proto.int_val = vec![300]).unwrap_err().to_string();
        assert_eq!(error, "The model answered with 300, which no UINT8 is");
    }

    #[test]
    fn strings_in_raw_bytes_have_their_lengths_first() {
        let content =
            |content: &[u8]| typed(DataType::Bytes, |proto| proto.tensor_content = content.to_vec());
        assert_eq!(content(b"\x02\0\xff\xfe"), Ok(texts().data));
        for bad in [
            &b"\x02\0\xff"[..],
            b"\x02\0\xff\xfe\xfd",
            b"\x02",
            b"\x80\x80",
            b"\xff\xff\xff\xff\xff\xff\xff\x7f\0",
        ] {
            assert_eq!(content(bad), Err(ConvertError::Lengths), "{bad:?}");
        }
    }

    #[test]
    fn half_a_number_and_foreign_types_are_errors() {
        let (name, mut proto) = to_proto(&floats());
        proto.tensor_content.pop();
        assert!(from_proto(name.clone(), proto.clone()).unwrap_err().to_string().contains("7 bytes"));
        proto.dtype = ProtoType::DtComplex64.into();
        assert!(from_proto(name, proto).unwrap_err().to_string().contains("DT_COMPLEX64"));
    }
}
