//! `GET`, `DELETE /job/{id}` and `POST /job/{id}/retry`.

mod answer;
pub(super) mod binary;
mod caching;
mod content;
mod events;
pub(super) mod representation;
mod time;
pub(super) mod view;
pub(super) mod whole;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, request::Parts},
    response::Response,
};
use serde_json::json as value;
use tepal_shared::{
    job::{JobId, JobStatus, ModelName},
    process::trace::Submit,
    queue::{
        error::StoreError,
        intake::{Cancelled, Origin, Requeued},
    },
};
use tracing::info;

use self::view::JobView;
use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::{
        ConcatErrors as _, applied, cannot_persist, etag, header, if_none_match, job_id, out_of_memory,
        prefer as prefer_header, reading, unknown_outcome,
    },
};
use super::{
    accepted::{self, AcceptedJob},
    extract::{self, PathId},
};
use crate::{
    edge::{access::Caller, cost::RunningTab, request_id},
    error::ApiError,
    http::{accept, answer::json, headers::traceparent, prefer},
    jobs::{intake::UNKNOWN_RETRY_AFTER, quota},
    state::App,
};

/// Returns the job: its present state, its outcome if the client prefers to wait, or a stream of its changes.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: PathId,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, headers) = (id.job_id()?, request.headers());
    if accept::prefers_events(headers) {
        let tab = RunningTab::open(app.account(&caller, &request));
        return events::stream(app, caller.sees(), id, headers, tab).await;
    }
    let wait = prefer::wait(headers);
    let job = app.following.ended(caller.sees(), id, wait.unwrap_or_default()).await?;
    let job = job.ok_or(ApiError::JobNotFound)?;
    let mut response = caching::conditional(&app, headers, &job).await?;
    if let Some(wait) = wait {
        prefer::mark_applied(response.headers_mut(), wait);
    }
    Ok(response)
}

/// Cancels the job.
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: PathId,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (id, sees) = (id.job_id()?, caller.sees());
    if !app.store.shows_model_of(sees, id).await? {
        return Err(ApiError::JobNotFound);
    }
    match app.store.intake.cancel(id, sees.view).await.map_err(ApiError::of_change)? {
        Cancelled::Done(model) => {
            app.metrics.cancelled(model);
            let (request_id, key_id) = (request_id::of(&headers), caller.key_id());
            info!(action = "job_cancelled", job_id = %id, request_id, key_id);
            Ok(json(AcceptedJob { job_id: id, status: JobStatus::Cancelled }.text()))
        }
        Cancelled::Ended(status) => Err(ApiError::AlreadyFinished(status)),
        Cancelled::Missing => Err(ApiError::JobNotFound),
    }
}

/// Requeues a failed or cancelled job as a new job.
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: PathId,
    parts: Parts,
) -> Result<Response, ApiError> {
    let mut named = None;
    let outcome = async {
        let (old, sees) = (id.job_id()?, caller.sees());
        // Scripts check only the owner. A job never changes its model.
        let model = app.store.intake.model_of(old).await?.ok_or(ApiError::JobNotFound)?;
        named = Some(model).filter(|model| sees.shows_model(model.as_str()));
        named.ok_or(ApiError::JobNotFound)?;
        requeue(&app, &caller, &parts, (old, model)).await
    };
    let outcome = outcome.await;
    outcome.inspect_err(|error| app.metrics.refused(named, error.code()))
}

async fn requeue(
    app: &App,
    caller: &Caller,
    parts: &Parts,
    (old, model): (JobId, ModelName),
) -> Result<Response, ApiError> {
    let (view, headers) = (caller.sees().view, &parts.headers);
    let charge = app.charges.charge_to(extract::payer(app, caller, parts)).await?;
    let new = JobId::new(old.partition());
    let request_id = request_id::of(headers);
    let span = Submit::begin(traceparent(headers));
    let (charge, traceparent) = (charge.as_ref(), span.traceparent());
    let origin = Origin { view, charge, request_id, traceparent };
    let requeued = app.store.intake.requeue_of(model, old, new, origin).await;
    drop(span);
    match requeued.map_err(ApiError::of_change)? {
        Requeued::Accepted => {
            app.metrics.requeued(model);
            info!(action = "job_requeued", job_id = %new, retry_of = %old, request_id, key_id = caller.key_id());
            Ok(accepted::answer(app, caller, headers, new, JobStatus::Pending).await)
        }
        Requeued::NotRepeatable(status) => Err(ApiError::NotRepeatable(status)),
        Requeued::InputExpired(status) => Err(ApiError::InputExpired(status)),
        Requeued::Missing => Err(ApiError::JobNotFound),
        Requeued::Full { .. } => Err(app.intake.queue_full()),
        Requeued::ModelFull { .. } => Err(app.intake.model_queue_full()),
        Requeued::OverQuota { room_in } => Err(ApiError::StorageQuota(quota::retry_after(room_in))),
    }
}

