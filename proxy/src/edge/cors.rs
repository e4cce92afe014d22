//! Cross-origin requests of browsers (CORS): none, unless the settings name origins. Preflights are answered before requests are
//! counted or need a key, because browsers send them without one.

use std::time::Duration;

use axum::http::{
    HeaderName, HeaderValue, Method, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, RETRY_AFTER},
};
use clap::Args;
use tepal_shared::process::settings::Mistakes;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct CorsArgs {
    /// Origins whose pages may use the API from a browser, as in https://a.example,https://b.example, or *; none = no origin
    #[arg(long, env, value_name = "ORIGIN,...")]
    cors_allowed_origins: Option<String>,
}

impl CorsArgs {
    /// The allowed origins; `None` = none.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Option<AllowedOrigins> {
        let text = self.cors_allowed_origins.as_deref()?;
        match parse(text) {
            Ok(origins) => origins,
            Err(wrong) => {
                wrong.iter().for_each(|reason| mistakes.add("CORS_ALLOWED_ORIGINS", reason));
                None
            }
        }
    }
}

/// Whose pages may use the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// All pages.
    Any,
    /// Pages of these origins, as browsers write them.
    These(Vec<HeaderValue>),
}

/// Parses `*`, or origins like `https://example.com` with commas between them; `None` if there are none.
///
/// # Errors
/// A sentence for each invalid origin.
fn parse(text: &str) -> Result<Option<AllowedOrigins>, Vec<String>> {
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if words == ["*"] {
        return Ok(Some(AllowedOrigins::Any));
    }
    let (mut origins, mut mistakes) = (Vec::new(), Vec::new());
    for word in words {
        match origin(word) {
            Some(origin) => origins.push(origin),
            None => mistakes.push(format!(
                "`{word}` is not an origin such as https://example.com or http://localhost:3000; separate origins with \
                 commas, or give * alone"
            )),
        }
    }
    match (mistakes.is_empty(), origins.is_empty()) {
        (false, _) => Err(mistakes),
        (true, true) => Ok(None),
        (true, false) => Ok(Some(AllowedOrigins::These(origins))),
    }
}

/// An origin as browsers send it (RFC 6454, section 6.2): scheme and host in lower case, no default port, no path.
fn origin(word: &str) -> Option<HeaderValue> {
    let uri: Uri = word.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let port = authority.port_u16();
    let is_exact = word == format!("{scheme}://{authority}") && word == word.to_ascii_lowercase();
    let is_whole = !authority.host().is_empty() && !authority.as_str().contains(['@', '*']);
    // A port that is not a number is parsed as none.
    let is_port_known = port.is_some() || authority.as_str() == authority.host();
    (is_exact && is_whole && is_port_known && port != Some(default_port))
        .then(|| HeaderValue::from_str(word).ok())?
}

/// The layer that answers preflights and marks answers.
pub(crate) fn layer(allowed: &AllowedOrigins) -> CorsLayer {
    let origins = match allowed {
        AllowedOrigins::Any => AllowOrigin::any(),
        AllowedOrigins::These(origins) => AllowOrigin::list(origins.clone()),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(ALLOWED)
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE)
}

/// The headers that a page may send, in addition to those that browsers always allow.
const ALLOWED: [HeaderName; 10] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    IF_NONE_MATCH,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("prefer"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("inference-header-content-length"),
];
/// The headers that a page may read, in addition to those that browsers always allow.
const EXPOSED: [HeaderName; 9] = [
    LOCATION,
    RETRY_AFTER,
    ETAG,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("preference-applied"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("inference-header-content-length"),
    HeaderName::from_static("tepal-job-id"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_taken_as_browsers_write_them() {
        let good = ["https://example.com", "http://localhost:3000", "http://[::1]:8080", "https://1.2.3.4"];
        let expected = AllowedOrigins::These(good.map(HeaderValue::from_static).to_vec());
        assert_eq!(parse(&good.join(", ")), Ok(Some(expected)));
        assert_eq!(parse(" * "), Ok(Some(AllowedOrigins::Any)));
        assert_eq!(parse(" ,"), Ok(None));
    }

    #[test]
    fn what_no_browser_sends_is_rejected() {
        let bad = [
            "example.com",
            "https://example.com/",
            "https://example.com/app",
            "https://Example.com",
            "https://example.com:443",
            "http://example.com:80",
            "https://user@example.com",
            "https://*.example.com",
            "https://example.com:70000",
            "https://example.com?x",
            "ftp://example.com",
            "https://",
            "null",
            "*",
        ];
        let mistakes = parse(&format!("https://good.example,{}", bad.join(","))).unwrap_err();
        assert_eq!(mistakes.len(), bad.len(), "{mistakes:?}");
        assert!(mistakes[0].starts_with("`example.com` is not an origin such as https://example.com"));
    }
}
