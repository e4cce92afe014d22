//! Security headers of every answer: no content sniffing, no referrer, no framing, no scripts and, under TLS, HTTPS only. They
//! are added where answers leave the service, so that every answer has them.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS},
};

/// A page with its own policy, such as `/docs`, keeps it.
const ALWAYS: [(HeaderName, HeaderValue); 3] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];
/// RFC 6797. One year. Other hosts of the domain are not included.
const UNDER_TLS: (HeaderName, HeaderValue) =
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

/// The headers of all answers of a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecurityHeaders {
    pub(crate) is_tls: bool,
}

impl SecurityHeaders {
    /// Adds the headers that the answer does not have.
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        for (name, value) in self.all() {
            headers.entry(name).or_insert(value);
        }
    }

    fn all(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        ALWAYS.into_iter().chain(self.is_tls.then_some(UNDER_TLS))
    }
}
