//! The whole route table and the order of the middleware.

mod batch;
mod docs;
mod health;
mod job;
mod jobs;
mod lookup;
mod metadata;
mod openapi;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, get, on},
};
use tepal_shared::model::Model;

use self::openapi::{Deployment, Operation, Route};
use crate::{
    config::Config,
    edge::{
        access::{Access, Scope},
        admission::Rules,
        cors,
        observe::observe,
    },
    error::ApiError,
    http::kept::Kept,
    state::App,
};

pub(crate) use self::{
    batch::MOST as MOST_JOBS,
    jobs::{CURSOR, DEFAULT_LIMIT, MOST as MOST_LISTED, wrong_limit},
    lookup::{LONGEST as LONGEST_ID, MOST as MOST_IDS},
    submit::UNKNOWN_RETRY_AFTER,
};

/// The parts that read what clients send.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    pub(crate) use super::{
        batch::{BYTES_A_JOB, answer_to, elements, lines},
        jobs::{check_listing, cursor_round_trip},
        lookup::names,
    };
}

/// Everything that the proxy answers. `observe` is around everything, the fallbacks, too; only preflights of browsers are
/// answered before it, if pages of other origins may use the API at all.
pub(crate) fn router(app: Arc<App>, config: &Config) -> Router {
    let (model, largest_body) = (&app.model, app.bodies.largest());
    let (read, submit, anybody) = (Some(Scope::Read), Some(Scope::Submit), None);
    let table = Table::default()
        .post("/predict", submit, submit::predict, openapi::predict(model, largest_body))
        .post("/predict/test", submit, submit::predict_sample, openapi::predict_sample())
        .post("/predict/batch", submit, batch::predict_all, openapi::predict_batch(model, largest_body))
        .get("/job/{id}", read, job::show, openapi::show())
        .delete("/job/{id}", submit, job::cancel, openapi::cancel())
        .post("/job/{id}/retry", submit, job::retry, openapi::retry())
        .get("/jobs", read, jobs::list, openapi::list())
        .post("/jobs/lookup", read, lookup::look_up, openapi::look_up(largest_body))
        .get("/health", anybody, health::health, openapi::health())
        .get("/metadata", read, metadata::metadata, openapi::metadata(model))
        .get("/livez", anybody, health::livez, plain("livez", "The process runs", vec![]))
        .get(
            "/readyz",
            anybody,
            health::readyz,
            plain("readyz", "The service wants traffic", vec![ApiError::NotReady, openapi::wrong_topology()]),
        )
        .get(
            "/metrics",
            anybody,
            health::metrics,
            plain("metrics", "The metrics as Prometheus reads them", vec![]),
        )
        .get(
            "/docs",
            anybody,
            docs::page,
            openapi::text("docs", "This document for people", "text/html", "<html>", vec![]),
        );
    let deployment = Deployment {
        public_url: config.public_url.as_deref(),
        anonymous: app.access.as_ref().map(Access::anonymous),
    };
    let (router, rules) = table.with_contract(model, deployment);
    let observing = (Arc::clone(&app), Arc::new(rules));
    let router = router
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(observing, observe))
        .with_state(app);
    match &config.cors {
        Some(allowed) => router.layer(cors::layer(allowed)),
        None => router,
    }
}

fn plain(id: &'static str, summary: &'static str, errors: Vec<ApiError>) -> Operation {
    openapi::text(id, summary, "text/plain", "ok", errors)
}

/// Routes, what they ask of their callers, and their descriptions, which can only be added together.
#[derive(Default)]
struct Table {
    router: Router<Arc<App>>,
    routes: Vec<Route>,
    rules: Rules,
}

impl Table {
    fn get<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        scope: Option<Scope>,
        handler: H,
        it: Operation,
    ) -> Self {
        self.on((MethodFilter::GET, Method::GET), path, scope, handler, it)
    }

    fn post<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        scope: Option<Scope>,
        handler: H,
        it: Operation,
    ) -> Self {
        self.on((MethodFilter::POST, Method::POST), path, scope, handler, it)
    }

    fn delete<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        scope: Option<Scope>,
        handler: H,
        it: Operation,
    ) -> Self {
        self.on((MethodFilter::DELETE, Method::DELETE), path, scope, handler, it)
    }

    fn on<H: Handler<T, Arc<App>>, T: 'static>(
        mut self,
        (filter, method): (MethodFilter, Method),
        path: &'static str,
        scope: Option<Scope>,
        handler: H,
        operation: Operation,
    ) -> Self {
        self.router = self.router.route(path, on(filter, handler));
        self.routes.push(Route { path, method: method.clone(), scope, operation });
        if let Some(scope) = scope {
            self.rules.add(path, method, scope);
        }
        self
    }

    fn with_contract(mut self, model: &Model, deployment: Deployment<'_>) -> (Router<Arc<App>>, Rules) {
        let (path, operation) = ("/openapi.json", openapi::contract());
        self.routes.push(Route { path, method: Method::GET, scope: None, operation });
        let document = openapi::document(model, &self.routes, deployment).to_string();
        let kept = Kept::new(document, "application/json");
        let answer = async move |headers: HeaderMap| kept.answer(&headers);
        (self.router.route(path, get(answer)), self.rules)
    }
}

/// An answer with a JSON body that is text already.
fn json(body: impl Into<axum::body::Body>) -> Response {
    as_json(body.into().into_response())
}

fn as_json(mut response: Response) -> Response {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
