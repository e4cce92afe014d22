//! Answers in the messages of the protocol.

use tepal_proto::open_inference::model_infer_response::InferOutputTensor;
use tepal_proto::open_inference::model_metadata_response::TensorMetadata;
use tepal_proto::open_inference::{InferTensorContents, ModelInferResponse, ModelMetadataResponse};

use super::super::reply::{Answer, Output};
use super::super::spec::{AnswerStyle, ServerSpec, TensorSpec};

/// The answer of ModelMetadata.
pub(super) fn metadata(spec: &ServerSpec) -> ModelMetadataResponse {
    let describe = |tensor: &TensorSpec| TensorMetadata {
        name: tensor.name.clone(),
        datatype: tensor.datatype().to_owned(),
        shape: std::iter::once(-1).chain(tensor.row_shape.iter().map(|size| *size as i64)).collect(),
    };
    let are_named = spec.open_inference.names_tensors;
    let outputs: Vec<_> = spec.outputs().collect();
    ModelMetadataResponse {
        name: spec.model.clone(),
        versions: vec![spec.version.to_string()],
        platform: "fake".to_owned(),
        inputs: spec.inputs.iter().filter(|_| are_named).map(describe).collect(),
        outputs: outputs.iter().filter(|_| are_named).map(describe).collect(),
    }
}

/// The answer of ModelInfer. In raw form it has empty contents, too, as that of MLServer.
pub(super) fn response(spec: &ServerSpec, mut answer: Answer, id: String) -> ModelInferResponse {
    let padding = answer.take_padding();
    let mut response = ModelInferResponse {
        model_name: spec.model.clone(),
        model_version: spec.version.to_string(),
        id,
        ..ModelInferResponse::default()
    };
    for output in answer.outputs {
        let tensor = head(spec, &output);
        let values = left(&output);
        match spec.answer_style {
            AnswerStyle::FloatVal => {
                let contents = Some(typed(spec, &output, values));
                response.outputs.push(InferOutputTensor { contents, ..tensor });
            }
            AnswerStyle::TensorContent => {
                let contents = Some(InferTensorContents::default());
                response.outputs.push(InferOutputTensor { contents, ..tensor });
                response.raw_output_contents.push(raw(spec, &output, values));
            }
        }
    }
    if let Some((name, bytes)) = padding {
        let shape = vec![bytes.len() as i64];
        let mut tensor =
            InferOutputTensor { name, datatype: "UINT8".to_owned(), shape, ..InferOutputTensor::default() };
        match spec.answer_style {
            AnswerStyle::FloatVal => {
                let bytes_contents = vec![bytes];
                tensor.contents = Some(InferTensorContents { bytes_contents, ..Default::default() });
            }
            AnswerStyle::TensorContent => response.raw_output_contents.push(bytes),
        }
        response.outputs.push(tensor);
    }
    response
}

fn head(spec: &ServerSpec, output: &Output) -> InferOutputTensor {
    let datatype = match (output.has_unknown_type, output.is_text, spec.open_inference.in_doubles) {
        (true, ..) => "FP128",
        (_, true, _) => "BYTES",
        (.., true) => "FP64",
        _ => "FP32",
    };
    InferOutputTensor {
        name: output.name.clone(),
        datatype: datatype.to_owned(),
        shape: output.sizes.iter().map(|size| *size as i64).collect(),
        ..InferOutputTensor::default()
    }
}

/// The values, without the last one if it is to be missing.
fn left(output: &Output) -> &[f32] {
    let missing = usize::from(output.is_short && !output.values.is_empty());
    &output.values[..output.values.len() - missing]
}

fn typed(spec: &ServerSpec, output: &Output, values: &[f32]) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    if output.is_text {
        contents.bytes_contents = values.iter().map(|value| value.to_string().into_bytes()).collect();
    } else if spec.open_inference.in_doubles {
        contents.fp64_contents = values.iter().map(|value| f64::from(*value)).collect();
    } else {
        contents.fp32_contents = values.to_vec();
    }
    contents
}

fn raw(spec: &ServerSpec, output: &Output, values: &[f32]) -> Vec<u8> {
    let text = |value: &f32| {
        let text = value.to_string();
        [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    };
    if output.is_text {
        values.iter().flat_map(text).collect()
    } else if spec.open_inference.in_doubles {
        values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect()
    } else {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}
