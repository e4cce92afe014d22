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
mod models;
pub(crate) mod openapi;
mod query;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::{HeaderMap, Method},
    middleware,
    routing::{MethodFilter, get, on},
};

use self::openapi::{Deployment, Route, contract::Contract, operation::Operation, parts::SUBMISSION};
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
        batch::{
            answer::{BYTES_A_JOB, answer_to},
            elements, lines,
        },
        jobs::{check_listing, cursor_round_trip},
        lookup::names,
        submit::body::read_binary,
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
    let (router, rules) = table(&app).with_contract(deployment);
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

const GET: (Method, MethodFilter) = (Method::GET, MethodFilter::GET);
const POST: (Method, MethodFilter) = (Method::POST, MethodFilter::POST);
const DELETE: (Method, MethodFilter) = (Method::DELETE, MethodFilter::DELETE);

/// Every route, with the scope that it requires. A route without one is open to everybody.
fn table(app: &App) -> Table<'static> {
    let (read, submit, anybody) = (Some(Scope::Read), Some(Scope::Submit), None);
    let admin = Some(Scope::Admin);
    Table::new(Contract::new(&SUBMISSION, app.bodies.largest()))
        .on(POST, "/predict", submit, Form::Submission, submit::predict, submit::predict_operation)
        .on(
            POST,
            "/predict/test",
            submit,
            Form::Submission,
            submit::predict_sample,
            submit::predict_sample_operation,
        )
        .on(POST, "/predict/batch", submit, Form::Json, batch::predict_all, batch::predict_all_operation)
        .on(GET, "/job/{id}", read, Form::Job, job::show, job::show_operation)
        .on(DELETE, "/job/{id}", submit, Form::Json, job::cancel, job::cancel_operation)
        .on(POST, "/job/{id}/retry", submit, Form::Submission, job::retry, job::retry_operation)
        .on(GET, "/jobs", read, Form::Json, jobs::list, jobs::list_operation)
        .on(POST, "/jobs/lookup", read, Form::Json, lookup::look_up, lookup::look_up_operation)
        .on(GET, "/health", anybody, Form::Json, health::health, health::health_operation)
        .on(GET, "/metadata", read, Form::Json, metadata::metadata, metadata::metadata_operation)
        .on(GET, "/models", read, Form::Json, models::list, models::list_operation)
        .on(GET, "/models/{name}", read, Form::Json, models::show, models::show_operation)
        .on(DELETE, "/models/{name}", admin, Form::Json, models::remove, models::remove_operation)
        .on(GET, "/livez", anybody, Form::Fixed, health::livez, health::livez_operation)
        .on(GET, "/readyz", anybody, Form::Fixed, health::readyz, health::readyz_operation)
        .on(GET, "/metrics", anybody, Form::Fixed, health::metrics, health::metrics_operation)
        .on(GET, "/docs", anybody, Form::Fixed, docs::page, docs::page_operation)
}

/// Describes an operation for the contract.
type Describe = fn(&mut Contract<'_>) -> Operation;

/// The routes, what they require of their callers, and their descriptions, which can only be added together.
struct Table<'a> {
    router: Router<Arc<App>>,
    routes: Vec<Route>,
    rules: Rules,
    contract: Contract<'a>,
}

impl<'a> Table<'a> {
    fn new(contract: Contract<'a>) -> Self {
        Self { router: Router::default(), routes: Vec::new(), rules: Rules::default(), contract }
    }

    fn on<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        scope: Option<Scope>,
        form: Form,
        handler: H,
        describe: Describe,
    ) -> Self {
        let router = self.router.route(path, on(filter, handler));
        Self { router, ..self }.describe(method, path, scope, form, describe)
    }

    fn describe(
        mut self,
        method: Method,
        path: &'static str,
        scope: Option<Scope>,
        form: Form,
        describe: Describe,
    ) -> Self {
        let operation = describe(&mut self.contract);
        self.rules.add(path, method.clone(), scope, form);
        self.routes.push(Route { path, method, scope, operation });
        self
    }

    fn with_contract(self, deployment: Deployment<'_>) -> (Router<Arc<App>>, Rules) {
        let path = "/openapi.json";
        let Self { router, routes, rules, contract } =
            self.describe(Method::GET, path, None, Form::Json, openapi::contract_operation);
        let document = openapi::document(contract, &routes, deployment).to_string();
        let kept = Kept::new(document, "application/json");
        let answer = async move |headers: HeaderMap| kept.answer(&headers);
        (router.route(path, get(answer)), rules)
    }
}
