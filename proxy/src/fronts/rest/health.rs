//! `/health` for people and monitoring, `/livez` and `/readyz` for orchestrators, `/metrics` for Prometheus.

use std::sync::{Arc, LazyLock};

use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::{Map, Value, json};
use tepal_shared::queue::error::StoreError;

use crate::http::kept::Kept;
use crate::{
    error::ApiError,
    probe::{Snapshot, Trouble},
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
    let mut response = super::json(body);
    ApiError::mark_unavailable(&mut response);
    response
}

fn components(app: &App, snapshot: &Snapshot) -> Map<String, Value> {
    let mut components = Map::new();
    let down = app.store.redis().down();
    // While Redis is down nothing is known of the workers: their last words may be wrong by now.
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

/// What an operator should know although the service works.
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
    match app.store.redis().down() {
        Some(wrong @ StoreError::WrongTopology(_)) => Err(wrong.into()),
        None if !app.shutdown.has_begun() => Ok(OK.answer(&headers)),
        _ => Err(ApiError::NotReady),
    }
}

/// The metrics as Prometheus reads them (text format 0.0.4).
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    Kept::new(app.metrics.page(), "text/plain; version=0.0.4; charset=utf-8").answer(&headers)
}
