//! Error answers: RFC 9457 problem details, or what clients of the Open Inference Protocol and of TensorFlow Serving read.

use std::sync::Arc;

use axum::{
    http::{
        HeaderValue,
        header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    api_error::ApiError,
    form::ErrorForm,
    kind::Kind,
    problem::{BriefProblem, Head, LONGEST_DETAIL, MOST_BYTES, Problem, json},
    short::short,
};

/// How to authenticate: no registered scheme carries a key in a header of its own.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"ApiKey realm="tepal", header="X-API-Key""#);

/// An error as an object with the member `error`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error", description = "An error of the Open Inference Protocol")]
pub(crate) struct ErrorMember<'a> {
    error: String,
    /// One word for programs; does not change
    code: &'a str,
    request_id: &'a str,
}

impl ApiError {
    /// Turns `response` into this error's answer in this form. Its headers are kept. `path`: that of the request.
    pub(crate) fn render(&self, response: &mut Response, form: ErrorForm, path: &str, request_id: &str) {
        if form == ErrorForm::Grpc {
            return self.render_grpc(response);
        }
        // A target that is too long is not repeated.
        let instance = if matches!(self, Self::UriTooLong) { "" } else { path };
        *response.status_mut() = self.status_in(form);
        let (media_type, body) = match form {
            ErrorForm::Problem => ("application/problem+json", self.problem(instance, request_id)),
            // Clients show the text only if this is the exact media type.
            ErrorForm::Member | ErrorForm::Grpc => ("application/json", json(&self.member(request_id))),
        };
        *response.body_mut() = body.into();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
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

    /// The error as an object with the member `error`, much less than [`MOST_BYTES`].
    pub(crate) fn member<'a>(&self, request_id: &'a str) -> ErrorMember<'a> {
        ErrorMember { error: short(self.detail(), LONGEST_DETAIL), code: self.kind().code, request_id }
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
