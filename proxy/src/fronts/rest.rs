//! Tepal's own API.

mod accepted;
pub(crate) mod batch;
mod docs;
mod health;
mod job;
mod jobs;
pub(crate) mod lookup;
mod metadata;
mod models;
mod query;
mod submit;

use super::{
    accept, extract, idempotency, openapi,
    table::{DELETE, GET, POST, Table},
};
use crate::edge::{access::Scope, rules::Form};

/// Entry points for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    pub(crate) use super::{
        batch::{
            answer::{BYTES_A_JOB, answer_to},
            elements, lines,
        },
        jobs::{check_listing, cursor_round_trip},
        lookup::names,
        submit::body::read_binary,
    };
}

/// Every route, with the scopes that it requires. A route without one is open to everybody.
pub(super) fn routes(table: Table<'_>) -> Table<'_> {
    let (read, submit, admin, anybody) = (&[Scope::Read], &[Scope::Submit], &[Scope::Admin], &[]);
    table
        .on(POST, "/predict", submit, Form::Submission, submit::predict, submit::predict_operation)
        .on(
            POST,
            "/predict/test",
            submit,
            Form::Submission,
            submit::predict_sample,
            submit::predict_sample_operation,
        )
        .on(POST, "/predict/batch", submit, Form::Json, batch::predict_all, batch::predict_all_operation)
        .on(GET, "/job/{id}", read, Form::Job, job::show, job::show_operation)
        .on(DELETE, "/job/{id}", submit, Form::Json, job::cancel, job::cancel_operation)
        .on(POST, "/job/{id}/retry", submit, Form::Submission, job::retry, job::retry_operation)
        .on(GET, "/jobs", read, Form::Json, jobs::list, jobs::list_operation)
        .on(POST, "/jobs/lookup", read, Form::Json, lookup::look_up, lookup::look_up_operation)
        .on(GET, "/health", anybody, Form::Json, health::health, health::health_operation)
        .on(GET, "/metadata", read, Form::Json, metadata::metadata, metadata::metadata_operation)
        .on(GET, "/models", read, Form::Json, models::list, models::list_operation)
        .on(GET, "/models/{name}", read, Form::Json, models::show, models::show_operation)
        .on(DELETE, "/models/{name}", admin, Form::Json, models::remove, models::remove_operation)
        .on(GET, "/livez", anybody, Form::Fixed, health::livez, health::livez_operation)
        .on(GET, "/readyz", anybody, Form::Fixed, health::readyz, health::readyz_operation)
        .on(GET, "/metrics", anybody, Form::Fixed, health::metrics, health::metrics_operation)
        .on(GET, "/docs", anybody, Form::Fixed, docs::page, docs::page_operation)
}
