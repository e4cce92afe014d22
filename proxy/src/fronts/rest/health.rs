//! `/health` for people and monitoring, `/livez` and `/readyz` for orchestrators, `/metrics` for Prometheus.

use std::sync::{Arc, LazyLock};

use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::{Map, Value, json};
use tepal_shared::queue::error::StoreError;

use super::openapi::{
    operation::{Operation, Tag, text},
    parts::{json_answer, wrong_topology},
};
use crate::{
    error::ApiError,
    http::{answer::json as json_text, kept::Kept},
    snapshot::{Snapshot, Trouble},
    state::App,
};

static OK: LazyLock<Kept> = LazyLock::new(|| Kept::new("ok", "text/plain; charset=utf-8"));

/// The state of each component, from memory.
pub(crate) async fn health(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let snapshot = app.snapshot();
    let components = components(&app, &snapshot);
    let is_healthy = components.values().all(|state| state == "ok");
    let status = if is_healthy { "healthy" } else { "unhealthy" };
    let mut body = Map::new();
    body.insert("status".to_owned(), status.into());
    body.insert("components".to_owned(), components.into());
    let warnings = warnings(&snapshot);
    if !warnings.is_empty() {
        body.insert("warnings".to_owned(), warnings.into());
    }
    let body = Value::Object(body).to_string();
    if is_healthy {
        return Kept::new(body, "application/json").answer(&headers);
    }
    let mut response = json_text(body);
    ApiError::mark_unavailable(&mut response);
    response
}

fn components(app: &App, snapshot: &Snapshot) -> Map<String, Value> {
    let mut components = Map::new();
    let down = app.store.queue().redis().down();
    // While Redis is down, the state of the workers is unknown: their last report may be outdated.
    let Some(workers) = snapshot.workers.as_ref().filter(|_| down.is_none()) else {
        let is_wrong = matches!(down, Some(StoreError::WrongTopology(_)));
        components.insert("redis".to_owned(), if is_wrong { "wrong_topology" } else { "down" }.into());
        return components;
    };
    let redis = snapshot.trouble.as_ref().map_or("ok", Trouble::word);
    components.insert("redis".to_owned(), redis.into());
    for (name, is_ok) in &workers.backends {
        components.insert(name.clone(), if *is_ok { "ok" } else { "down" }.into());
    }
    if workers.backends.is_empty() {
        components.insert("worker".to_owned(), "down".into());
    }
    components
}

/// Conditions that an operator should know although the service works.
fn warnings(snapshot: &Snapshot) -> Vec<Value> {
    let data_lost = snapshot.loss.map(|(at, loss)| {
        let at = humantime::format_rfc3339_seconds(at);
        let detail = format!("Redis lost jobs, noticed at {at}: {loss}");
        json!({"code": "redis_data_lost", "detail": detail})
    });
    data_lost.into_iter().collect()
}

/// The process runs.
pub(crate) async fn livez(headers: HeaderMap) -> Response {
    OK.answer(&headers)
}

/// The process can do its work and wants traffic.
pub(crate) async fn readyz(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    match app.store.queue().redis().down() {
        Some(wrong @ StoreError::WrongTopology(_)) => Err(wrong.into()),
        None if !app.shutdown.is_cancelled() => Ok(OK.answer(&headers)),
        _ => Err(ApiError::NotReady),
    }
}

/// The metrics as Prometheus reads them (text format 0.0.4).
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    Kept::new(app.metrics.page(), "text/plain; version=0.0.4; charset=utf-8").answer(&headers)
}

/// Describes it for the contract.
pub(super) fn health_operation() -> Operation {
    let well = json!({"status": "healthy", "components": {"redis": "ok", "onnx": "ok"}});
    let ill = json!({"status": "unhealthy", "components": {"redis": "ok", "onnx": "down"}});
    Operation {
        id: "health",
        tag: Tag::Service,
        summary: "The state of each component",
        description: "The state of the last second.".to_owned(),
        parameters: vec![],
        body: None,
        answers: vec![
            (200, json_answer("All components are ok", "Health", &well)),
            (503, json_answer("A component is not ok", "Health", &ill)),
        ],
        errors: vec![ApiError::NotAcceptable],
    }
    .with_etag()
}

/// Describes /livez for the contract.
pub(super) fn livez_operation() -> Operation {
    plain("livez", "The process runs", vec![])
}

/// Describes /readyz for the contract.
pub(super) fn readyz_operation() -> Operation {
    plain("readyz", "The service is ready for traffic", vec![ApiError::NotReady, wrong_topology()])
}

/// Describes /metrics for the contract.
pub(super) fn metrics_operation() -> Operation {
    plain("metrics", "The metrics as Prometheus reads them", vec![])
}

fn plain(id: &'static str, summary: &'static str, errors: Vec<ApiError>) -> Operation {
    text(id, summary, "text/plain", "ok", errors)
}
