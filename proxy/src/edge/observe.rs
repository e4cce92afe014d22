//! The middleware around every route: gives each request its id, admits or rejects it, renders its error, counts it and logs
//! its failure.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header::CACHE_CONTROL},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tepal_shared::process::telemetry;
use tracing::warn;

use super::{
    access::Caller,
    admission::Admission,
    cost,
    request_id::{self, REQUEST_ID},
    rules::{PathRules, Rules},
};
use crate::{
    error::{ApiError, ErrorForm},
    http::{answer, budget::Budget, host},
    metrics::Metrics,
};

/// Bytes of path and query.
const LONGEST_TARGET: usize = 8 << 10;
/// Bytes of all names and values.
const MOST_HEADER_BYTES: usize = 32 << 10;

/// What the middleware needs.
pub(crate) struct Observer {
    pub(crate) admission: Arc<Admission>,
    pub(crate) rules: Rules,
    /// The form of the errors of a path.
    pub(crate) form: fn(&str) -> ErrorForm,
    /// The memory of answers.
    pub(crate) memory: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Runs the route. Handlers find a valid request id in the request's header.
pub(crate) async fn observe(
    State(observer): State<Arc<Observer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = request_id::choose(request.headers());
    request.headers_mut().insert(REQUEST_ID, request_id.clone());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let rules = route.as_ref().and_then(|route| observer.rules.of(route.as_str()));
    let decision = observer.admission.decide(rules, &mut request);
    let misdirected = (!host::is_right(&request)).then_some(ApiError::BadHost);
    let refusal = misdirected.or(decision.refusal).or_else(|| objection(rules, &request));
    let mut response = match refusal {
        None => answer::pay_or_refuse(&observer.memory, contained(next.run(request)).await),
        Some(error) => {
            // A client that sends one request after the other beyond its limit takes turns with all others.
            tokio::task::yield_now().await;
            error.into_response()
        }
    };
    // The request may count as more than one.
    let settled = decision.account.as_ref().and_then(|account| cost::settle(account, &mut response));
    if let Some(allowance) = settled.or(decision.allowance) {
        allowance.add_to(response.headers_mut());
    }
    let mut status = response.status();
    if let Some(error) = response.extensions_mut().remove::<Arc<ApiError>>() {
        let id = request_id.to_str().unwrap_or_default();
        let form = (observer.form)(uri.path());
        error.render(&mut response, form, uri.path(), id);
        // gRPC has codes of its own; metrics and the log have the status of HTTP.
        status = error.status_in(form);
        if let Some(cause) = error.failure() {
            let status = status.as_u16();
            let (code, duration_ms) = (error.code(), telemetry::millis(started.elapsed()));
            let (path, key_id) = (uri.path(), decision.caller.as_ref().and_then(Caller::key_id));
            warn!(action = "request_failed", %method, path, status, code, request_id = id, key_id, duration_ms, error = %cause);
        }
    }
    // Most answers are outdated at once. Those that are not set the header themselves.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REQUEST_ID, request_id);
    let route = route.as_ref().map(MatchedPath::as_str);
    observer.metrics.request(&method, route, status, started.elapsed());
    response
}

/// The answer, also of a handler that panics. The panic is a bug, but it must not close the connection without an answer.
async fn contained(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| ApiError::Panicked.into_response())
}

/// Why the request is rejected before its handler runs.
fn objection(rules: Option<&PathRules>, request: &Request) -> Option<ApiError> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > LONGEST_TARGET {
        return Some(ApiError::UriTooLong);
    }
    let headers = request.headers();
    if headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
        > MOST_HEADER_BYTES
    {
        return Some(ApiError::HeadersTooLarge);
    }
    // Problems are sent in any case.
    let is_acceptable = rules.is_none_or(|rules| rules.form().is_acceptable(headers));
    (!is_acceptable).then_some(ApiError::NotAcceptable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_for() {
        let answer = contained(async { panic!("a bug") }).await;
        let error = answer.extensions().get::<Arc<ApiError>>().unwrap();
        assert_eq!((error.status(), error.code()), (500, "internal_error"));
        assert!(error.failure().is_some(), "nothing is logged");
    }
}
