//! `GET`, `DELETE /job/{id}` and `POST /job/{id}/retry`.

mod view;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::State,
    http::{HeaderMap, header::RETRY_AFTER},
    response::Response,
};
use tepal_shared::{
    job::{Job, JobId, JobStatus},
    scripts::{Cancelled, Expired, Requeued},
};
use tracing::info;

pub(super) use self::view::JobView;
use super::{json, submit};
use crate::{
    error::ApiError,
    extract::{self, PathId},
    observe::request_id,
    state::App,
};

/// The job as it stands.
pub(crate) async fn show(State(app): State<Arc<App>>, id: PathId) -> Result<Response, ApiError> {
    let job = current(&app, id.job_id()?).await?.ok_or(ApiError::JobNotFound)?;
    let mut response = json(view::body(&job));
    if !job.status.is_terminal() {
        response.headers_mut().insert(RETRY_AFTER, 1.into());
    }
    Ok(response)
}

/// Reads the job; one that has missed its own deadline is ended first, since no worker may come by to do it.
async fn current(app: &App, id: JobId) -> Result<Option<Job>, ApiError> {
    let Some(job) = app.store.job(id).await? else { return Ok(None) };
    let is_overdue =
        !job.status.is_terminal() && job.deadline_ms.is_some_and(|deadline_ms| deadline_ms < now_ms());
    if !is_overdue {
        return Ok(Some(job));
    }
    // This machine's clock only decides whether to ask; Redis decides with its own.
    match app.store.expire(id).await? {
        Expired::Kept(status) if status == job.status => Ok(Some(job)),
        _ => Ok(app.store.job(id).await?),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Ends the job.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    id: PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = id.job_id()?;
    match app.store.cancel(id).await.map_err(ApiError::of_change)? {
        Cancelled::Done => {
            app.metrics.cancelled();
            info!(action = "job_cancelled", job_id = %id, request_id = request_id(&headers));
            Ok(json(format!(r#"{{"job_id":"{id}","status":"{}"}}"#, JobStatus::Cancelled)))
        }
        Cancelled::Ended(status) => Err(ApiError::AlreadyFinished(status)),
        Cancelled::Missing => Err(ApiError::JobNotFound),
    }
}

/// Submits the input of a failed or cancelled job again as a new job.
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    id: PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let old = id.job_id()?;
    let new = JobId::new(old.partition());
    let (request_id, traceparent) = (request_id(&headers), extract::traceparent(&headers));
    let requeued = app.store.requeue(old, new, request_id, traceparent.as_deref()).await;
    match requeued.map_err(ApiError::of_change)? {
        Requeued::Accepted => {
            app.metrics.requeued();
            info!(action = "job_requeued", job_id = %new, retry_of = %old, request_id);
            Ok(submit::accepted(new, JobStatus::Pending))
        }
        Requeued::NotRepeatable(status) => Err(ApiError::NotRepeatable(status)),
        Requeued::Missing => Err(ApiError::JobNotFound),
        Requeued::Full { .. } => Err(submit::queue_full(&app)),
    }
}
