//! A job in the binary form of the Open Inference Protocol: the job as JSON, whose result describes its tensors, and after it their raw
//! bytes. A job without tensors has JSON only.

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use serde_json::{Value, json};
use tepal_shared::{
    job::{Job, JobResult},
    queue::error::StoreError,
    tensor::{Tensor, View, open_inference::binary, stored_outputs},
};

use super::{answer::mark_unfinished, view, whole::parts};
use crate::{
    error::ApiError,
    http::answer::{Pieces, paid},
    state::App,
};

/// The length of the JSON.
const HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");
const MEDIA_TYPE: &str = "application/octet-stream";

/// The job as an answer in binary form.
pub(super) async fn shown(app: &App, job: &Job) -> Result<Response, ApiError> {
    let mut response = match &job.result {
        Some(JobResult::Tensors(tensors)) => {
            let text = described(job, tensors.iter().map(Tensor::view));
            let raw = tensors.iter().map(|tensor| Bytes::copy_from_slice(&tensor.data));
            let length = text.len();
            // It is small, so its memory is reserved when it is sent.
            let pieces = Pieces::from_iter(std::iter::once(text.into()).chain(raw));
            with_length(Response::new(Body::new(pieces)), length)
        }
        Some(JobResult::LargeTensors { bytes }) => {
            let form = app.results.stored(job.id, *bytes).await?.ok_or(ApiError::JobNotFound)?;
            let tensors = stored_outputs::read(&form).map_err(StoreError::from)?;
            let text = described(job, tensors.iter().cloned());
            let length = text.len();
            let raw = tensors.iter().map(|tensor| form.slice_ref(tensor.data));
            with_length(paid(std::iter::once(text.into()).chain(raw)), length)
        }
        _ => {
            let parts = parts(app, job, "", "").await?.ok_or(ApiError::JobNotFound)?;
            let length = parts.iter().map(Bytes::len).sum();
            with_length(paid(parts), length)
        }
    };
    mark_unfinished(job, &mut response);
    Ok(response)
}

/// Adds this form to the description of an answer that shows the job.
pub(crate) fn describe(answer: &mut Value, job: &Job) {
    answer["content"][MEDIA_TYPE] =
        json!({"schema": {"type": "string", "format": "binary"}, "example": view::body(job)});
    answer["headers"]["Inference-Header-Content-Length"] = json!({
        "description": "In binary form: bytes of the JSON before the raw tensors",
        "schema": {"type": "integer"},
    });
}

/// The job as JSON, with tensors whose elements follow.
fn described<'a>(job: &Job, tensors: impl IntoIterator<Item = View<'a>>) -> String {
    view::with_result(job, |text| binary::write_outputs(tensors, text))
}

fn with_length(mut response: Response, json: usize) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(HEADER, json.into());
    response
}
