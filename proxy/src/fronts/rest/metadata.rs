//! `GET /metadata`: the model as the workers' backend describes it.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde_json::{Value, json};
use tepal_shared::queue::error::StoreError;

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::wrong_topology,
};
use crate::{
    edge::access::Caller,
    error::ApiError,
    http::answer::{as_json, paid},
    state::App,
};

/// The metadata from the worker with the latest heartbeat, in the form of TensorFlow Serving's REST API.
pub(crate) async fn metadata(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, ApiError> {
    if let Some(model) = app.models.registry().default_model() {
        caller.check_model(model.as_str())?;
    }
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
pub(super) fn metadata_operation(contract: &mut Contract<'_>) -> Operation {
    let schema = contract.define("Metadata", schema());
    let example = json!({
        "model_spec": {"name": "iris", "version": "1"},
        "metadata": {"signature_def": {}},
    });
    let answer = json!({
        "description": "The metadata",
        "content": {"application/json": {"schema": schema, "example": example}},
    });
    Operation {
        id: "metadata",
        tag: Tag::Service,
        summary: "The model's signature",
        description: "As TensorFlow Serving's REST API prints it.".to_owned(),
        parameters: vec![],
        body: None,
        answers: vec![(200, answer)],
        errors: vec![
            ApiError::NotAcceptable,
            ApiError::ModelForbidden,
            ApiError::NoMetadata,
            ApiError::Store(StoreError::Disconnected),
            wrong_topology(),
        ],
    }
}

/// The form that TensorFlow Serving gives it. The proxy passes on the bytes that a worker wrote, so no type of its own has it.
fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["model_spec", "metadata"],
        "properties": {
            "model_spec": {
                "type": "object",
                "required": ["name", "version"],
                "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
            },
            "metadata": {"type": "object", "required": ["signature_def"]},
        },
    })
}
