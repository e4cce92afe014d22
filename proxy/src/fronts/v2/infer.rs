//! `POST /v2/models/{name}/infer`: tensors in, outputs out.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, request::Parts},
    response::Response,
};
use serde_json::Value;
use tepal_shared::{
    job::{Job, JobId, JobStatus},
    json::JsonRef,
    tensor::open_inference::binary,
};

use super::{
    extract::{JSON_LENGTH, json_and_raw},
    inference::{self, Inference, Reply},
    named::Named,
    request::{Encoding, InferRequest, Parsed},
    response::{self, Head},
};
use crate::{
    edge::access::Caller,
    error::ApiError,
    http::{
        budget::{Meter, Share},
        headers, json,
    },
    jobs::{models::Served, refused::Refused},
    state::App,
};

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
    let model = inference::model_of(&app, &caller, &named.into_choice())?;
    let (parsed, memory) =
        read(&app, &head, body, &model).await.map_err(|error| Refused::of(model.name, error))?;
    let Parsed { submission, id, encoding } = parsed;
    let version = model.description.version.clone();
    let reply = Outputs { encoding, head: Head { id, model: model.name.to_string(), version } };
    Inference { app, caller, head, submission, memory }.answer(reply).await
}

/// Reads the body, and the memory that it holds.
async fn read(
    app: &App,
    head: &Parts,
    body: Body,
    model: &Arc<Served>,
) -> Result<(Parsed, Option<Share>), ApiError> {
    let length = headers::once(&head.headers, &JSON_LENGTH, binary::HEADER)?.cloned();
    let model = Arc::clone(model);
    let parse = move |bytes: &[u8], meter: &mut Meter| parse(bytes, length.as_ref(), &model, meter);
    inference::read(app, &head.headers, body, parse).await
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
    Ok(request.parsed(model))
}

/// How to answer.
struct Outputs {
    encoding: Encoding,
    head: Head,
}

impl Reply for Outputs {
    async fn completed(self, app: &App, job: &Job) -> Result<Response, ApiError> {
        response::answer(app, &self.head, self.encoding, job).await
    }

    fn accepted(&self, id: JobId, status: JobStatus) -> Value {
        self.head.accepted(id, status)
    }
}
