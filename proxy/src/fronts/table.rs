//! The table of all routes: what each requires of its callers, and its description.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::{HeaderMap, Method},
    routing::{MethodFilter, MethodRouter, get, on},
};

use super::openapi::{self, Deployment, Route, contract::Contract, operation::Operation};
use crate::{
    edge::{
        access::Scope,
        rules::{Form, Rules},
    },
    error::{ApiError, CallError},
    http::kept::Kept,
    state::App,
};

pub(super) const GET: (Method, MethodFilter) = (Method::GET, MethodFilter::GET);
pub(super) const POST: (Method, MethodFilter) = (Method::POST, MethodFilter::POST);
pub(super) const DELETE: (Method, MethodFilter) = (Method::DELETE, MethodFilter::DELETE);

/// Describes an operation for the contract.
pub(super) type Describe = fn(&mut Contract<'_>) -> Operation;
/// An operation, and its path in the contract.
pub(super) type Described = (&'static str, Describe);

/// The routes, what they require of their callers, and their descriptions, which can only be added together.
pub(super) struct Table<'a> {
    router: Router<Arc<App>>,
    routes: Vec<Route>,
    rules: Rules,
    contract: Contract<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn new(contract: Contract<'a>) -> Self {
        Self { router: Router::default(), routes: Vec::new(), rules: Rules::default(), contract }
    }

    /// Adds a route. One without a scope is open to everybody.
    pub(super) fn on<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        (method, filter): (Method, MethodFilter),
        path: &'static str,
        scopes: &'static [Scope],
        form: Form,
        handler: H,
        describe: Describe,
    ) -> Self {
        let router = self.router.route(path, on(filter, handler));
        Self { router, ..self }.describe(method, path, scopes, form, describe)
    }

    /// Adds a route whose last segment ends with a verb, as in `/v1/models/iris:predict`, which the router cannot match. The
    /// contract has a path for each verb.
    pub(super) fn on_verbs<H: Handler<T, Arc<App>>, T: 'static>(
        mut self,
        path: &'static str,
        scopes: &'static [Scope],
        form: Form,
        handler: H,
        verbs: impl IntoIterator<Item = Described>,
    ) -> Self {
        let (method, filter) = POST;
        self.rules.add(path, method.clone(), scopes, form);
        for (path, describe) in verbs {
            let (operation, method) = (describe(&mut self.contract), method.clone());
            self.routes.push(Route { path, method, scopes, operation });
        }
        Self { router: self.router.route(path, on(filter, handler)), ..self }
    }

    /// Sets what answers the methods that a path does not have.
    pub(super) fn on_other_methods<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        path: &'static str,
        handler: H,
    ) -> Self {
        Self { router: self.router.route(path, MethodRouter::new().fallback(handler)), ..self }
    }

    /// Adds a path that is not part of the contract, since every request is refused for this reason.
    pub(super) fn not_supported(mut self, path: &'static str, why: &'static str) -> Self {
        for method in [Method::GET, Method::POST] {
            self.rules.add(path, method, &[Scope::Read], Form::Fixed);
        }
        let refusal = async move || ApiError::from(CallError::NotSupported(why));
        Self { router: self.router.route(path, get(refusal).post(refusal)), ..self }
    }

    fn describe(
        mut self,
        method: Method,
        path: &'static str,
        scopes: &'static [Scope],
        form: Form,
        describe: Describe,
    ) -> Self {
        let operation = describe(&mut self.contract);
        self.rules.add(path, method.clone(), scopes, form);
        self.routes.push(Route { path, method, scopes, operation });
        self
    }

    /// The router and the rules of its routes. Adds the contract as the last route.
    pub(super) fn with_contract(self, deployment: Deployment<'_>) -> (Router<Arc<App>>, Rules) {
        let path = "/openapi.json";
        let Self { router, routes, rules, contract } =
            self.describe(Method::GET, path, &[], Form::Json, openapi::contract_operation);
        let document = openapi::document(contract, &routes, deployment).to_string();
        let kept = Kept::new(document, "application/json");
        let answer = async move |headers: HeaderMap| kept.answer(&headers);
        (router.route(path, get(answer)), rules)
    }
}
