//! Whether the server and its models are live and ready.

use std::sync::{Arc, LazyLock};

use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::json;

use super::named::Named;
use crate::{
    edge::access::Caller,
    error::{ApiError, CallError},
    http::{answer::json as as_json, kept::Kept},
    state::App,
};

/// KServe's client reads these members; others read only the status.
static LIVE: LazyLock<Kept> = LazyLock::new(|| Kept::new(r#"{"live":true}"#, "application/json"));
static READY: LazyLock<Kept> =
    LazyLock::new(|| Kept::new(r#"{"live":true,"ready":true}"#, "application/json"));

/// The process serves requests.
pub(super) async fn live(headers: HeaderMap) -> Response {
    LIVE.answer(&headers)
}

/// Whether jobs can be accepted.
pub(super) fn is_ready(app: &App) -> bool {
    app.store.queue().redis().down().is_none() && !app.shutdown.is_cancelled()
}

/// Jobs can be accepted. Whether a worker is up is asked of each model: a gateway without workers still accepts jobs.
pub(super) async fn ready(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if is_ready(&app) {
        return READY.answer(&headers);
    }
    let mut response = as_json(r#"{"live":true,"ready":false}"#);
    ApiError::mark_unavailable(&mut response);
    response
}

/// A call of the model may be sent.
pub(super) async fn model_ready(
    State(app): State<Arc<App>>,
    caller: Caller,
    named: Named,
) -> Result<Response, ApiError> {
    let model = named.model(&app.models.registry(), &caller)?;
    if !app.is_model_ready(model.name.as_str()) {
        return Err(CallError::ModelNotReady.into());
    }
    Ok(as_json(json!({"name": model.name.as_str(), "ready": true}).to_string()))
}
