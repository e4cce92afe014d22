//! `POST /v2/models/{name}/infer`: a durable job whose result is the answer.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::LOCATION},
    response::{IntoResponse as _, Response},
};
use tepal_shared::{
    job::{JobId, JobStatus},
    json::JsonRef,
    tensor::open_inference::binary,
};

use super::{
    accept::check_model,
    call::{Answered, Call, Outcome, Patience},
    extract::{JSON_LENGTH, json_and_raw},
    idempotency,
    named::Named,
    request::{Encoding, InferRequest},
    response::{self, Head},
};
use crate::{
    edge::access::Caller,
    error::{ApiError, CallError},
    http::{
        answer::json as as_json,
        budget::{Meter, Share},
        headers, json, prefer,
    },
    jobs::{models::Served, refused::Refused, submission::Submission},
    state::App,
};

/// The job of the answer.
const JOB_ID: HeaderName = HeaderName::from_static("tepal-job-id");

/// Runs the model on the tensors of the body.
pub(super) async fn infer(
    State(app): State<Arc<App>>,
    caller: Caller,
    named: Named,
    request: Request,
) -> Result<Response, ApiError> {
    let state = Arc::clone(&app);
    run(app, caller, named, request).await.map_err(|refused| refused.counted(&state.metrics))
}

async fn run(app: Arc<App>, caller: Caller, named: Named, request: Request) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let model = app.models.registry().of_query(&named.into_choice())?;
    check_model(&caller, &model)?;
    let (parsed, memory) =
        read(&app, &head.headers, body, &model).await.map_err(|error| Refused::of(model.name, error))?;
    let is_async = prefer::is_async(&head.headers);
    let patience = Patience {
        wait: if is_async { prefer::wait(&head.headers).unwrap_or_default() } else { app.longest_call },
        deadline: parsed.submission.timeout,
        is_detached: is_async || idempotency::is_given(&head.headers),
    };
    let version = model.description.version.clone();
    let reply = Reply {
        is_async,
        encoding: parsed.encoding,
        head: Head { id: parsed.id, model: model.name.to_string(), version },
    };
    let submission = parsed.submission;
    let answered = Call { app: Arc::clone(&app), caller, head, submission, memory, patience }.run().await?;
    Ok(reply.render(&app, answered).await)
}

/// A request whose job can be submitted.
pub(super) struct Parsed {
    pub(super) submission: Submission,
    id: Option<String>,
    encoding: Encoding,
}

/// Reads the body, and the memory that it holds.
async fn read(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    model: &Arc<Served>,
) -> Result<(Parsed, Option<Share>), ApiError> {
    if headers::is_compressed(headers) {
        return Err(ApiError::Compressed);
    }
    let length = headers::once(headers, &JSON_LENGTH, binary::HEADER)?.cloned();
    let model = Arc::clone(model);
    app.bodies.read(body, move |bytes, meter| parse(bytes, length.as_ref(), &model, meter)).await
}

/// The body is JSON, or, if the header has the length of its JSON, raw tensors follow. Clients send any media type, or none.
pub(super) fn parse(
    body: &[u8],
    length: Option<&HeaderValue>,
    model: &Arc<Served>,
    meter: &mut Meter,
) -> Result<Parsed, ApiError> {
    let (value, raw) = match length {
        Some(length) => json_and_raw(length, body, meter)?,
        None => (json::parse(body, meter)?, &[][..]),
    };
    let request = InferRequest::read(JsonRef::from(&value), raw, model).map_err(ApiError::Invalid)?;
    let InferRequest { id, tensors, outputs, encoding, priority, timeout } = request;
    // The timeout bounds the time in the queue and the run together: the call cancels its job then. The limits of the job hold even
    // if this proxy dies before.
    let submission = Submission {
        priority,
        max_queue: timeout,
        timeout,
        ..Submission::of_tensors(Arc::clone(model), &tensors, outputs)
    };
    Ok(Parsed { submission, id, encoding })
}

/// How to answer.
struct Reply {
    /// Whether the client prefers not to wait.
    is_async: bool,
    encoding: Encoding,
    head: Head,
}

impl Reply {
    async fn render(self, app: &App, Answered { id, outcome }: Answered) -> Response {
        let mut response = match outcome {
            Outcome::Completed(job) => match response::answer(app, &self.head, self.encoding, &job).await {
                Ok(response) => response,
                // The result is kept, so the client can read it later.
                Err(error) => located(id, error.into_response()),
            },
            Outcome::Running(status) if self.is_async => located(id, self.accepted(id, status)),
            Outcome::Running(_) => located(id, ApiError::from(CallError::StillRunning).into_response()),
            Outcome::Failed(error) => error.into_response(),
        };
        if let Ok(value) = HeaderValue::try_from(id.to_string()) {
            response.headers_mut().insert(JOB_ID, value);
        }
        response
    }

    /// The job, whose result can be read later.
    fn accepted(&self, id: JobId, status: JobStatus) -> Response {
        let mut response = as_json(self.head.accepted(id, status).to_string());
        *response.status_mut() = StatusCode::ACCEPTED;
        prefer::mark_async(response.headers_mut());
        response
    }
}

/// Names the URL of the job.
fn located(id: JobId, mut response: Response) -> Response {
    if let Ok(location) = HeaderValue::try_from(format!("/job/{id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
