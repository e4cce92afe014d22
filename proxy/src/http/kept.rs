//! Answers that are the same for all clients. Each has an ETag, and a client that has the answer already gets no body (RFC 9110,
//! section 13.1.2).

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use crate::http::answer::IsPaid;

/// The bytes of an answer, shared by all clients.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    bytes: Bytes,
    media_type: HeaderValue,
    tag: String,
}

impl Kept {
    pub(crate) fn new(bytes: impl Into<Bytes>, media_type: &'static str) -> Self {
        let bytes = bytes.into();
        let tag = format!("\"{:.24x}\"", Sha256::digest(&bytes));
        Self { bytes, media_type: HeaderValue::from_static(media_type), tag }
    }

    /// The answer to a request with these headers.
    pub(crate) fn answer(&self, request: &HeaderMap) -> Response {
        let mut answer = if names(request, &self.tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut answer = Body::from(self.bytes.clone()).into_response();
            answer.headers_mut().insert(CONTENT_TYPE, self.media_type.clone());
            answer
        };
        answer.extensions_mut().insert(IsPaid);
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(tag) = HeaderValue::try_from(&self.tag) {
            headers.insert(ETAG, tag);
        }
        answer
    }
}

/// Whether `If-None-Match` contains this tag. Strong and weak tags are compared alike.
pub(crate) fn names(request: &HeaderMap, tag: &str) -> bool {
    let lines = request.get_all(IF_NONE_MATCH).into_iter().filter_map(|line| line.to_str().ok());
    // None of our tags contains a comma.
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_bytes_gets_none() {
        let kept = Kept::new("ok", "text/plain");
        let first = kept.answer(&HeaderMap::new());
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let second = kept.answer(&again);
        assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::NOT_MODIFIED));
        assert_eq!(first.headers()[ETAG], second.headers()[ETAG]);
        assert_ne!(Kept::new("no", "text/plain").tag, kept.tag);
    }

    #[test]
    fn a_tag_is_found_in_every_form() {
        let is_named = |line: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, line.parse().unwrap());
            names(&headers, "\"a-1\"")
        };
        for good in ["\"a-1\"", "W/\"a-1\"", "*", "\"x\", W/\"a-1\" ,\"y\""] {
            assert!(is_named(good), "{good}");
        }
        for bad in ["", "a-1", "\"a-2\"", "w/\"a-1\"", "\"A-1\""] {
            assert!(!is_named(bad), "{bad}");
        }
        assert!(!names(&HeaderMap::new(), "\"a-1\""));
    }
}
