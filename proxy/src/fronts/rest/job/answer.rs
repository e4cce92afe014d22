//! A job as an answer.

use axum::{http::header::RETRY_AFTER, response::Response};
use tepal_shared::job::{Job, JobResult};

use super::{
    view::body,
    whole::{BYTES_WITHOUT_RESULT, parts},
};
use crate::{
    error::ApiError,
    http::answer::{SMALL, as_json, json, paid},
    state::App,
};

/// The job as JSON.
pub(super) async fn shown(app: &App, job: &Job) -> Result<Response, ApiError> {
    let size = job.result.as_ref().map_or(0, JobResult::most_bytes) + BYTES_WITHOUT_RESULT;
    let mut response = if size <= SMALL {
        json(body(job))
    } else {
        let parts = parts(app, job, "", "").await?.ok_or(ApiError::JobNotFound)?;
        as_json(paid(parts))
    };
    mark_unfinished(job, &mut response);
    Ok(response)
}

/// Asks the client to read the job again, if it has not ended.
pub(super) fn mark_unfinished(job: &Job, response: &mut Response) {
    if !job.status.is_terminal() {
        response.headers_mut().insert(RETRY_AFTER, 1.into());
    }
}
