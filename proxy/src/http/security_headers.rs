//! What every answer tells a browser: not to guess, not to frame, not to run anything, and, under TLS, not to come back
//! without it. Added where answers leave the service, so that none is without.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS},
};

/// A page with a policy of its own, as `/docs` has, keeps it.
const ALWAYS: [(HeaderName, HeaderValue); 3] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];
/// RFC 6797. A year; other hosts of the domain are not ours to decide for.
const UNDER_TLS: (HeaderName, HeaderValue) =
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

/// The headers for all answers of a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecurityHeaders {
    pub(crate) is_tls: bool,
}

impl SecurityHeaders {
    /// Adds those that are not there.
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        for (name, value) in self.all() {
            headers.entry(name).or_insert(value);
        }
    }

    fn all(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        ALWAYS.into_iter().chain(self.is_tls.then_some(UNDER_TLS))
    }
}
