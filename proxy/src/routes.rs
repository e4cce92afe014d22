//! The whole route table and the order of the middleware.

mod batch;
mod health;
mod job;
mod jobs;
mod lookup;
mod metadata;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};

use crate::{error::ApiError, observe::observe, state::App};

/// Everything that the proxy answers. `observe` is the outermost and only middleware, around the fallbacks, too.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/predict", post(submit::predict))
        .route("/predict/test", post(submit::predict_sample))
        .route("/predict/batch", post(batch::predict_all))
        .route("/job/{id}", get(job::show).delete(job::cancel))
        .route("/job/{id}/retry", post(job::retry))
        .route("/jobs", get(jobs::list))
        .route("/jobs/lookup", post(lookup::look_up))
        .route("/health", get(health::health))
        .route("/metadata", get(metadata::metadata))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// An answer with a JSON body that is text already.
fn json(body: impl Into<axum::body::Body>) -> Response {
    let mut response = body.into().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
