//! An inference over HTTP: a durable job whose result is the answer. The APIs differ in how they read the request and write the
//! outputs.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::LOCATION, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tepal_shared::job::{Job, JobId, JobStatus};

use super::{
    accept::check_model,
    call::{Answered, Call, Outcome, WaitPolicy},
    idempotency,
    openapi::{
        contract::Contract,
        parts::{ConcatErrors as _, JOB_ID as EXAMPLE_ID, applied, reading_a_body, submitting},
    },
};
use crate::{
    edge::access::Caller,
    error::{ApiError, CallError},
    http::{
        answer::json as as_json,
        budget::{Meter, Share},
        headers, prefer,
    },
    jobs::{
        models::{Choice, Served},
        refused::Refused,
        submission::Submission,
    },
    state::App,
};

/// The job of the answer.
pub(super) const JOB_ID: HeaderName = HeaderName::from_static("tepal-job-id");

/// The model that a path names, if the caller may use it.
pub(super) fn model_of(app: &App, caller: &Caller, choice: &Choice) -> Result<Arc<Served>, Refused> {
    let model = app.models.registry().of_query(choice)?;
    check_model(caller, &model)?;
    Ok(model)
}

/// Passes the body, whatever its media type, to `parse`. Returns what `parse` returns, and the memory that the body holds.
pub(super) async fn read<T: Send + 'static>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    parse: impl FnOnce(&[u8], &mut Meter) -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, Option<Share>), ApiError> {
    if headers::is_compressed(headers) {
        return Err(ApiError::Compressed);
    }
    app.bodies.read(body, parse).await
}

/// How an API answers.
pub(super) trait Reply: Send {
    /// The answer with the result of the completed job.
    fn completed(self, app: &App, job: &Job) -> impl Future<Output = Result<Response, ApiError>> + Send;

    /// The answer to a request that is not waited for.
    fn accepted(&self, id: JobId, status: JobStatus) -> Value;
}

/// A request whose job can be submitted.
pub(super) struct Inference {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    pub(super) head: Parts,
    pub(super) submission: Submission,
    /// The memory of the body.
    pub(super) memory: Option<Share>,
}

impl Inference {
    /// Submits the job, waits, and answers. The client waits no longer than the timeout of the submission.
    pub(super) async fn answer(self, reply: impl Reply) -> Result<Response, Refused> {
        let Self { app, caller, head, submission, memory } = self;
        let is_async = prefer::is_async(&head.headers);
        let wait_policy = WaitPolicy::asked(&head.headers, app.longest_call, submission.timeout);
        let answered =
            Call { app: Arc::clone(&app), caller, head, submission, memory, wait_policy }.run().await?;
        Ok(render(&app, answered, is_async, reply).await)
    }
}

async fn render(
    app: &App,
    Answered { id, outcome }: Answered,
    is_async: bool,
    reply: impl Reply,
) -> Response {
    let mut response = match outcome {
        Outcome::Completed(job) => match reply.completed(app, &job).await {
            Ok(response) => response,
            // The result is kept, so the client can read it later.
            Err(error) => located(id, error.after_accepted().into_response()),
        },
        Outcome::Running(status) if is_async => located(id, not_waited_for(&reply.accepted(id, status))),
        Outcome::Running(_) => located(id, ApiError::from(CallError::StillRunning).into_response()),
        Outcome::Failed(error) => error.into_response(),
    };
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(JOB_ID, value);
    }
    response
}

/// The job, whose result can be read later.
fn not_waited_for(body: &Value) -> Response {
    let mut response = as_json(body.to_string());
    *response.status_mut() = StatusCode::ACCEPTED;
    prefer::mark_async(response.headers_mut());
    response
}

/// Names the URL of the job.
fn located(id: JobId, mut response: Response) -> Response {
    if let Ok(location) = HeaderValue::try_from(format!("/job/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The errors of an inference, for the contract.
pub(super) fn errors(contract: &Contract<'_>) -> Vec<ApiError> {
    let failed = |code, why: &str| CallError::Failed { code, why: why.to_owned() };
    let own: Vec<ApiError> = [
        failed("model_error", "The model failed"),
        failed("model_rejected", "The model rejected the input"),
        failed("model_overloaded", "The model is overloaded"),
        failed("timeout", "The job took too long"),
        CallError::Cancelled,
        CallError::StillRunning,
        CallError::DeadlineExceeded,
    ]
    .map(ApiError::from)
    .into();
    let request = vec![ApiError::NotReady, idempotency::malformed(), ApiError::Compressed];
    [own, request, reading_a_body(contract.largest_body), submitting()].concat_errors()
}

/// The headers of each answer to an accepted job, for the contract.
pub(super) fn answer_headers() -> Value {
    json!({"Tepal-Job-Id": {"description": "The job", "schema": {"type": "string"}}})
}

/// The answer to a request that is not waited for, for the contract.
pub(super) fn accepted_answer() -> Value {
    let status = JobStatus::Pending.as_str();
    let mut headers = answer_headers();
    headers["Preference-Applied"] = applied();
    let example = json!({"model_name": "iris", "model_version": "1", "job_id": EXAMPLE_ID, "status": status});
    json!({
        "description": "The job is accepted, and the client prefers not to wait",
        "content": {"application/json": {"schema": {"type": "object"}, "example": example}},
        "headers": headers,
    })
}
