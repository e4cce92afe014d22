//! The forms of a job, and the choice between them (RFC 9110, section 12): JSON, or the binary form of the Open Inference Protocol.

use axum::{
    http::{HeaderMap, HeaderValue, header::VARY},
    response::Response,
};
use tepal_shared::job::Job;

use super::{answer::shown, binary, view};
use crate::{error::ApiError, http::accept, state::App};

/// The forms of a job. Each has its own ETag.
#[derive(Clone, Copy)]
pub(crate) enum Representation {
    Json,
    Binary,
}

impl Representation {
    /// The form that the client prefers.
    pub(crate) fn of(request: &HeaderMap) -> Self {
        if accept::prefers_bytes(request) { Self::Binary } else { Self::Json }
    }

    /// The ETag of the job in this form.
    pub(super) fn tag(self, job: &Job) -> String {
        match self {
            Self::Json => format!("\"{}\"", view::tag(job)),
            Self::Binary => format!("\"{}-binary\"", view::tag(job)),
        }
    }

    /// The job as an answer in this form.
    pub(crate) async fn shown(self, app: &App, job: &Job) -> Result<Response, ApiError> {
        match self {
            Self::Json => shown(app, job).await,
            Self::Binary => binary::shown(app, job).await,
        }
    }
}

/// Names the headers of the request that the answer depends on. With API keys, not every caller sees the job.
pub(crate) fn mark_negotiated(app: &App, response: &mut Response) {
    let vary = if app.admission.access.is_some() { "accept, prefer, x-api-key" } else { "accept, prefer" };
    response.headers_mut().insert(VARY, HeaderValue::from_static(vary));
}
