//! The answer to an accepted submission: 202, or the job itself if the client waits for it and it ends in time.

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_LOCATION, LOCATION},
    },
    response::Response,
};
use tepal_shared::{
    job::{Job, JobId, JobStatus},
    process::telemetry,
};
use tracing::warn;

use super::job::answer::shown;
use crate::{
    edge::access::{Caller, Scope},
    error::ApiError,
    http::{answer::json, prefer},
    state::App,
};

/// The answer: the job itself if the client prefers to wait, may read the job, and the job ends in time.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    id: JobId,
    status: JobStatus,
) -> Response {
    let wait = prefer::wait(headers).filter(|_| caller.may(Scope::Read));
    let Some(wait) = wait else { return accepted(id, status) };
    let mut response = match app.following.ended(caller.view(), id, wait).await {
        // The job is stored, so an answer that is too large for now must not become an error.
        Ok(Some(job)) if job.status.is_terminal() => finished(app, &job).await.unwrap_or_else(|error| {
            warn!(action = "wait_failed", job_id = %id, error = error.failure().as_deref());
            accepted(id, job.status)
        }),
        Ok(job) => accepted(id, job.map_or(status, |job| job.status)),
        // The job is accepted, even if waiting for it failed.
        Err(error) => {
            warn!(action = "wait_failed", job_id = %id, error = telemetry::chain(&error));
            accepted(id, status)
        }
    };
    prefer::mark_applied(response.headers_mut(), wait);
    response
}

async fn finished(app: &App, job: &Job) -> Result<Response, ApiError> {
    let mut response = shown(app, job).await?;
    if let Ok(location) = HeaderValue::try_from(format!("/job/{}", job.id)) {
        response.headers_mut().insert(CONTENT_LOCATION, location);
    }
    Ok(response)
}

fn accepted(id: JobId, status: JobStatus) -> Response {
    let mut response = json(format!(r#"{{"job_id":"{id}","status":"{status}"}}"#));
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::try_from(format!("/job/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
