//! Converts between our tensors and those of the protocol. Sends raw bytes, and reads both forms.

mod cast;
mod metadata;
mod tensor;

use tepal_proto::open_inference::{ModelInferResponse, model_infer_response::InferOutputTensor};
use tepal_shared::{
    model::{OutputError, OutputSpec},
    tensor::Tensor,
};

pub(super) use self::{
    metadata::{interface, metadata},
    tensor::to_proto,
};

/// An answer that cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ConvertError {
    #[error("The model answered with a negative axis length")]
    NegativeAxis(#[source] std::num::TryFromIntError),
    #[error("The model answered with {value}, which no {datatype} is")]
    Value { value: String, datatype: &'static str },
    #[error("The model answered with a string of more than 4 GiB")]
    Length,
    #[error("The model answered with the unknown type `{0}`")]
    DataType(String),
    #[error("The model answered with {given} bytes, not a multiple of {width}")]
    Bytes { given: usize, width: usize },
    #[error("The model answered with {outputs} outputs, and the raw contents of {contents}")]
    Contents { outputs: usize, contents: usize },
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// The described outputs of an answer, in the order of the description. Numbers of another width are converted. The caller checks
/// shapes and numbers of elements.
pub(super) fn outputs<'a>(
    reply: ModelInferResponse,
    described: impl Iterator<Item = &'a OutputSpec>,
) -> Result<Vec<Tensor>, ConvertError> {
    let ModelInferResponse { outputs, raw_output_contents: raw, .. } = reply;
    // A server that answers raw may send empty `contents`, too.
    let mut given: Vec<(InferOutputTensor, Option<Vec<u8>>)> = match (raw.len(), outputs.len()) {
        (0, _) => outputs.into_iter().map(|output| (output, None)).collect(),
        (contents, count) if contents == count => {
            outputs.into_iter().zip(raw.into_iter().map(Some)).collect()
        }
        (contents, outputs) => return Err(ConvertError::Contents { outputs, contents }),
    };
    let tensor = |spec: &OutputSpec| {
        let number = given.iter().position(|(output, _)| output.name == spec.name);
        let missing = || OutputError::Missing { output: spec.name.clone() };
        let (output, raw) = given.swap_remove(number.ok_or_else(missing)?);
        cast::to(spec.datatype, tensor::from_proto(output, raw)?)
    };
    described.map(tensor).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use tepal_shared::{
        model::Model,
        tensor::{DataType, Element as _},
    };

    use super::*;

    fn iris() -> Model {
        Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models"), "iris").unwrap()
    }

    fn output(name: &str, datatype: &str) -> InferOutputTensor {
        let (name, datatype) = (name.to_owned(), datatype.to_owned());
        InferOutputTensor { name, datatype, shape: vec![1, 3], ..InferOutputTensor::default() }
    }

    fn raw(outputs: Vec<InferOutputTensor>, contents: Vec<Vec<u8>>) -> Result<Vec<Tensor>, ConvertError> {
        let reply =
            ModelInferResponse { outputs, raw_output_contents: contents, ..ModelInferResponse::default() };
        super::outputs(reply, iris().outputs())
    }

    fn bytes<T: tepal_shared::tensor::Element>(values: &[T]) -> Vec<u8> {
        crate::backend::grpc::elements::joined(values)
    }

    #[test]
    fn an_output_is_found_by_its_name_and_has_the_bytes_at_its_place() {
        let floats = bytes(&[0.5_f32, 0.25, 0.25]);
        let answer =
            raw(vec![output("a", "INT64"), output("output", "FP32")], vec![vec![0; 8], floats.clone()]);
        let tensor = answer.unwrap().remove(0);
        assert_eq!((tensor.name.as_str(), tensor.shape, tensor.data), ("output", vec![1, 3], floats));

        let error = raw(vec![output("a", "FP32")], vec![vec![]]).unwrap_err();
        assert_eq!(error.to_string(), "The model answered without the output `output`");
        let error = raw(vec![output("output", "FP32")], vec![vec![], vec![]]).unwrap_err();
        assert_eq!(error.to_string(), "The model answered with 1 outputs, and the raw contents of 2");
    }

    #[test]
    fn floats_of_another_width_are_converted() {
        let doubles = bytes(&[0.5_f64, 0.25, 0.25]);
        let tensor = raw(vec![output("output", "FP64")], vec![doubles]).unwrap().remove(0);
        assert_eq!(tensor.datatype, DataType::Fp32);
        assert_eq!(f32::all(&tensor.data).collect::<Vec<_>>(), [0.5, 0.25, 0.25]);
    }
}
