//! Caching of `GET /job/{id}` (RFC 9111), and 304 for clients that have the job already (RFC 9110, section 13).

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, ETAG},
    },
    response::{IntoResponse as _, Response},
};
use tepal_shared::job::Job;

use super::{
    answer::mark_unfinished,
    representation::{Representation, mark_negotiated},
};
use crate::{error::ApiError, http::kept, state::App};

/// A finished job never changes, but its owner may want clients to forget it.
const LONGEST_S: u64 = 3600;

/// The job with its ETag, or 304 if the client has it already.
pub(super) async fn conditional(app: &App, request: &HeaderMap, job: &Job) -> Result<Response, ApiError> {
    let representation = Representation::of(request, job);
    let tag = representation.tag(job);
    let mut response = if kept::names(request, &tag) {
        let mut unchanged = StatusCode::NOT_MODIFIED.into_response();
        mark_unfinished(job, &mut unchanged);
        unchanged
    } else {
        representation.shown(app, job).await?
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, cache_control(job, app.store.queue().policy().result_ttl.as_secs()));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    mark_negotiated(app, &mut response);
    Ok(response)
}

/// `max-age` never exceeds the time for which the job is kept.
fn cache_control(job: &Job, result_ttl_s: u64) -> HeaderValue {
    let no_cache = HeaderValue::from_static("private, no-cache");
    let Some(finished_at_ms) = job.finished_at_ms.filter(|_| job.status.is_terminal()) else {
        return no_cache;
    };
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left_s = (finished_at_ms / 1000).saturating_add(result_ttl_s).saturating_sub(now_s);
    let max_age = left_s.min(LONGEST_S).min(result_ttl_s);
    HeaderValue::try_from(format!("private, max-age={max_age}, immutable")).unwrap_or(no_cache)
}
