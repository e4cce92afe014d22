//! The URL of the server under test.

use std::fmt;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::{Authority, Scheme};

/// The address of the API: plain HTTP, with an optional path before every route.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    authority: Authority,
    prefix: String,
    host_header: HeaderValue,
}

impl Target {
    /// Parses `http://host[:port][/prefix]`.
    ///
    /// # Errors
    /// What is wrong with the URL, as a sentence.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let parts =
            url.parse::<Uri>().map_err(|error| format!("`{url}` is not a URL: {error}"))?.into_parts();
        if parts.scheme != Some(Scheme::HTTP) {
            return Err(format!("`{url}` must start with http:// (the load generator does not support TLS)"));
        }
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
        let authority =
            authority.ok_or("a URL must name a host and no user; give a key with --api-key".to_owned())?;
        let path = parts.path_and_query.map(|path| path.path().trim_end_matches('/').to_owned());
        let host_header = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        Ok(Self { authority, prefix: path.unwrap_or_default(), host_header })
    }

    /// Host name or address (without brackets) and port, for the resolver.
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        (host, self.authority.port_u16().unwrap_or(80))
    }

    /// The value of the `Host` header.
    pub(crate) fn host_header(&self) -> HeaderValue {
        self.host_header.clone()
    }

    /// The path of `route`, which starts with a slash, in the request line.
    pub(crate) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_parsed() {
        let target = Target::parse("http://[::1]:8000/tepal/").unwrap();
        assert_eq!(target.host_and_port(), ("::1", 8000));
        assert_eq!(target.path("/health"), "/tepal/health");
        assert_eq!(target.to_string(), "http://[::1]:8000/tepal");
        assert_eq!(Target::parse("http://localhost").unwrap().host_and_port(), ("localhost", 80));
        assert_eq!(Target::parse("http://localhost").unwrap().path("/health"), "/health");
    }

    #[test]
    fn wrong_urls_are_explained() {
        for (url, reason) in [
            ("https://a", "http://"),
            ("localhost:8000", "http://"),
            ("http://u:p@a", "--api-key"),
            ("http://a b", "URL"),
        ] {
            assert!(Target::parse(url).unwrap_err().contains(reason), "{url}");
        }
    }
}
