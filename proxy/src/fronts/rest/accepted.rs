//! The answer to an accepted submission: 202, or the job itself if the client waits for it and it ends in time.

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_LOCATION, LOCATION},
    },
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tepal_shared::{
    job::{Job, JobId, JobStatus},
    process::telemetry,
};
use tracing::warn;

use super::{
    job::{
        binary,
        representation::{Representation, mark_negotiated},
        view::{self, JobView},
    },
    openapi::{contract::Contract, parts::applied},
};
use crate::{
    edge::access::{Caller, Scope},
    error::ApiError,
    http::{answer, prefer},
    state::App,
};

/// An accepted job, and its state at that time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Accepted", description = "An accepted job")]
pub(super) struct AcceptedJob {
    pub(super) job_id: JobId,
    pub(super) status: JobStatus,
}

impl AcceptedJob {
    /// An example for the contract.
    pub(super) fn example(status: JobStatus) -> Self {
        Self { job_id: view::example_id(), status }
    }

    /// JSON.
    pub(super) fn text(&self) -> String {
        // Serialising this type cannot fail: its keys are strings.
        serde_json::to_string(self).unwrap_or_default()
    }
}

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
    let mut response = match app.following.ended(caller.sees(), id, wait).await {
        // The job is stored, so an answer that is too large for now must not become an error.
        Ok(Some(job)) if job.status.is_terminal() => {
            finished(app, headers, &job).await.unwrap_or_else(|error| {
                warn!(action = "wait_failed", job_id = %id, error = error.failure().as_deref());
                accepted(id, job.status)
            })
        }
        Ok(job) => accepted(id, job.map_or(status, |job| job.status)),
        // The job is accepted, even if waiting for it failed.
        Err(error) => {
            warn!(action = "wait_failed", job_id = %id, error = telemetry::chain(&error));
            accepted(id, status)
        }
    };
    mark_negotiated(app, &mut response);
    prefer::mark_applied(response.headers_mut(), wait);
    response
}

async fn finished(app: &App, request: &HeaderMap, job: &Job) -> Result<Response, ApiError> {
    let mut response = Representation::of(request, job).shown(app, job).await?;
    if let Ok(location) = HeaderValue::try_from(format!("/job/{}", job.id)) {
        response.headers_mut().insert(CONTENT_LOCATION, location);
    }
    Ok(response)
}

fn accepted(id: JobId, status: JobStatus) -> Response {
    let mut response = answer::json(AcceptedJob { job_id: id, status }.text());
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::try_from(format!("/job/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Describes the answers to an accepted job.
pub(super) fn answers(contract: &mut Contract<'_>) -> Vec<(u16, Value)> {
    let text = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    let job = view::example_body();
    let mut finished =
        contract.answer_like::<JobView<'_>>("The job has ended within the preferred wait", &job);
    finished["headers"] =
        json!({"Content-Location": text("The URL of the job"), "Preference-Applied": applied()});
    binary::describe(&mut finished, &view::example());
    let job = AcceptedJob::example(JobStatus::Pending);
    let mut accepted = contract.answer("The job is accepted", &job);
    accepted["headers"] = json!({"Location": text("The URL of the job"), "Preference-Applied": applied()});
    accepted["links"] = json!({
        "show": {"operationId": "showJob", "parameters": {"id": "$response.body#/job_id"}},
    });
    vec![(200, finished), (202, accepted)]
}
