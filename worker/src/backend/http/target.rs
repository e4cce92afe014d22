//! What to call, from the table `[http]` of `model.toml`.

use std::{fs, io};

use hyper::{
    HeaderMap, Method, Uri,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
    },
};
use rustls::pki_types::ServerName;
use tepal_shared::{
    model::endpoint::{Endpoint, HeaderText, SecretFile},
    process::{
        settings::{ConfigError, Mistakes},
        telemetry,
        tls::{ClientFiles, ClientTls},
    },
};

use super::{IDEMPOTENCY_KEY, TRACEPARENT};
use crate::client::Connect;

/// Headers that the call itself decides.
const OWN: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    IDEMPOTENCY_KEY,
    TE,
    TRACEPARENT,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Headers that model.toml may change.
const USUAL: [(HeaderName, &str); 3] = [
    (ACCEPT, "application/json, */*;q=0.5"),
    (ACCEPT_ENCODING, "identity"),
    (USER_AGENT, concat!("tepal/", env!("CARGO_PKG_VERSION"))),
];

/// An endpoint.
pub(super) struct Target {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) probe: Option<Uri>,
    /// Whether there is a client certificate.
    pub(super) has_identity: bool,
    headers: Vec<(HeaderName, HeaderText)>,
}

/// A secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error("cannot read {path}")]
    Unreadable {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the header `{0}` cannot have this value: it must be visible ASCII in one line")]
    Value(HeaderName),
}

impl Target {
    /// The endpoint, how to connect to it, and the headers of requests.
    ///
    /// # Errors
    /// Everything that is wrong with the table.
    pub(super) fn open(endpoint: &Endpoint) -> Result<(Self, Connect, HeaderMap), ConfigError> {
        let mut mistakes = Mistakes::default();
        let uri = uri(&endpoint.url, &mut mistakes);
        let probe = endpoint.probe.as_deref().and_then(|path| beside(&uri, path, &mut mistakes));
        let tls = tls(endpoint, &uri, &mut mistakes);
        let target = Self {
            method: method(&endpoint.method, &mut mistakes),
            uri,
            probe,
            has_identity: tls.identity.is_some(),
            headers: names(endpoint, &mut mistakes),
        };
        let headers =
            target.headers().map_err(|error| mistakes.add("headers", telemetry::chain(&error))).ok();
        let config =
            tls.client_config().map_err(|error| mistakes.add("tls", telemetry::chain(error.as_ref()))).ok();
        let name = server_name(endpoint, &mut mistakes);
        let timeout = endpoint.connect_timeout();
        let connect = config.map(|tls| Connect { tls, name, timeout });
        mistakes.unless_any(connect.zip(headers).map(|(connect, headers)| (target, connect, headers)))
    }

