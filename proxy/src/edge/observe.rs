//! The one middleware: gives each request its id, lets it in or not, renders its error, counts it and logs what failed.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, header::CACHE_CONTROL},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tracing::warn;

use crate::{
    edge::{
        access::Caller,
        admission::{self, Rules},
        cost,
    },
    error::ApiError,
    http::{
        accept, answer,
        headers::{self, REQUEST_ID},
        host,
    },
    state::App,
};

/// Bytes of path and query.
const LONGEST_TARGET: usize = 8 << 10;
/// Bytes of all names and values.
const MOST_HEADER_BYTES: usize = 32 << 10;

/// Runs the rest of the stack. Handlers find a usable request id in the request's header.
pub(crate) async fn observe(
    State((app, rules)): State<(Arc<App>, Arc<Rules>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = headers::request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, request_id.clone());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let admission = admission::decide(&app, &rules, route.as_ref().map(MatchedPath::as_str), &mut request);
    let misdirected = (!host::is_right(&request)).then_some(ApiError::BadHost);
    let refusal = misdirected.or(admission.refusal).or_else(|| objection(route.as_ref(), &request));
    let mut response = match refusal {
        None => answer::pay_or_refuse(&app.bodies, contained(next.run(request)).await),
        Some(error) => {
            // A client that sends one request behind the other, and whose limit is used up, takes turns with all others.
            tokio::task::yield_now().await;
            error.into_response()
        }
    };
    // The request may have turned out to count as more than one.
    let settled = admission.account.as_ref().and_then(|account| cost::settle(account, &mut response));
    if let Some(budget) = settled.or(admission.budget) {
        budget.tell(response.headers_mut());
    }
    if let Some(error) = response.extensions_mut().remove::<Arc<ApiError>>() {
        let id = request_id.to_str().unwrap_or_default();
        // A target that is too long is not worth repeating.
        let instance = if matches!(*error, ApiError::UriTooLong) { "" } else { uri.path() };
        error.render(&mut response, instance, id);
        if let Some(cause) = error.failure() {
            let status = response.status().as_u16();
            let (code, duration_ms) = (error.code(), millis(started.elapsed()));
            let (path, key_id) = (uri.path(), admission.caller.as_ref().and_then(Caller::key_id));
            warn!(action = "request_failed", %method, path, status, code, request_id = id, key_id, duration_ms, error = %cause);
        }
    }
    // Most answers are outdated at once, errors above all; those that are not say so themselves.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REQUEST_ID, request_id);
    let route = route.as_ref().map(MatchedPath::as_str);
    app.metrics.request(&method, route, response.status(), started.elapsed());
    response
}

/// The answer, also of a handler that panics: that is a bug, but neither its client nor the others of its connection
/// should have to guess from a connection that is closed.
async fn contained(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| ApiError::Panicked.into_response())
}

/// Why the request is refused before anything is done.
fn objection(route: Option<&MatchedPath>, request: &Request) -> Option<ApiError> {
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
    (!is_acceptable(route, headers)).then_some(ApiError::NotAcceptable)
}

/// Whether the client takes the form of answer that the route has. Told before anything is done.
fn is_acceptable(route: Option<&MatchedPath>, headers: &HeaderMap) -> bool {
    match route.map(MatchedPath::as_str) {
        // Problems are sent in any case, and these answer in other forms, to simple clients.
        None | Some("/livez" | "/readyz" | "/metrics" | "/docs") => true,
        Some("/job/{id}") if accept::prefers_events(headers) => true,
        Some(_) => accept::takes(headers, "application", "json"),
    }
}

/// Milliseconds with a fraction, for logs.
pub(crate) fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

/// The request's id as [`observe`] left it.
pub(crate) fn request_id(headers: &axum::http::HeaderMap<HeaderValue>) -> Option<&str> {
    headers::text(headers, &REQUEST_ID)
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
