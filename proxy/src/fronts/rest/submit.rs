//! `POST /predict` and `POST /predict/test`: accept a job.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::request::Parts,
    response::Response,
};
use serde_json::Value;
use tepal_shared::job::Priority;

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::{ConcatErrors as _, body, prefer, reading_a_body, submitting},
};
use super::{accepted, extract, idempotency};
use crate::{edge::access::Caller, error::ApiError, jobs::submission::Submission, state::App};

/// Accepts the rows of the body.
pub(crate) async fn predict(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let outcome = async {
        let read = |body| {
            let model = app.models.registry().of_body(&body)?;
            caller.check_model(model.name.as_str())?;
            Submission::read(body, &model).map_err(ApiError::Invalid)
        };
        let (submission, _memory) = extract::json(&parts.headers, body, &app.bodies, read).await?;
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
    let outcome = async {
        let model = app.models.registry().find(None)?;
        caller.check_model(model.name.as_str())?;
        submit(&app, &caller, &parts, Submission::sample(model)).await
    };
    let outcome = outcome.await;
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
    let key = idempotency::key(headers, caller.owner())?;
    app.charges.charge(|| extract::payer(app, caller, parts), [&mut submission]).await?;
    let sender = extract::sender(caller, headers);
    let prepared = app.intake.prepare(&sender, key, submission);
    let (id, status) = app.intake.submit(&sender, prepared, started).await?;
    Ok(accepted::answer(app, caller, headers, id, status).await)
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
            `Prefer: wait=N` the answer comes as soon as the job has ended, at most N seconds later."
                .to_owned(),
        parameters: vec![idempotency::parameter(), prefer()],
        body: Some(body(&submission, contract.submission)),
        answers: accepted::answers(contract),
        errors: [reading_a_body(contract.largest_body), submitting()].concat_errors(),
    }
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
        summary: "Submit the model's sample",
        description: "Submits the sample of the model's description; a body is ignored.".to_owned(),
        parameters: vec![idempotency::parameter(), prefer()],
        body: None,
        answers: accepted::answers(contract),
        errors: [
            vec![
                idempotency::malformed(),
                ApiError::RepeatedHeader(idempotency::NAME),
                ApiError::NotAcceptable,
            ],
            submitting(),
        ]
        .concat_errors(),
    }
}
