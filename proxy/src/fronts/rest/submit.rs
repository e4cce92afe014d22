//! `POST /predict` and `POST /predict/test`: accept a job.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_LOCATION, LOCATION},
        request::Parts,
    },
    response::Response,
};
use tepal_shared::{
    job::{Job, JobId, JobStatus, NewJob},
    process::{telemetry, trace::Submit},
    queue::{error::StoreError, scripts::Submitted},
};
use tracing::{info, warn};

use super::{job, json};
use crate::{
    edge::{
        access::{Caller, Scope},
        observe::{millis, request_id},
    },
    error::ApiError,
    http::{headers, prefer},
    jobs::{follow, idempotency::Key, quota, submission::Submission},
    state::App,
};

/// What a client of a full queue is told while nobody knows how fast it drains, s.
pub(crate) const UNKNOWN_RETRY_AFTER: u64 = 5;

/// Accepts the rows of the body.
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let outcome = async {
        let read = |body| Submission::read(body, &app.model).map_err(ApiError::Invalid);
        let (submission, _memory) = headers::json(&parts.headers, body, &app.bodies, read).await?;
        submit(&app, &caller, &parts, submission).await
    };
    outcome.await.inspect_err(|error| app.metrics.refused(error.code()))
}

/// Accepts the model's sample; a body is ignored.
pub(crate) async fn predict_sample(
    State(app): State<Arc<App>>,
    caller: Caller,
    parts: Parts,
) -> Result<Response, ApiError> {
    let outcome = submit(&app, &caller, &parts, Submission::sample(&app.model)).await;
    outcome.inspect_err(|error| app.metrics.refused(error.code()))
}

async fn submit(
    app: &App,
    caller: &Caller,
    parts: &Parts,
    mut submission: Submission,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let headers = &parts.headers;
    let key = Key::read(headers, caller.owner())?;
    quota::charge(app, caller, parts, [&mut submission]).await?;
    let (job, span) = new_job(app, caller, headers, key, submission);
    let outcome = app.store.submit(job.0, Arc::clone(&job.1)).await;
    let (id, status) = taken(app, caller, &job, span, outcome, started)?;
    Ok(answer(app, caller, headers, id, status).await)
}

/// The job that is to be stored, with its id, and the span of its submission.
pub(super) fn new_job(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    key: Option<Key>,
    submission: Submission,
) -> ((JobId, Arc<NewJob>), Submit) {
    let id = match &key {
        Some(key) => JobId::new(key.partition(app.store.policy().partitions)),
        None => app.new_job_id(),
    };
    let span = Submit::begin(headers::traceparent(headers));
    let job = NewJob {
        idempotency: key.map(|key| key.of(&submission)),
        owner: caller.owner().map(str::to_owned),
        request_id: request_id(headers).map(str::to_owned),
        traceparent: span.traceparent().map(str::to_owned),
        input: submission.input,
        priority: submission.priority,
        max_queue: submission.max_queue,
        timeout: submission.timeout,
        charge: submission.charge,
    };
    ((id, Arc::new(job)), span)
}

/// Counts and logs what the store said; gives the job that came of it.
pub(super) fn taken(
    app: &App,
    caller: &Caller,
    (id, job): &(JobId, Arc<NewJob>),
    span: Submit,
    outcome: Result<Submitted, StoreError>,
    started: Instant,
) -> Result<(JobId, JobStatus), ApiError> {
    let (id, submitted) = (*id, outcome.map_err(ApiError::of_change)?);
    note(span, id, &submitted);
    match submitted {
        Submitted::Accepted => {
            app.metrics.submitted(job.priority);
            let duration_ms = millis(started.elapsed());
            let key_id = caller.key_id();
            info!(action = "job_accepted", job_id = %id, request_id = job.request_id, key_id, duration_ms);
            Ok((id, JobStatus::Pending))
        }
        Submitted::Duplicate { job_id, status } => {
            app.metrics.repeated();
            Ok((job_id, status))
        }
        Submitted::Conflict => Err(ApiError::IdempotencyConflict),
        Submitted::Full { .. } => Err(queue_full(app)),
        Submitted::OverQuota { room_in } => Err(ApiError::StorageQuota(quota::retry_after(room_in))),
    }
}

/// Ends the span of a submission.
fn note(mut span: Submit, id: JobId, submitted: &Submitted) {
    match submitted {
        Submitted::Accepted => span.note(Some(id), "accepted"),
        Submitted::Duplicate { job_id, .. } => span.note(Some(*job_id), "duplicate"),
        Submitted::Conflict => span.note(None, "conflict"),
        Submitted::Full { .. } => span.note(None, "full"),
        Submitted::OverQuota { .. } => span.note(None, "over_quota"),
    }
}

/// The answer to a submission that a job came of: the job itself if the client prefers to wait, may read it, and it ends in
/// time.
pub(super) async fn answer(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    id: JobId,
    status: JobStatus,
) -> Response {
    let wait = prefer::wait(headers).filter(|_| caller.may(Scope::Read));
    let Some(wait) = wait else { return accepted(id, status) };
    let mut response = match follow::ended(app, caller.view(), id, wait).await {
        // The job is stored, so an answer that is too large for now must not be a refusal.
        Ok(Some(job)) if job.status.is_terminal() => finished(app, &job).await.unwrap_or_else(|error| {
            warn!(action = "wait_failed", job_id = %id, error = error.failure().as_deref());
            accepted(id, job.status)
        }),
        Ok(job) => accepted(id, job.map_or(status, |job| job.status)),
        // The job is accepted, whatever became of the wait.
        Err(error) => {
            warn!(action = "wait_failed", job_id = %id, error = telemetry::chain(&error));
            accepted(id, status)
        }
    };
    prefer::mark_applied(response.headers_mut(), wait);
    response
}

async fn finished(app: &App, job: &Job) -> Result<Response, ApiError> {
    let mut response = job::shown(app, job).await?;
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

pub(super) fn queue_full(app: &App) -> ApiError {
    ApiError::QueueFull(app.snapshot().full_retry_after.unwrap_or(UNKNOWN_RETRY_AFTER))
}
