//! The REST API: the whole route table, and the order of the middleware.

mod accepted;
pub(crate) mod batch;
mod docs;
mod extract;
mod health;
mod idempotency;
mod job;
mod jobs;
pub(crate) mod lookup;
mod metadata;
pub(crate) mod openapi;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::{HeaderMap, Method},
    middleware,
    routing::{MethodFilter, get, on},
};
use tepal_shared::model::Model;

use self::openapi::{Deployment, Route, operation::Operation};
use crate::{
    config::Config,
    edge::{
        access::{Access, Scope},
        cors,
        observe::{Observer, observe},
        rules::{Form, Rules},
    },
    error::ApiError,
    http::kept::Kept,
    state::App,
};

/// Entry points for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    pub(crate) use super::{
        batch::{BYTES_A_JOB, answer_to, elements, lines},
        jobs::{check_listing, cursor_round_trip},
        lookup::names,
    };
}

/// The API as a service.
pub(crate) struct Api {
    pub(crate) router: Router,
    /// Paths that are open to everybody; their requests are not counted.
    pub(crate) open_paths: Arc<[&'static str]>,
}

/// The whole API. `observe` is around everything, also the fallbacks. Only preflights of browsers are answered before it, if pages
/// of other origins may use the API at all.
pub(crate) fn api(app: Arc<App>, config: &Config) -> Api {
    let deployment = Deployment {
        public_url: config.public_url.as_deref(),
        anonymous: app.admission.access.as_ref().map(Access::anonymous),
    };
    let (router, rules) = table(&app).with_contract(&app.model, deployment);
    let open_paths = rules.open_paths().collect();
    let observer = Arc::new(Observer {
        admission: Arc::clone(&app.admission),
        rules,
        memory: Arc::clone(app.bodies.budget()),
        metrics: Arc::clone(&app.metrics),
    });
    let router = router
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(observer, observe))
        .with_state(app);
    let router = match &config.cors {
        Some(allowed) => router.layer(cors::layer(allowed)),
        None => router,
    };
    Api { router, open_paths }
}

/// Every route, with the scope that it requires. A route without one is open to everybody.
fn table(app: &App) -> Table {
    let (model, largest_body) = (&app.model, app.bodies.largest());
    let (read, submit, anybody) = (Some(Scope::Read), Some(Scope::Submit), None);
    let predict = submit::predict_operation(model, largest_body);
    let predict_all = batch::predict_all_operation(model, largest_body);
    let look_up = lookup::look_up_operation(largest_body);
    Table::default()
        .post("/predict", submit, Form::Json, submit::predict, predict)
        .post("/predict/test", submit, Form::Json, submit::predict_sample, submit::predict_sample_operation())
        .post("/predict/batch", submit, Form::Json, batch::predict_all, predict_all)
        .get("/job/{id}", read, Form::JsonOrEvents, job::show, job::show_operation())
        .delete("/job/{id}", submit, Form::Json, job::cancel, job::cancel_operation())
        .post("/job/{id}/retry", submit, Form::Json, job::retry, job::retry_operation())
        .get("/jobs", read, Form::Json, jobs::list, jobs::list_operation())
        .post("/jobs/lookup", read, Form::Json, lookup::look_up, look_up)
        .get("/health", anybody, Form::Json, health::health, health::health_operation())
        .get("/metadata", read, Form::Json, metadata::metadata, metadata::metadata_operation(model))
        .get("/livez", anybody, Form::Fixed, health::livez, health::livez_operation())
        .get("/readyz", anybody, Form::Fixed, health::readyz, health::readyz_operation())
        .get("/metrics", anybody, Form::Fixed, health::metrics, health::metrics_operation())
        .get("/docs", anybody, Form::Fixed, docs::page, docs::page_operation())
}

/// The routes, what they require of their callers, and their descriptions, which can only be added together.
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
        form: Form,
        handler: H,
        it: Operation,
    ) -> Self {
        self.on(MethodFilter::GET, handler, form, Route { path, method: Method::GET, scope, operation: it })
    }

    fn post<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        scope: Option<Scope>,
        form: Form,
        handler: H,
        it: Operation,
    ) -> Self {
        self.on(MethodFilter::POST, handler, form, Route { path, method: Method::POST, scope, operation: it })
    }

    fn delete<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        scope: Option<Scope>,
        form: Form,
        handler: H,
        it: Operation,
    ) -> Self {
        let route = Route { path, method: Method::DELETE, scope, operation: it };
        self.on(MethodFilter::DELETE, handler, form, route)
    }

    fn on<H: Handler<T, Arc<App>>, T: 'static>(
        mut self,
        filter: MethodFilter,
        handler: H,
        form: Form,
        route: Route,
    ) -> Self {
        self.router = self.router.route(route.path, on(filter, handler));
        self.add(route, form);
        self
    }

    fn add(&mut self, route: Route, form: Form) {
        self.rules.add(route.path, route.method.clone(), route.scope, form);
        self.routes.push(route);
    }

    fn with_contract(mut self, model: &Model, deployment: Deployment<'_>) -> (Router<Arc<App>>, Rules) {
        let (path, operation) = ("/openapi.json", openapi::contract_operation());
        self.add(Route { path, method: Method::GET, scope: None, operation }, Form::Json);
        let document = openapi::document(model, &self.routes, deployment).to_string();
        let kept = Kept::new(document, "application/json");
        let answer = async move |headers: HeaderMap| kept.answer(&headers);
        (self.router.route(path, get(answer)), self.rules)
    }
}