    /// The headers of each request. Reads the secrets among them.
    ///
    /// # Errors
    /// When one cannot be read, or is no value of a header.
    pub(super) fn headers(&self) -> Result<HeaderMap, SecretError> {
        let usual = USUAL.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let mut headers: HeaderMap = usual.into_iter().collect();
        for (name, text) in &self.headers {
            let text = match text {
                HeaderText::Literal(text) => text.clone(),
                HeaderText::Secret(SecretFile { file, prefix }) => {
                    let read = fs::read_to_string(file);
                    let path = || file.display().to_string();
                    let text = read.map_err(|source| SecretError::Unreadable { path: path(), source })?;
                    format!("{prefix}{}", text.trim())
                }
            };
            let mut value = HeaderValue::try_from(text).map_err(|_| SecretError::Value(name.clone()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

fn uri(text: &str, mistakes: &mut Mistakes) -> Uri {
    let mut wrong = |why: &str| mistakes.add("url", format!("`{}` {why}", without_user(text)));
    let uri = match text.parse::<Uri>() {
        Ok(uri) => uri,
        Err(error) => {
            wrong(&format!("is no URL: {error}"));
            return Uri::default();
        }
    };
    let Some(authority) = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https")))
    else {
        wrong("must begin with http:// or https:// and a host");
        return uri;
    };
    if authority.as_str().contains('@') {
        wrong("must have no user and password: write a header `authorization` instead");
    }
    if text.contains('#') {
        wrong("must have no fragment");
    }
    uri
}

/// A password is for nobody to read.
fn without_user(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        _ => text.to_owned(),
    }
}

/// Another path at the same server.
fn beside(uri: &Uri, path: &str, mistakes: &mut Mistakes) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse().ok().filter(|_| path.starts_with('/'));
    if parts.path_and_query.is_none() {
        mistakes.add("probe", format!("`{path}` must be a path, which begins with /"));
        return None;
    }
    // Only a wrong `url` has no scheme, which was reported.
    Uri::from_parts(parts).ok()
}

fn method(text: &str, mistakes: &mut Mistakes) -> Method {
    match text {
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        _ => {
            mistakes.add("method", format!("`{text}` must be POST, PUT or PATCH"));
            Method::POST
        }
    }
}

fn names(endpoint: &Endpoint, mistakes: &mut Mistakes) -> Vec<(HeaderName, HeaderText)> {
    let mut names = Vec::with_capacity(endpoint.headers.len());
    for (name, text) in &endpoint.headers {
        match name.parse::<HeaderName>() {
            Ok(own) if OWN.contains(&own) => {
                mistakes.add("headers", format!("`{name}` is set by the call itself"));
            }
            Ok(other) => names.push((other, text.clone())),
            Err(_) => mistakes.add("headers", format!("`{name}` is no name of a header")),
        }
    }
    names
}

fn tls(endpoint: &Endpoint, uri: &Uri, mistakes: &mut Mistakes) -> ClientTls {
    let text = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let [authorities, certificate, key] =
        [&endpoint.ca_file, &endpoint.cert_file, &endpoint.key_file].map(text);
    let files = ClientFiles {
        prefix: "",
        authorities: authorities.as_deref(),
        certificate: certificate.as_deref(),
        key: key.as_deref(),
    };
    let mut given = files.given();
    given.extend(endpoint.tls_name.as_ref().map(|_| "tls_name".to_owned()));
    if uri.scheme_str() == Some("http") && !given.is_empty() {
        mistakes.add(&given.join(" and "), "without effect: `url` begins with http://");
    }
    files.read(mistakes)
}

fn server_name(endpoint: &Endpoint, mistakes: &mut Mistakes) -> Option<ServerName<'static>> {
    let name = endpoint.tls_name.clone()?;
    let wrong = |_| mistakes.add("tls_name", format!("`{name}` is not a host name"));
    ServerName::try_from(name.clone()).map_err(wrong).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    fn wrong(text: &str) -> String {
        Target::open(&endpoint(text)).err().unwrap().to_string()
    }

    #[test]
    fn a_target_has_its_probe_beside_it_and_usual_headers() {
        let text = "url = \"https://models.example:8443/v1/run?a=b\"\nprobe = \"/health?full=1\"\nmethod = \"PUT\"\n\
                    headers.accept = \"text/plain\"\nheaders.x-a = \"b\"";
        let (target, connect, headers) = Target::open(&endpoint(text)).unwrap();
        assert_eq!(target.uri.to_string(), "https://models.example:8443/v1/run?a=b");
        assert_eq!(target.probe.unwrap().to_string(), "https://models.example:8443/health?full=1");
        assert_eq!((target.method, connect.timeout), (Method::PUT, std::time::Duration::from_secs(2)));
        let text = |name| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!((text("accept"), text("accept-encoding"), text("x-a")), ("text/plain", "identity", "b"));
        assert!(text("user-agent").starts_with("tepal/"));
    }

    #[test]
    fn a_secret_is_read_again_and_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "one\n").unwrap();
        let text = format!(
            "url = \"http://a/\"\nheaders.authorization = {{ file = {file:?}, prefix = \"Bearer \" }}"
        );
        let (target, _, headers) = Target::open(&endpoint(&text)).unwrap();
        assert_eq!(headers["authorization"], "Bearer one");
        fs::write(&file, "two").unwrap();
        assert_eq!(target.headers().unwrap()["authorization"], "Bearer two");
        assert!(!format!("{:?}", target.headers().unwrap()).contains("two"));
        fs::write(&file, "t\nw\no").unwrap();
        assert!(matches!(target.headers(), Err(SecretError::Value(_))));
        fs::remove_file(&file).unwrap();
        assert!(wrong(&text).contains("headers: cannot read"), "{}", wrong(&text));
    }

    #[test]
    fn everything_that_is_wrong_is_reported() {
        let text = "url = \"ftp://a/\"\nmethod = \"GET\"\nprobe = \"health\"\nheaders.host = \"b\"\nheaders.\"a b\" = \"c\"";
        let report = wrong(text);
        for expected in [
            "url: `ftp://a/` must begin with http:// or https://",
            "method: `GET` must be POST, PUT or PATCH",
            "probe: `health` must be a path",
            "headers: `host` is set by the call itself",
            "headers: `a b` is no name of a header",
        ] {
            assert!(report.contains(expected), "{report}");
        }
        assert!(wrong("url = \"http://me:secret@a/\"").contains("`http://***@a/` must have no user"));
        assert!(wrong("url = \"http://a/\"\ntls_name = \"b\"").contains("tls_name: without effect"));
        assert!(wrong("url = \"http://a/#b\"").contains("fragment"));
        assert!(
            wrong("url = \"https://a/\"\ncert_file = \"/none\"")
                .contains("key_file: must be given with cert_file")
        );
        assert!(wrong("url = \"https://a/\"\nca_file = \"/none\"").contains("ca_file: cannot read /none"));
    }
}
