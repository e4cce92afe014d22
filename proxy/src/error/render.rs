//! Error answers: RFC 9457 problem details.

use std::sync::Arc;

use axum::{
    http::{
        HeaderValue,
        header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

use super::{
    api_error::ApiError,
    kind::Kind,
    problem::{BriefProblem, Head, MOST_BYTES, Problem, json},
};

/// How to authenticate: no registered scheme carries a key in a header of its own.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"ApiKey realm="tepal", header="X-API-Key""#);

impl ApiError {
    /// Turns `response` into this error's answer. Its headers are kept.
    pub(crate) fn render(&self, response: &mut Response, instance: &str, request_id: &str) {
        *response.status_mut() = self.kind().status;
        *response.body_mut() = self.problem(instance, request_id).into();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self, Self::BadHost) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if matches!(self, Self::Unauthorized) {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
    }

    /// The problem, JSON, in at most [`MOST_BYTES`].
    pub(crate) fn problem(&self, instance: &str, request_id: &str) -> Vec<u8> {
        json(&self.problem_within(MOST_BYTES, instance, request_id))
    }

    /// The problem, with as many of its mistakes as fit into `most` bytes, but with one at least.
    pub(crate) fn problem_within<'a>(
        &'a self,
        most: usize,
        instance: &'a str,
        request_id: &'a str,
    ) -> Problem<'a> {
        let Kind { status, code, title, .. } = self.kind();
        let (status, detail) = (status.as_u16(), self.detail());
        Head { status, code, title, detail, instance, request_id }.problem(self.mistakes(), most)
    }

    /// The parts of the problem that a program needs, as JSON at most 100 bytes.
    pub(crate) fn brief_problem(&self) -> BriefProblem<'static> {
        let Kind { status, code, .. } = self.kind();
        BriefProblem::new(status.as_u16(), code)
    }
}

impl IntoResponse for ApiError {
    /// A response that carries the error. `observe` renders it, because it knows the path and the request id.
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
