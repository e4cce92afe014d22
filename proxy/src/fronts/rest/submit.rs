//! `POST /predict` and `POST /predict/test`: accept a job.

pub(crate) mod body;
mod choice;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::request::Parts,
    response::Response,
};
use serde_json::{Value, json};
use tepal_shared::{job::Priority, json::JsonRef, tensor::open_inference::binary};

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::{ConcatErrors as _, body as json_body, prefer, reading_a_body, submitting},
};
use super::{
    accept::{accept, check_model},
    accepted, extract, idempotency,
};
use crate::{
    edge::access::Caller,
    error::ApiError,
    jobs::{models::Served, refused::Refused, submission::Submission},
    state::App,
};

/// Accepts the rows of the body.
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let outcome = async {
        let choice = choice::read(&parts.uri)?;
        let (state, sender) = (Arc::clone(&app), caller.clone());
        let model_of = move |body: Option<JsonRef<'_>>| -> Result<Arc<Served>, Refused> {
            let registry = state.models.registry();
            let model = match body {
                Some(body) => registry.of_request(body, &choice)?,
                None => registry.of_query(&choice)?,
            };
            check_model(&sender, &model)?;
            Ok(model)
        };
        let (submission, _memory) = body::read(&parts.headers, body, &app.bodies, model_of).await?;
        submit(&app, &caller, &parts, submission).await
    };
    outcome.await.map_err(|refused: Refused| refused.counted(&app.metrics))
}

/// Accepts the sample of a model; a body is ignored.
pub(crate) async fn predict_sample(
    State(app): State<Arc<App>>,
    caller: Caller,
    parts: Parts,
) -> Result<Response, ApiError> {
    let outcome = async {
        let choice = choice::read(&parts.uri)?;
        let model = app.models.registry().of_query(&choice)?;
        check_model(&caller, &model)?;
        let name = model.name;
        let sample = Submission::sample(model).ok_or_else(|| Refused::of(name, ApiError::NoSample))?;
        submit(&app, &caller, &parts, sample).await
    };
    let outcome = outcome.await;
    outcome.map_err(|refused: Refused| refused.counted(&app.metrics))
}

async fn submit(
    app: &App,
    caller: &Caller,
    parts: &Parts,
    submission: Submission,
) -> Result<Response, Refused> {
    let (id, status) = accept(app, caller, parts, submission).await?;
    Ok(accepted::answer(app, caller, &parts.headers, id, status).await)
}

/// Describes it for the contract.
pub(super) fn predict_operation(contract: &mut Contract<'_>) -> Operation {
    let submission = submission(contract);
    Operation {
        id: "predict",
        tag: Tag::Jobs,
        summary: "Submit a job",
        description:
            "Checks the rows against the model's description, stores the job and answers at once. With \
            `Prefer: wait=N` the answer comes as soon as the job has ended, at most N seconds later; with `Accept: \
            application/octet-stream` too, the tensors of an ended job are raw bytes after the JSON."
                .to_owned(),
        parameters: [
            choice::parameters(
                "The name of a model, for bodies that cannot name it; without it, the default model",
            ),
            vec![idempotency::parameter(), prefer(), json_length()],
        ]
        .concat(),
        body: Some(request(&submission, contract.submission)),
        answers: accepted::answers(contract),
        errors: [reading_a_body(contract.largest_body), submitting()].concat_errors(),
    }
}

fn json_length() -> Value {
    let description = "Bytes of the JSON before the raw tensors. With this header the body is in the binary form of the Open Inference \
                       Protocol, whatever its media type";
    json!({
        "name": binary::HEADER,
        "in": "header",
        "description": description,
        "schema": {"type": "integer", "minimum": 1},
    })
}

/// The forms of the body.
fn request(submission: &Value, example: &Value) -> Value {
    let mut request = json_body(submission, example);
    let raw = |description: &str| {
        json!({
            "schema": {"type": "string", "format": "binary", "description": description},
            "example": "content",
        })
    };
    let content = "The content of the only input, if the model has one input of BYTES or is opaque";
    request["content"]["application/octet-stream"] =
        raw(&format!("{content}, which takes any other media type, too; or JSON and raw tensors"));
    for media_type in ["text/plain", "image/*", "audio/*"] {
        request["content"][media_type] = raw(content);
    }
    request
}

/// The schema of a submission.
pub(super) fn submission(contract: &mut Contract<'_>) -> Value {
    let schema = Submission::schema(&contract.schema::<Priority>());
    contract.define("Submission", schema)
}

/// Describes it for the contract.
pub(super) fn predict_sample_operation(contract: &mut Contract<'_>) -> Operation {
    Operation {
        id: "predictSample",
        tag: Tag::Jobs,
        summary: "Submit the sample of a model",
        description: "Submits the sample of the model's description; a body is ignored.".to_owned(),
        parameters: [
            choice::parameters("The name of a model; without it, the default model"),
            vec![idempotency::parameter(), prefer()],
        ]
        .concat(),
        body: None,
        answers: accepted::answers(contract),
        errors: [
            vec![
                idempotency::malformed(),
                ApiError::RepeatedHeader(idempotency::NAME),
                ApiError::NotAcceptable,
                ApiError::NoSample,
                choice::invalid(),
            ],
            submitting(),
        ]
        .concat_errors(),
    }
}
