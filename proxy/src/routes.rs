//! The whole route table and the order of the middleware.

mod batch;
mod docs;
mod health;
mod job;
mod jobs;
mod lookup;
mod metadata;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    handler::Handler,
    http::{HeaderValue, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, get, on},
};
use tepal_shared::model::Model;

use crate::{
    error::ApiError,
    observe::observe,
    openapi::{self, Operation},
    state::App,
};

pub(crate) use self::{batch::MOST as MOST_JOBS, lookup::MOST as MOST_IDS};

/// Everything that the proxy answers. `observe` is the outermost and only middleware, around the fallbacks, too.
pub(crate) fn router(app: Arc<App>) -> Router {
    let model = &app.model;
    let table = Table::default()
        .post("/predict", submit::predict, openapi::predict(model))
        .post("/predict/test", submit::predict_sample, openapi::predict_sample())
        .post("/predict/batch", batch::predict_all, openapi::predict_batch(model))
        .get("/job/{id}", job::show, openapi::show())
        .delete("/job/{id}", job::cancel, openapi::cancel())
        .post("/job/{id}/retry", job::retry, openapi::retry())
        .get("/jobs", jobs::list, openapi::list())
        .post("/jobs/lookup", lookup::look_up, openapi::look_up())
        .get("/health", health::health, openapi::health())
        .get("/metadata", metadata::metadata, openapi::metadata(model))
        .get("/livez", health::livez, plain("livez", "The process runs", vec![]))
        .get(
            "/readyz",
            health::readyz,
            plain("readyz", "The service wants traffic", vec![ApiError::NotReady]),
        )
        .get("/metrics", health::metrics, plain("metrics", "The metrics as Prometheus reads them", vec![]))
        .get(
            "/docs",
            docs::page,
            openapi::text("docs", "This document for people", "text/html", "<html>", vec![]),
        );
    table
        .with_contract(model)
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

fn plain(id: &'static str, summary: &'static str, errors: Vec<ApiError>) -> Operation {
    openapi::text(id, summary, "text/plain", "ok", errors)
}

/// Routes and their descriptions, which can only be added together.
#[derive(Default)]
struct Table {
    router: Router<Arc<App>>,
    described: Vec<(&'static str, &'static str, Operation)>,
}

impl Table {
    fn get<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, handler: H, it: Operation) -> Self {
        self.on(MethodFilter::GET, "get", path, handler, it)
    }

    fn post<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        it: Operation,
    ) -> Self {
        self.on(MethodFilter::POST, "post", path, handler, it)
    }

    fn delete<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
        it: Operation,
    ) -> Self {
        self.on(MethodFilter::DELETE, "delete", path, handler, it)
    }

    fn on<H: Handler<T, Arc<App>>, T: 'static>(
        mut self,
        method: MethodFilter,
        name: &'static str,
        path: &'static str,
        handler: H,
        operation: Operation,
    ) -> Self {
        self.router = self.router.route(path, on(method, handler));
        self.described.push((path, name, operation));
        self
    }

    fn with_contract(mut self, model: &Model) -> Router<Arc<App>> {
        self.described.push(("/openapi.json", "get", openapi::contract()));
        let document = Bytes::from(openapi::document(model, &self.described).to_string());
        self.router.route("/openapi.json", get(async move || docs::contract(document)))
    }
}

/// An answer with a JSON body that is text already.
fn json(body: impl Into<axum::body::Body>) -> Response {
    let mut response = body.into().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
