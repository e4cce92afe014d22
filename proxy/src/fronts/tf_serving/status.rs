//! What models there are, their states, and their signatures.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::target::Target;
use crate::{edge::access::Caller, error::ApiError, http::answer::json as as_json, state::App};

/// The names of all models that the caller may use, for clients of KServe (`models`) and of OpenAI (`data`). TensorFlow Serving has no
/// such list.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Caller) -> Response {
    let registry = app.models.registry();
    let names = registry.iter().map(|served| served.name.as_str());
    let names: Vec<_> = names.filter(|name| caller.may_use(name)).collect();
    as_json(model_list(&names).to_string())
}

pub(super) fn model_list(names: &[&str]) -> Value {
    let entry = |name: &&str| json!({"id": name, "object": "model", "created": 0, "owned_by": "tepal"});
    json!({"object": "list", "data": names.iter().map(entry).collect::<Vec<_>>(), "models": names})
}

/// The states of the versions that the path names.
pub(super) async fn status(
    State(app): State<Arc<App>>,
    caller: Caller,
    target: Target,
) -> Result<Response, ApiError> {
    if let Err(wrong) = target.check_read() {
        return Ok(wrong.into_response());
    }
    let model = target.model(&app.models.registry(), &caller)?;
    let name = model.name.as_str();
    // Of a pinned version, of one with a label, and of a model whose versions cannot be pinned, only its own is known.
    let versions = Some(model.versions()).filter(|versions| !versions.is_empty() && target.label.is_none());
    let versions = versions.unwrap_or_else(|| vec![&model.description.version]);
    Ok(as_json(model_status(name, &versions, app.is_model_ready(name)).to_string()))
}

/// Clients wait until a version is `AVAILABLE`, or `ready` is true.
pub(super) fn model_status(name: &str, versions: &[&str], is_ready: bool) -> Value {
    let (state, code, message) = if is_ready {
        ("AVAILABLE", "OK", "")
    } else {
        ("LOADING", "UNAVAILABLE", "No live worker can call the model")
    };
    let status = json!({"error_code": code, "error_message": message});
    let entry = |version: &&str| json!({"version": version, "state": state, "status": status});
    let versions: Vec<_> = versions.iter().map(entry).collect();
    json!({"model_version_status": versions, "name": name, "ready": is_ready})
}

/// The signature of what the path names.
pub(super) async fn metadata(
    State(app): State<Arc<App>>,
    caller: Caller,
    target: Target,
) -> Result<Response, ApiError> {
    let model = target.model(&app.models.registry(), &caller)?;
    Ok(as_json(model.description.tensorflow_metadata(model.name.as_str()).to_string()))
}
