//! `GET /metadata`: the model as the workers' backend describes it.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use tepal_shared::queue::error::StoreError;

use super::as_json;
use crate::{error::ApiError, http::answer::paid, state::App};

/// What the worker heard of last said, in the form of TensorFlow Serving's REST API.
pub(crate) async fn metadata(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let snapshot = app.snapshot();
    // As in /health: while Redis is down nothing is known of the workers.
    if let Some(error) = app.store.redis().down() {
        return Err(error.into());
    }
    let workers = snapshot.workers.as_ref().ok_or(StoreError::Disconnected)?;
    // All clients share these bytes.
    workers.metadata.clone().map(|bytes| as_json(paid([bytes]))).ok_or(ApiError::NoMetadata)
}
