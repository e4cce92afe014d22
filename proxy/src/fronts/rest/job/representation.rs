//! The forms of a job, and the choice between them (RFC 9110, section 12): JSON, the binary form of the Open Inference Protocol, or the
//! bytes that are its result.

use axum::{
    http::{HeaderMap, HeaderValue, header::VARY},
    response::Response,
};
use tepal_shared::job::Job;

use super::{answer::shown, binary, content, view};
use crate::{error::ApiError, http::accept, state::App};

/// The forms of a job. Each has its own ETag.
#[derive(Clone, Copy)]
pub(crate) enum Representation {
    Json,
    Binary,
    Content,
}

impl Representation {
    /// The form that the client prefers.
    pub(crate) fn of(request: &HeaderMap, job: &Job) -> Self {
        let prefers_bytes = accept::prefers_bytes(request);
        match content::type_of(job) {
            Some(own) if prefers_bytes || accept::prefers_type(request, own) => Self::Content,
            None if prefers_bytes => Self::Binary,
            _ => Self::Json,
        }
    }

    /// The ETag of the job in this form.
    pub(super) fn tag(self, job: &Job) -> String {
        match self {
            Self::Json => format!("\"{}\"", view::tag(job)),
            Self::Binary => format!("\"{}-binary\"", view::tag(job)),
            Self::Content => format!("\"{}-content\"", view::tag(job)),
        }
    }

    /// The job as an answer in this form.
    pub(crate) async fn shown(self, app: &App, job: &Job) -> Result<Response, ApiError> {
        match self {
            Self::Json => shown(app, job).await,
            Self::Binary => binary::shown(app, job).await,
            Self::Content => content::shown(app, job).await,
        }
    }
}

/// Names the headers of the request that the answer depends on. With API keys, not every caller sees the job.
pub(crate) fn mark_negotiated(app: &App, response: &mut Response) {
    let vary = if app.admission.access.is_some() { "accept, prefer, x-api-key" } else { "accept, prefer" };
    response.headers_mut().insert(VARY, HeaderValue::from_static(vary));
}
