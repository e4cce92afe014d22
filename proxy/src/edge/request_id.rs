//! The id of a request, in the log and in the answer: the client's own if it is valid, else a new one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::headers::{is_visible_ascii, text};

/// The header with the id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most characters of a client's id.
const LONGEST: usize = 128;

/// The id in these headers if it is valid, else a new one.
pub(crate) fn choose(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| is_visible_ascii(id.as_bytes(), LONGEST));
    given.cloned().unwrap_or_else(|| {
        let mut text = uuid::Uuid::encode_buffer();
        let text = uuid::Uuid::now_v7().as_hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// The id that the middleware put into the request's headers.
pub(crate) fn of(headers: &HeaderMap) -> Option<&str> {
    text(headers, &REQUEST_ID)
}
