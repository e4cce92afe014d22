//! Whether a request is let in: who sends it, whether that one may make another, and whether it may do what is asked.

use axum::{extract::Request, http::Method};
use tracing::debug;

use crate::{
    edge::{
        access::{Caller, KEY_HEADER, Scope},
        observe::request_id,
        rate_limit::{Account, Budget, Peer},
    },
    error::ApiError,
    state::App,
};

/// Requests for these are not counted; each connection gets only so many answers a second.
pub(crate) const UNCOUNTED: [&str; 6] =
    ["/livez", "/readyz", "/health", "/metrics", "/docs", "/openapi.json"];

/// What each route asks of its callers, as the route table says. A path that is not in it is open to everybody.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<(&'static str, Method, Scope)>);

impl Rules {
    /// Adds a route.
    pub(crate) fn add(&mut self, path: &'static str, method: Method, scope: Scope) {
        self.0.push((path, method, scope));
    }

    /// Whether callers are looked at, whatever the method.
    fn guard(&self, path: &str) -> bool {
        self.0.iter().any(|(guarded, ..)| *guarded == path)
    }

    /// What a caller of the operation must be allowed; `None` when there is no such operation.
    fn scope(&self, path: &str, method: &Method) -> Option<Scope> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let found = self.0.iter().find(|(guarded, of, _)| *guarded == path && of == method)?;
        Some(found.2)
    }
}

/// What was decided about a request.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// What its caller has left; `None` when it is not counted.
    pub(crate) budget: Option<Budget>,
    /// Where it is counted.
    pub(crate) account: Option<Account>,
    /// Why it is not let in.
    pub(crate) refusal: Option<ApiError>,
    /// Who sends it, if anybody asks.
    pub(crate) caller: Option<Caller>,
}

/// Decides about a request for the route `path`; `None` when no route has the request's path. A request that is let in
/// carries its [`Caller`] with it, but no longer its key. Every request counts, one that no route matches included, except
/// those for [`UNCOUNTED`] paths: whoever watches the service must always be answered.
pub(crate) fn decide(app: &App, rules: &Rules, path: Option<&str>, request: &mut Request) -> Admission {
    if path.is_some_and(|path| UNCOUNTED.contains(&path)) {
        return Admission::default();
    }
    let identified = match &app.access {
        None => Ok(Caller::Anybody),
        Some(access) => access.identify(request.headers()),
    };
    // A wrong key counts with the address, so that nobody tries many.
    let account = account(app, identified.as_ref().ok(), request);
    let budget = account.as_ref().map(Account::spend);
    let refusal = match (path.filter(|path| rules.guard(path)), &identified) {
        (None, _) => None,
        (Some(path), Ok(caller)) => {
            rules.scope(path, request.method()).and_then(|scope| caller.refusal(scope))
        }
        (Some(_), Err(refusal)) => Some(*refusal),
    };
    let caller = identified.ok();
    if let Some(refusal) = refusal {
        app.metrics.unauthorized(refusal);
        let (reason, key_id) = (refusal.reason(), caller.as_ref().and_then(Caller::key_id));
        debug!(action = "access_refused", reason, key_id, request_id = request_id(request.headers()));
    }
    if app.access.is_some() {
        request.headers_mut().remove(KEY_HEADER);
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
    }
    let excess = budget.and_then(|budget| budget.excess).map(ApiError::RateLimited);
    Admission { budget, account, refusal: excess.or_else(|| refusal.map(ApiError::from)), caller }
}

/// Where a request is counted; `None` when its sender may make any number.
pub(crate) fn account(app: &App, caller: Option<&Caller>, request: &Request) -> Option<Account> {
    if let Some(Caller::Key(key)) = caller {
        return key.limit.clone().map(Account::Key);
    }
    let peer = request.extensions().get::<Peer>()?;
    Some(app.rate_limit.as_ref()?.account(*peer, request.headers()))
}
