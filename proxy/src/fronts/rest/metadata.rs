//! `GET /metadata`: the model as the workers' backend describes it.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde_json::json;
use tepal_shared::{model::Model, queue::error::StoreError};

use super::openapi::{
    operation::{Operation, Tag},
    parts::{json_answer, wrong_topology},
};
use crate::{
    error::ApiError,
    http::answer::{as_json, paid},
    state::App,
};

/// The metadata from the worker with the latest heartbeat, in the form of TensorFlow Serving's REST API.
pub(crate) async fn metadata(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let snapshot = app.snapshot();
    // As in /health: while Redis is down, the state of the workers is unknown.
    if let Some(error) = app.store.queue().redis().down() {
        return Err(error.into());
    }
    let workers = snapshot.workers.as_ref().ok_or(StoreError::Disconnected)?;
    // All clients share these bytes.
    workers.metadata.clone().map(|bytes| as_json(paid([bytes]))).ok_or(ApiError::NoMetadata)
}

/// Describes it for the contract.
pub(super) fn metadata_operation(model: &Model) -> Operation {
    let example = json!({
        "model_spec": {"name": model.name, "version": model.version},
        "metadata": {"signature_def": {}},
    });
    Operation {
        id: "metadata",
        tag: Tag::Service,
        summary: "The model's signature",
        description: "As TensorFlow Serving's REST API prints it.".to_owned(),
        parameters: vec![],
        body: None,
        answers: vec![(200, json_answer("The metadata", "Metadata", &example))],
        errors: vec![
            ApiError::NotAcceptable,
            ApiError::NoMetadata,
            ApiError::Store(StoreError::Disconnected),
            wrong_topology(),
        ],
    }
}
