//! `GET /metadata`: the model as the workers' backend describes it.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use tepal_shared::error::StoreError;

use super::json;
use crate::{error::ApiError, state::App};

/// What the worker heard of last said, in the form of TensorFlow Serving's REST API.
pub(crate) async fn metadata(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let snapshot = app.snapshot();
    // As in /health: while Redis is down nothing is known of the workers.
    if let Some(error) = app.store.redis().down() {
        return Err(error.into());
    }
    let workers = snapshot.workers.as_ref().ok_or(StoreError::Disconnected)?;
    workers.metadata.clone().map(json).ok_or(ApiError::NoMetadata)
}
