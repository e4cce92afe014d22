//! The answer to an inference: the outputs of its job, always as raw bytes, because the clients of Triton read nothing else. Large
//! results are not copied into it.

use axum::{body::Bytes, response::Response};
use prost::{Message as _, encode_length_delimiter};
use tepal_proto::open_inference::{
    InferParameter, ModelInferResponse, infer_parameter::ParameterChoice,
    model_infer_response::InferOutputTensor,
};
use tepal_shared::{
    job::{Job, JobId, JobResult, JobStatus},
    queue::error::StoreError,
    tensor::{Tensor, View, stored_outputs},
};

use super::message::answer_in_parts;
use crate::{
    error::{ApiError, CallError},
    state::App,
};

/// The key of `raw_output_contents`, number 6, with its wire type, bytes of some length (2).
const RAW: u8 = 6 << 3 | 2;

/// The fields before the outputs.
pub(super) struct Head {
    /// The client's name of the request.
    pub(super) id: Option<String>,
    pub(super) model: String,
    pub(super) version: String,
}

impl Head {
    fn message(self) -> ModelInferResponse {
        let Self { id, model, version } = self;
        ModelInferResponse {
            model_name: model,
            model_version: version,
            id: id.unwrap_or_default(),
            ..ModelInferResponse::default()
        }
    }

    /// The answer to a request that is not waited for.
    pub(super) fn accepted(self, id: JobId, status: JobStatus) -> ModelInferResponse {
        let text = |text: &str| InferParameter {
            parameter_choice: Some(ParameterChoice::StringParam(text.to_owned())),
        };
        let parameters = [("job_id", text(&id.to_string())), ("status", text(status.as_str()))];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value)).into();
        ModelInferResponse { parameters, ..self.message() }
    }
}

/// The answer with the outputs of a completed job.
pub(super) async fn answer(app: &App, head: Head, job: &Job) -> Result<Response, ApiError> {
    match &job.result {
        Some(JobResult::Tensors(tensors)) => {
            let views: Vec<_> = tensors.iter().map(Tensor::view).collect();
            Ok(answer_in_parts(parts(head, &views, Bytes::copy_from_slice)))
        }
        Some(JobResult::LargeTensors { bytes }) => {
            let form = app.results.stored(job.id, *bytes).await?.ok_or(CallError::Removed)?;
            let views = stored_outputs::read(&form).map_err(StoreError::from)?;
            Ok(answer_in_parts(parts(head, &views, |data| form.slice_ref(data))))
        }
        _ => Err(CallError::Removed.into()),
    }
}

/// The message in parts: all fields but the elements, which are parts of their own.
fn parts(head: Head, tensors: &[View<'_>], elements: impl Fn(&[u8]) -> Bytes) -> Vec<Bytes> {
    let outputs = tensors.iter().map(|tensor| InferOutputTensor {
        name: tensor.name.to_owned(),
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.iter().map(|length| *length as i64).collect(),
        ..InferOutputTensor::default()
    });
    let message = ModelInferResponse { outputs: outputs.collect(), ..head.message() };
    let mut text = message.encode_to_vec();
    let mut parts = Vec::with_capacity(2 * tensors.len());
    for tensor in tensors {
        text.push(RAW);
        // Writing to memory cannot fail.
        let _ = encode_length_delimiter(tensor.data.len(), &mut text);
        parts.push(std::mem::take(&mut text).into());
        parts.push(elements(tensor.data));
    }
    parts.push(text.into());
    parts
}

#[cfg(test)]
mod tests {
    use tepal_shared::tensor::DataType;

    use super::*;

    fn head() -> Head {
        Head { id: Some("7".to_owned()), model: "m".to_owned(), version: "1".to_owned() }
    }

    fn message(tensors: &[Tensor]) -> ModelInferResponse {
        let views: Vec<_> = tensors.iter().map(Tensor::view).collect();
        let parts = parts(head(), &views, Bytes::copy_from_slice);
        ModelInferResponse::decode(parts.concat().as_slice()).unwrap()
    }

    #[test]
    fn the_parts_together_are_the_message() {
        let data = vec![7; 300];
        let tensor = |name: &str, shape: &[usize], data: &[u8]| Tensor {
            name: name.to_owned(),
            datatype: DataType::Uint8,
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        let read = message(&[tensor("a", &[3, 100], &data), tensor("b", &[1], b"x")]);
        assert_eq!(read.raw_output_contents, [data, b"x".to_vec()]);
        assert_eq!(
            (read.model_name.as_str(), read.model_version.as_str(), read.id.as_str()),
            ("m", "1", "7")
        );
        let outputs =
            read.outputs.iter().map(|it| (it.name.as_str(), it.datatype.as_str(), it.shape.as_slice()));
        let outputs: Vec<_> = outputs.collect();
        assert_eq!(outputs, [("a", "UINT8", &[3, 100][..]), ("b", "UINT8", &[1])]);
        assert!(message(&[]).outputs.is_empty());
    }
}
