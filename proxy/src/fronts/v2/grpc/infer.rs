//! `ModelInfer`: a durable job whose result is the answer.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::HeaderValue,
    response::{IntoResponse as _, Response},
};
use tepal_proto::open_inference::ModelInferRequest;

use super::{
    InferRequest, JOB_ID, Named, Parsed, deadline, message, request,
    response::{self, Head},
    weight,
};
use crate::{
    edge::access::Caller,
    error::{ApiError, CallError},
    fronts::call::{Answered, Call, Outcome, WaitPolicy},
    http::{budget::Meter, prefer},
    jobs::{models::Served, refused::Refused},
    state::App,
};

/// Runs the model on the tensors of the message.
pub(super) async fn infer(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let state = Arc::clone(&app);
    run(app, caller, request).await.map_err(|refused| refused.counted(&state.metrics))
}

async fn run(app: Arc<App>, caller: Caller, request: Request) -> Result<Response, Refused> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let deadline = deadline::of(&head.headers)?;
    let reader = MessageReader { app: Arc::clone(&app), caller: caller.clone() };
    let read = move |message: &[u8], meter: &mut Meter| reader.read(message, meter);
    let (read, memory) = message::read(&head.headers, body, &app.bodies, read).await?;
    let Read { model, parsed: Parsed { submission, id, .. } } = read?;
    let left = deadline.map(|deadline| deadline.saturating_sub(started.elapsed()));
    // The deadline is no limit of the job: the same call can be repeated with a later one.
    let deadline = [submission.timeout, left].into_iter().flatten().min();
    let wait_policy = WaitPolicy::asked(&head.headers, app.longest_call, deadline);
    let (name, version) = (model.name.to_string(), model.description.version.clone());
    let reply = Reply { is_async: prefer::is_async(&head.headers), head: Head { id, model: name, version } };
    let answered =
        Call { app: Arc::clone(&app), caller, head, submission, memory, wait_policy }.run().await?;
    Ok(reply.render(&app, answered).await)
}

/// A request, and its model.
struct Read {
    model: Arc<Served>,
    parsed: Parsed,
}

/// Reads the message of a caller.
struct MessageReader {
    app: Arc<App>,
    caller: Caller,
}

impl MessageReader {
    /// Fails if the message is none. A message that the caller may not send, or with mistakes, is refused with its model.
    fn read(&self, message: &[u8], meter: &mut Meter) -> Result<Result<Read, Refused>, ApiError> {
        weight::pay(message, meter)?;
        let request: ModelInferRequest = message::decoded(message)?;
        Ok(self.of_model(request))
    }

    fn of_model(&self, mut request: ModelInferRequest) -> Result<Read, Refused> {
        let (name, version) =
            (std::mem::take(&mut request.model_name), std::mem::take(&mut request.model_version));
        let model = Named::of(name, version).model(&self.app.models.registry(), &self.caller)?;
        let request: InferRequest = request::read(request, &model)
            .map_err(|mistakes| Refused::of(model.name, ApiError::Invalid(mistakes)))?;
        Ok(Read { parsed: request.parsed(&model), model })
    }
}

/// How to answer.
struct Reply {
    /// Whether the client prefers not to wait.
    is_async: bool,
    head: Head,
}

impl Reply {
    async fn render(self, app: &App, Answered { id, outcome }: Answered) -> Response {
        let mut response = match outcome {
            Outcome::Completed(job) => match response::answer(app, self.head, &job).await {
                Ok(response) => response,
                Err(error) => error.after_accepted().into_response(),
            },
            Outcome::Running(status) if self.is_async => {
                let mut response = message::answer(&self.head.accepted(id, status));
                prefer::mark_async(response.headers_mut());
                response
            }
            Outcome::Running(_) => ApiError::from(CallError::StillRunning).into_response(),
            Outcome::Failed(error) => error.into_response(),
        };
        if let Ok(value) = HeaderValue::try_from(id.to_string()) {
            response.headers_mut().insert(JOB_ID, value);
        }
        response
    }
}
