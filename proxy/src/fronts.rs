//! The APIs that the proxy serves: the whole route table, and the order of the middleware.
//!
//! | module | owns |
//! | --- | --- |
//! | [`rest`] | Tepal's own API: jobs, models, health |
//! | [`v2`] | the Open Inference Protocol over HTTP and over gRPC |
//! | [`tf_serving`] | TensorFlow Serving's REST API |
//! | [`call`] | a request that waits for the result of its job |
//! | [`inference`] | the same over HTTP: what the APIs of other servers share |
//! | [`accept`], [`extract`], [`idempotency`] | what all APIs take from a request |
//! | [`table`], [`openapi`] | the routes, and their description |

mod accept;
pub(crate) mod call;
mod extract;
mod idempotency;
mod inference;
pub(crate) mod openapi;
pub(crate) mod rest;
mod table;
pub(crate) mod tf_serving;
pub(crate) mod v2;

use std::sync::Arc;

use axum::{Router, middleware};

use self::{
    openapi::{Deployment, contract::Contract, parts::SUBMISSION},
    table::Table,
};
use crate::{
    config::Config,
    edge::{
        access::Access,
        cors,
        observe::{Observer, observe},
        rules::Rules,
    },
    error::{ApiError, ErrorForm},
    state::App,
};

/// The APIs as a service.
pub(crate) struct Api {
    pub(crate) router: Router,
    /// Paths that are open to everybody; their requests are not counted.
    pub(crate) open_paths: Arc<[&'static str]>,
}

/// All APIs over HTTP. Only preflights of browsers are answered before `observe`, if pages of other origins may use the API at all.
pub(crate) fn api(app: Arc<App>, config: &Config) -> Api {
    let deployment = Deployment {
        public_url: config.public_url.as_deref(),
        anonymous: app.admission.access.as_ref().map(Access::anonymous),
    };
    let table = Table::new(Contract::new(&SUBMISSION, app.bodies.largest()));
    let routes = tf_serving::routes(v2::routes(rest::routes(table))).with_contract(deployment);
    let Api { router, open_paths } = observed(app, routes, ErrorForm::of);
    let router = match &config.cors {
        Some(allowed) => router.layer(cors::layer(allowed)),
        None => router,
    };
    Api { router, open_paths }
}

/// The API over gRPC.
pub(crate) fn grpc_api(app: Arc<App>) -> Api {
    observed(app, v2::grpc::calls(), |_| ErrorForm::Grpc)
}

/// These routes as a service. `observe` is around everything, also the fallbacks.
fn observed(app: Arc<App>, (router, rules): (Router<Arc<App>>, Rules), form: fn(&str) -> ErrorForm) -> Api {
    let open_paths = rules.open_paths().collect();
    let observer = Arc::new(Observer {
        admission: Arc::clone(&app.admission),
        rules,
        form,
        memory: Arc::clone(app.bodies.budget()),
        metrics: Arc::clone(&app.metrics),
    });
    let router = router
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(middleware::from_fn_with_state(observer, observe))
        .with_state(app);
    Api { router, open_paths }
}
