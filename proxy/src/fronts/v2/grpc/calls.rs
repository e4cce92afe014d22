//! The table of all calls: what each requires of its callers.

use std::sync::Arc;

use axum::{Router, handler::Handler, http::Method, routing::post};

use crate::{
    edge::{
        access::Scope,
        rules::{Form, Rules},
    },
    error::{ApiError, CallError},
    state::App,
};

/// The calls, and what they require, which can only be added together.
#[derive(Default)]
pub(super) struct Calls {
    router: Router<Arc<App>>,
    rules: Rules,
}

impl Calls {
    /// Adds a call. One without scopes is open to everybody.
    pub(super) fn on<H: Handler<T, Arc<App>>, T: 'static>(
        mut self,
        path: &'static str,
        scopes: &'static [Scope],
        handler: H,
    ) -> Self {
        // A client that accepts no JSON gets its message.
        self.rules.add(path, Method::POST, scopes, Form::Fixed);
        Self { router: self.router.route(path, post(handler)), ..self }
    }

    /// Adds a call that is refused for this reason.
    pub(super) fn not_supported(self, path: &'static str, why: &'static str) -> Self {
        self.on(path, &[Scope::Read], async move || ApiError::from(CallError::NotSupported(why)))
    }

    /// The router, and the rules of its routes.
    pub(super) fn done(self) -> (Router<Arc<App>>, Rules) {
        (self.router, self.rules)
    }
}
