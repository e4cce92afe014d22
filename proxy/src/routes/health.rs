//! `/health` for people and monitoring, `/livez` and `/readyz` for orchestrators, `/metrics` for Prometheus.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value};

use super::json;
use crate::{error::ApiError, state::App};

/// The state of each component, from memory.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let components = components(&app);
    let is_healthy = components.values().all(|state| state == "ok");
    let status = if is_healthy { "healthy" } else { "unhealthy" };
    let mut body = Map::new();
    body.insert("status".to_owned(), status.into());
    body.insert("components".to_owned(), components.into());
    let mut response = json(Value::Object(body).to_string());
    if !is_healthy {
        ApiError::mark_unavailable(&mut response);
    }
    response
}

fn components(app: &App) -> Map<String, Value> {
    let mut components = Map::new();
    let snapshot = app.snapshot();
    // While Redis is down nothing is known of the workers: their last words may be wrong by now.
    let Some(workers) = snapshot.workers.as_ref().filter(|_| app.store.redis().is_up()) else {
        components.insert("redis".to_owned(), "down".into());
        return components;
    };
    let redis = if snapshot.redis_may_evict { "misconfigured" } else { "ok" };
    components.insert("redis".to_owned(), redis.into());
    for (name, is_ok) in &workers.backends {
        components.insert(name.clone(), if *is_ok { "ok" } else { "down" }.into());
    }
    if workers.backends.is_empty() {
        components.insert("worker".to_owned(), "down".into());
    }
    components
}

/// The process runs.
pub(crate) async fn livez() -> &'static str {
    "ok"
}

/// The process can do its work and wants traffic.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    if app.store.redis().is_up() && !app.shutdown.has_begun() { Ok("ok") } else { Err(ApiError::NotReady) }
}

/// The metrics as Prometheus reads them (text format 0.0.4).
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut response = app.metrics.handle().render().into_response();
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}
