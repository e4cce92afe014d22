//! The answer to an inference: the outputs of its job as JSON, or as raw bytes after JSON.

use std::io::Write as _;

use axum::{
    body::Bytes,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use serde_json::{Map, Value};
use tepal_shared::{
    job::{Job, JobId, JobResult, JobStatus},
    queue::error::StoreError,
    tensor::{Tensor, View, open_inference::binary, stored_outputs},
};

use super::{extract::JSON_LENGTH, request::Encoding};
use crate::{
    error::{ApiError, CallError},
    http::answer::{Blocks, as_json, paid},
    state::App,
};

/// The members before the outputs.
#[derive(Debug)]
pub(super) struct Head {
    /// The client's name of the request.
    pub(super) id: Option<String>,
    pub(super) model: String,
    pub(super) version: String,
}

impl Head {
    /// JSON, up to the outputs.
    fn text(&self) -> String {
        let mut text = Value::Object(self.members()).to_string();
        text.pop();
        text + r#","outputs":"#
    }

    /// The answer to a request that is not waited for.
    pub(super) fn accepted(&self, id: JobId, status: JobStatus) -> Value {
        let mut members = self.members();
        members.insert("job_id".to_owned(), id.to_string().into());
        members.insert("status".to_owned(), status.as_str().into());
        Value::Object(members)
    }

    fn members(&self) -> Map<String, Value> {
        let named = [
            ("model_name", Some(&self.model)),
            ("model_version", Some(&self.version)),
            ("id", self.id.as_ref()),
        ];
        let members =
            named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.as_str().into())));
        members.collect()
    }
}

const AFTER_OUTPUTS: &str = "}";

/// The answer with the outputs of a completed job.
pub(super) async fn answer(
    app: &App,
    head: &Head,
    encoding: Encoding,
    job: &Job,
) -> Result<Response, ApiError> {
    match &job.result {
        Some(JobResult::Tensors(tensors)) => Ok(small(head, &encoding, tensors)),
        Some(JobResult::LargeTensors { bytes }) => {
            let form = app.results.stored(job.id, *bytes).await?.ok_or(CallError::Removed)?;
            large(app, head, encoding, form).await
        }
        _ => Err(CallError::Removed.into()),
    }
}

/// The memory of a small answer is reserved when it is sent.
fn small(head: &Head, encoding: &Encoding, tensors: &[Tensor]) -> Response {
    let is_raw = |name: &str| encoding.is_raw(name);
    let mut text = head.text().into_bytes();
    // Writing JSON to memory cannot fail.
    let _ = binary::write_mixed(tensors.iter().map(Tensor::view), is_raw, &mut text);
    text.extend_from_slice(AFTER_OUTPUTS.as_bytes());
    let raw = tensors.iter().filter(|tensor| is_raw(&tensor.name));
    let raw: Vec<_> = raw.map(|tensor| Bytes::copy_from_slice(&tensor.data)).collect();
    assembled(vec![text.into()], raw)
}

/// A large result is held once for all answers that contain it.
async fn large(app: &App, head: &Head, encoding: Encoding, form: Bytes) -> Result<Response, ApiError> {
    let tensors = stored_outputs::read(&form).map_err(StoreError::from)?;
    let raw = tensors.iter().filter(|tensor| encoding.is_raw(tensor.name));
    let raw: Vec<_> = raw.map(|tensor| form.slice_ref(tensor.data)).collect();
    let before = head.text();
    let write = move |tensors: Vec<View<'_>>, text: &mut Blocks| {
        text.write_all(before.as_bytes())?;
        binary::write_mixed(tensors, |name| encoding.is_raw(name), text)?;
        text.write_all(AFTER_OUTPUTS.as_bytes())
    };
    let text = app.results.about(form.clone(), write).await?;
    Ok(assembled(text, raw))
}

/// The JSON, and the raw bytes after it, if there are any.
fn assembled(text: Vec<Bytes>, raw: Vec<Bytes>) -> Response {
    if raw.is_empty() {
        return as_json(paid(text));
    }
    let length: usize = text.iter().map(Bytes::len).sum();
    let mut response = paid(text.into_iter().chain(raw));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(JSON_LENGTH, length.into());
    response
}
