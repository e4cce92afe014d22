//! `GET`, `DELETE /job/{id}` and `POST /job/{id}/retry`.

mod caching;
mod events;
mod view;
mod whole;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::RETRY_AFTER, request::Parts},
    response::Response,
};
use tepal_shared::{
    job::{Job, JobId, JobResult, JobStatus},
    process::trace::Submit,
    queue::{
        scripts::{Cancelled, Requeued},
        store::Origin,
    },
};
use tracing::info;

pub(super) use self::{
    view::{JobView, around_result, body},
    whole::{BYTES_WITHOUT_RESULT, parts},
};
use super::{as_json, json, submit};
use crate::{
    edge::{access::Caller, cost::RunningTab, observe::request_id},
    error::ApiError,
    http::{
        accept,
        answer::{self, SMALL},
        headers::{self, PathId},
        prefer,
    },
    jobs::{follow, quota},
    state::App,
};

/// The job as it stands, once it has ended if the client prefers to wait, or change by change as events.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: PathId,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, headers) = (id.job_id()?, request.headers());
    if accept::prefers_events(headers) {
        let tab = RunningTab::open(&app, &caller, &request);
        return events::stream(app, caller.view(), id, headers, tab).await;
    }
    let wait = prefer::wait(headers);
    let job = follow::ended(&app, caller.view(), id, wait.unwrap_or_default()).await?;
    let job = job.ok_or(ApiError::JobNotFound)?;
    let mut response = caching::conditional(&app, headers, &job).await?;
    if let Some(wait) = wait {
        prefer::mark_applied(response.headers_mut(), wait);
    }
    Ok(response)
}

/// The job as an answer.
pub(super) async fn shown(app: &App, job: &Job) -> Result<Response, ApiError> {
    let size = job.result.as_ref().map_or(0, JobResult::bytes) + BYTES_WITHOUT_RESULT;
    let mut response = if size <= SMALL {
        json(body(job))
    } else {
        let parts = parts(app, job, "", "").await?.ok_or(ApiError::JobNotFound)?;
        as_json(answer::paid(parts))
    };
    mark_unfinished(job, &mut response);
    Ok(response)
}

fn mark_unfinished(job: &Job, response: &mut Response) {
    if !job.status.is_terminal() {
        response.headers_mut().insert(RETRY_AFTER, 1.into());
    }
}

/// Ends the job.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id.job_id()?;
    match app.store.cancel(id, caller.view()).await.map_err(ApiError::of_change)? {
        Cancelled::Done => {
            app.metrics.cancelled();
            let (request_id, key_id) = (request_id(&headers), caller.key_id());
            info!(action = "job_cancelled", job_id = %id, request_id, key_id);
            Ok(json(format!(r#"{{"job_id":"{id}","status":"{}"}}"#, JobStatus::Cancelled)))
        }
        Cancelled::Ended(status) => Err(ApiError::AlreadyFinished(status)),
        Cancelled::Missing => Err(ApiError::JobNotFound),
    }
}

/// Submits the input of a failed or cancelled job again as a new job.
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: PathId,
    parts: Parts,
) -> Result<Response, ApiError> {
    let outcome = requeue(&app, &caller, &id, &parts).await;
    outcome.inspect_err(|error| app.metrics.refused(error.code()))
}

async fn requeue(app: &App, caller: &Caller, id: &PathId, parts: &Parts) -> Result<Response, ApiError> {
    let (old, headers) = (id.job_id()?, &parts.headers);
    let charge = quota::charge_of(app, caller, parts).await.map_err(ApiError::Store)?;
    let new = JobId::new(old.partition());
    let request_id = request_id(headers);
    let span = Submit::begin(headers::traceparent(headers));
    let (charge, traceparent) = (charge.as_ref(), span.traceparent());
    let origin = Origin { view: caller.view(), charge, request_id, traceparent };
    let requeued = app.store.requeue(old, new, origin).await;
    drop(span);
    match requeued.map_err(ApiError::of_change)? {
        Requeued::Accepted => {
            app.metrics.requeued();
            info!(action = "job_requeued", job_id = %new, retry_of = %old, request_id, key_id = caller.key_id());
            Ok(submit::answer(app, caller, headers, new, JobStatus::Pending).await)
        }
        Requeued::NotRepeatable(status) => Err(ApiError::NotRepeatable(status)),
        Requeued::InputExpired(status) => Err(ApiError::InputExpired(status)),
        Requeued::Missing => Err(ApiError::JobNotFound),
        Requeued::Full { .. } => Err(submit::queue_full(app)),
        Requeued::OverQuota { room_in } => Err(ApiError::StorageQuota(quota::retry_after(room_in))),
    }
}
