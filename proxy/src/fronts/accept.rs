//! Accepts the job of one request, whatever the API.

use std::time::Instant;

use axum::http::request::Parts;

use super::{extract, idempotency};
use crate::{
    edge::access::Caller,
    error::ApiError,
    jobs::{intake::Accepted, models::Served, refused::Refused, submission::Submission},
    state::App,
};

/// Whether the caller may use the model.
pub(super) fn check_model(caller: &Caller, model: &Served) -> Result<(), Refused> {
    caller.check_model(model.name.as_str()).map_err(|error| Refused::of(model.name, error))
}

/// Stores the job, or finds the one with the same idempotency key.
pub(super) async fn accept(
    app: &App,
    caller: &Caller,
    head: &Parts,
    submission: Submission,
) -> Result<Accepted, Refused> {
    let model = submission.model.name;
    store(app, caller, head, submission).await.map_err(|error| Refused::of(model, error))
}

async fn store(
    app: &App,
    caller: &Caller,
    head: &Parts,
    mut submission: Submission,
) -> Result<Accepted, ApiError> {
    let started = Instant::now();
    let key = idempotency::key(&head.headers, caller.owner())?;
    app.charges.charge(|| extract::payer(app, caller, head), [&mut submission]).await?;
    let sender = extract::sender(caller, &head.headers);
    let prepared = app.intake.prepare(&sender, key, submission);
    app.intake.submit(&sender, prepared, started).await
}
