//! The result of a job as the bytes that it is.

use axum::{
    body::Bytes,
    http::{
        HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::Response,
};
use tepal_shared::{
    content::Content,
    job::{Job, JobResult},
    queue::error::StoreError,
    tensor::stored::StoredError,
};

use crate::{error::ApiError, http::answer::paid, state::App};

/// The content type of a result that is bytes.
pub(super) fn type_of(job: &Job) -> Option<&str> {
    match &job.result {
        Some(JobResult::Bytes { content_type, .. } | JobResult::LargeBytes { content_type, .. }) => {
            Some(content_type)
        }
        _ => None,
    }
}

/// The bytes of the result as an answer with their content type.
pub(super) async fn shown(app: &App, job: &Job) -> Result<Response, ApiError> {
    let bytes = match &job.result {
        // They are few, so their memory is reserved when they are sent.
        Some(JobResult::Bytes { bytes, .. }) => Bytes::copy_from_slice(bytes),
        Some(JobResult::LargeBytes { bytes, .. }) => {
            let form = app.results.stored(job.id, *bytes).await?.ok_or(ApiError::JobNotFound)?;
            let Content::Bytes { bytes, .. } = Content::read(&form).map_err(StoreError::from)? else {
                return Err(StoreError::from(StoredError::Content).into());
            };
            form.slice_ref(bytes)
        }
        _ => return Err(ApiError::JobNotFound),
    };
    let mut response = paid([bytes]);
    let headers = response.headers_mut();
    if let Some(content_type) = type_of(job).and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    // A browser must not show what a model answered as a page of this service.
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}
