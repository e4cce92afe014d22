//! Tensors in the messages of calls.

use prost::bytes::Bytes;
use tepal_proto::open_inference::{
    InferTensorContents, model_infer_request::InferInputTensor, model_infer_response::InferOutputTensor,
};
use tepal_shared::tensor::{DataType, Element, Tensor};

use super::ConvertError;
use crate::backend::grpc::elements::{self, joined, joined_strings};

/// An input, and its raw contents. The protocol has elements in the form that we keep them in.
pub(in super::super) fn to_proto(tensor: Tensor) -> (InferInputTensor, Bytes) {
    let input = InferInputTensor {
        name: tensor.name,
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.iter().map(|size| *size as i64).collect(),
        ..InferInputTensor::default()
    };
    (input, tensor.data.into())
}

/// An output with its raw contents, or with those in its lists.
pub(super) fn from_proto(output: InferOutputTensor, raw: Option<Vec<u8>>) -> Result<Tensor, ConvertError> {
    let InferOutputTensor { name, datatype, shape, contents, .. } = output;
    let shape = shape.iter().map(|size| usize::try_from(*size)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(ConvertError::NegativeAxis)?;
    let datatype = DataType::named(&datatype).ok_or(ConvertError::DataType(datatype))?;
    let data = match raw {
        Some(raw) => raw,
        None => typed(datatype, contents.unwrap_or_default())?,
    };
    match datatype.width() {
        Some(width) if !data.len().is_multiple_of(width) => {
            Err(ConvertError::Bytes { given: data.len(), width })
        }
        _ => Ok(Tensor { name, datatype, shape, data }),
    }
}

/// The elements of the list that goes with the type.
fn typed(datatype: DataType, contents: InferTensorContents) -> Result<Vec<u8>, ConvertError> {
    match datatype {
        DataType::Bool => Ok(joined(&contents.bool_contents)),
        DataType::Int8 => narrowed::<_, i8>(datatype, &contents.int_contents),
        DataType::Int16 => narrowed::<_, i16>(datatype, &contents.int_contents),
        DataType::Int32 => Ok(joined(&contents.int_contents)),
        DataType::Int64 => Ok(joined(&contents.int64_contents)),
        DataType::Uint8 => narrowed::<_, u8>(datatype, &contents.uint_contents),
        DataType::Uint16 => narrowed::<_, u16>(datatype, &contents.uint_contents),
        DataType::Uint32 => Ok(joined(&contents.uint_contents)),
        DataType::Uint64 => Ok(joined(&contents.uint64_contents)),
        // These have no list. What has none has no elements.
        DataType::Fp16 | DataType::Bf16 => Ok(Vec::new()),
        DataType::Fp32 => Ok(joined(&contents.fp32_contents)),
        DataType::Fp64 => Ok(joined(&contents.fp64_contents)),
        DataType::Bytes => {
            joined_strings(contents.bytes_contents.iter().map(Vec::as_slice)).ok_or(ConvertError::Length)
        }
    }
}

/// Values of a type that has no list of its own.
fn narrowed<V: Copy + ToString, T: Element + TryFrom<V>>(
    datatype: DataType,
    values: &[V],
) -> Result<Vec<u8>, ConvertError> {
    let wrong = |value: V| ConvertError::Value { value: value.to_string(), datatype: datatype.as_str() };
    elements::narrowed::<V, T>(values).map_err(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// An answer with its elements in a list.
    fn listed(
        datatype: DataType,
        fill: impl FnOnce(&mut InferTensorContents),
    ) -> Result<Vec<u8>, ConvertError> {
        let mut contents = InferTensorContents::default();
        fill(&mut contents);
        let output = InferOutputTensor {
            datatype: datatype.as_str().to_owned(),
            shape: vec![2],
            contents: Some(contents),
            ..InferOutputTensor::default()
        };
        from_proto(output, None).map(|tensor| tensor.data)
    }

    #[test]
    fn a_tensor_of_each_type_survives_the_wire() {
        for datatype in DataType::ALL {
            let data = datatype
                .width()
                .map_or_else(|| b"\x02\0\0\0\xff\xfe\0\0\0\0".to_vec(), |width| vec![1; 2 * width]);
            let tensor = Tensor { name: "x".to_owned(), datatype, shape: vec![2, 1], data };
            let (input, contents) = to_proto(tensor.clone());
            let InferInputTensor { name, datatype, shape, .. } = input;
            let output = InferOutputTensor { name, datatype, shape, ..InferOutputTensor::default() };
            assert_eq!(from_proto(output, Some(contents.into())), Ok(tensor));
        }
    }

    #[test]
    fn values_in_lists_are_read_as_well() {
        assert_eq!(listed(DataType::Bool, |lists| lists.bool_contents = vec![true, false]), Ok(vec![1, 0]));
        assert_eq!(listed(DataType::Int8, |lists| lists.int_contents = vec![-1, 7]), Ok(vec![255, 7]));
        assert_eq!(listed(DataType::Int16, |lists| lists.int_contents = vec![258]), Ok(vec![2, 1]));
        assert_eq!(listed(DataType::Int32, |lists| lists.int_contents = vec![-1]), Ok(vec![255; 4]));
        assert_eq!(listed(DataType::Int64, |lists| lists.int64_contents = vec![-1]), Ok(vec![255; 8]));
        assert_eq!(listed(DataType::Uint8, |lists| lists.uint_contents = vec![255]), Ok(vec![255]));
        assert_eq!(listed(DataType::Uint16, |lists| lists.uint_contents = vec![258]), Ok(vec![2, 1]));
        assert_eq!(listed(DataType::Uint32, |lists| lists.uint_contents = vec![1]), Ok(vec![1, 0, 0, 0]));
        assert_eq!(
            listed(DataType::Uint64, |lists| lists.uint64_contents = vec![u64::MAX]),
            Ok(vec![255; 8])
        );
        assert_eq!(listed(DataType::Fp32, |lists| lists.fp32_contents = vec![1.5]), Ok(joined(&[1.5_f32])));
        assert_eq!(listed(DataType::Fp64, |lists| lists.fp64_contents = vec![0.5]), Ok(joined(&[0.5])));
        let strings =
            |lists: &mut InferTensorContents| lists.bytes_contents = vec![b"ab".to_vec(), Vec::new()];
        assert_eq!(listed(DataType::Bytes, strings), Ok(b"\x02\0\0\0ab\0\0\0\0".to_vec()));
    }

    #[test]
    fn what_is_no_tensor_of_ours_is_an_error() {
        let error = listed(DataType::Uint8, |lists| lists.uint_contents = vec![300]).unwrap_err();
        assert_eq!(error.to_string(), "The model answered with 300, which no UINT8 is");
        let output = |datatype: &str, shape| InferOutputTensor {
            datatype: datatype.to_owned(),
            shape,
            ..InferOutputTensor::default()
        };
        let error =
            |datatype, shape, raw| from_proto(output(datatype, shape), Some(raw)).unwrap_err().to_string();
        assert_eq!(
            error("FP32", vec![2], vec![0; 7]),
            "The model answered with 7 bytes, not a multiple of 4"
        );
        assert_eq!(error("fp32", vec![1], vec![0; 4]), "The model answered with the unknown type `fp32`");
        assert_eq!(error("FP32", vec![-1], vec![]), "The model answered with a negative axis length");
    }
}
