//! The `Host` header: a request of HTTP/1.1 has exactly one, with a valid value (RFC 9112, section 3.2).

use axum::{
    extract::Request,
    http::{Version, header::HOST},
};

/// Whether the request has one valid `Host`. HTTP/1.0 does not require the header, and HTTP/2 has `:authority` in its place.
pub(crate) fn is_right(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11 || request.uri().authority().is_some(),
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// `uri-host [ ":" port ]` (RFC 9110, section 7.2); the host may be empty (RFC 3986, section 3.2.2).
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(colon) if text[colon] == b':' => (&text[..colon], &text[colon + 1..]),
        _ => (text, &[][..]),
    };
    let is_address = |inner: &[u8]| inner.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte));
    let is_known = match host {
        [b'[', inner @ .., b']'] => !inner.is_empty() && is_address(inner),
        name => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte)),
    };
    is_known && port.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in ["tepal", "a.example:80", "127.0.0.1:8000", "[::1]", "[::1]:8000", "a_b.c", "a:", ""] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in
            ["a b", "u@a", "a/b", "http://a", "a:b", "a:1:2", "::1", "[::1", "[]", "[x]", "a,b/", "a\u{e9}"]
        {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