/// Describes it for the contract.
pub(super) fn show_operation(contract: &mut Contract<'_>) -> Operation {
    let job = view::example();
    let mut found = contract.answer_like::<JobView<'_>>("The job", &view::example_body());
    found["content"]["text/event-stream"] = value!({
        "schema": {"type": "string"},
        "example": format!(
            "retry: 1000\nid: {}\nevent: outcome\ndata: {}\n\n",
            view::tag(&job),
            view::body(&job)
        ),
    });
    found["headers"] = value!({
        "ETag": etag("Names this state of the job in this form"),
        "Retry-After": {"description": "While the job has not ended", "schema": {"type": "integer"}},
        "Preference-Applied": applied(),
    });
    binary::describe(&mut found, &job);
    Operation {
        id: "showJob",
        tag: Tag::Jobs,
        summary: "Read a job",
        description: "The present state of the job; with `Prefer: wait=N`, the job as soon as it has ended; with `Accept: \
            text/event-stream`, an event for each change, the last one with the outcome; with `Accept: \
            application/octet-stream`, tensors as raw bytes after the JSON."
            .to_owned(),
        parameters: vec![
            job_id(),
            prefer_header(),
            if_none_match("An ETag of this job", "\"2-pending-0-0-0\""),
            header(
                &events::LAST_EVENT_ID,
                "The last event seen, for a stream",
                &value!({"type": "string"}),
                "2-pending-0-0-0",
            ),
        ],
        body: None,
        answers: vec![
            (200, found),
            (204, value!({"description": "The client has seen the outcome, so the stream would be empty"})),
            (304, value!({"description": "The job has not changed"})),
        ],
        errors: [vec![ApiError::NotAcceptable, ApiError::JobNotFound, ApiError::Overloaded], reading()]
            .concat_errors(),
    }
}

/// Describes it for the contract.
pub(super) fn cancel_operation(contract: &mut Contract<'_>) -> Operation {
    let cancelled = AcceptedJob::example(JobStatus::Cancelled);
    Operation {
        id: "cancelJob",
        tag: Tag::Jobs,
        summary: "Cancel a job",
        description:
            "Ends a job that has not ended. The job can still be read. Cancelling it again is no error."
                .to_owned(),
        parameters: vec![job_id()],
        body: None,
        answers: vec![(200, contract.answer("The job is cancelled", &cancelled))],
        errors: [
            vec![
                ApiError::NotAcceptable,
                ApiError::JobNotFound,
                ApiError::AlreadyFinished(JobStatus::Completed),
                cannot_persist(),
                unknown_outcome(),
            ],
            reading(),
        ]
        .concat_errors(),
    }
}

/// Describes it for the contract.
pub(super) fn retry_operation(contract: &mut Contract<'_>) -> Operation {
    Operation {
        id: "retryJob",
        tag: Tag::Jobs,
        summary: "Requeue a job",
        description: "Submits the input of a failed or cancelled job as a new job, which names the old one in `retry_of`.".to_owned(),
        parameters: vec![job_id(), prefer_header()],
        body: None,
        answers: accepted::answers(contract),
        errors: [
            vec![
                ApiError::NotAcceptable,
                ApiError::JobNotFound,
                ApiError::NotRepeatable(JobStatus::Completed),
                ApiError::QueueFull(UNKNOWN_RETRY_AFTER),
                ApiError::ModelQueueFull(UNKNOWN_RETRY_AFTER),
                ApiError::StorageQuota(quota::retry_after(None)),
                out_of_memory(),
                cannot_persist(),
                unknown_outcome(),
                ApiError::Store(StoreError::NotReplicated { reached: 0, required: 1 }),
            ],
            reading(),
        ]
        .concat_errors(),
    }
}
