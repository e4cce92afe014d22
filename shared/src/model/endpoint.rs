//! How an opaque model is called over HTTP: the table `[http]` of `model.toml`. The worker that calls it checks the values.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

/// As for TensorFlow Serving.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The limit of all time limits of a worker.
const LONGEST_MS: u64 = 3_600_000;

/// The table `[http]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Where calls go: `http://` or `https://`.
    pub url: String,
    /// POST, PUT or PATCH.
    #[serde(default = "post")]
    pub method: String,
    /// Further headers of each call and of each probe.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderText>,
    /// The path and the query that a probe asks for. Without it, a probe only connects.
    pub probe: Option<String>,
    /// Longest time until a connection is open, ms.
    connect_timeout_ms: Option<NonZeroU64>,
    /// PEM file of the authorities that may have signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must contain, if it is not the host of the URL.
    pub tls_name: Option<String>,
}

/// The value of a header.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a header is a string, or a table with `file` and perhaps `prefix`")]
pub enum HeaderText {
    /// The value.
    Literal(String),
    /// A file has the value.
    Secret(SecretFile),
}

/// A file with a secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// The file. White space at its ends is no part of the secret.
    pub file: PathBuf,
    /// What is before the secret, as in `Bearer `.
    #[serde(default)]
    pub prefix: String,
}

/// A literal may be a secret, too.
impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal"),
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

fn post() -> String {
    "POST".to_owned()
}

impl Endpoint {
    /// Reads the table alone.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Longest time until a connection is open.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        let limit = self.connect_timeout_ms.map(|limit| Duration::from_millis(limit.get().min(LONGEST_MS)));
        limit.unwrap_or(CONNECT_TIMEOUT)
    }

    /// The same with files that are relative to this folder.
    pub(super) fn within(mut self, folder: &Path) -> Self {
        let secrets = self.headers.values_mut().filter_map(|text| match text {
            HeaderText::Literal(_) => None,
            HeaderText::Secret(secret) => Some(&mut secret.file),
        });
        let files = [&mut self.ca_file, &mut self.cert_file, &mut self.key_file].into_iter().flatten();
        // An absolute path stays as it is.
        files.chain(secrets).for_each(|file| *file = folder.join(&*file));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, String> {
        Endpoint::parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_url_is_needed() {
        let endpoint = parse(r#"url = "http://127.0.0.1:8001/predict""#).unwrap();
        assert_eq!((endpoint.method.as_str(), endpoint.headers.len(), &endpoint.probe), ("POST", 0, &None));
        assert_eq!(endpoint.connect_timeout(), CONNECT_TIMEOUT);
        assert!(parse("").unwrap_err().contains("missing field `url`"));
    }

    #[test]
    fn headers_are_texts_or_files_and_files_are_relative_to_the_folder() {
        let text = r#"
            url = "https://models.example/v1"
            ca_file = "ca.pem"
            headers.accept = "application/json"
            headers.authorization = { file = "token", prefix = "Bearer " }
            headers.x-key = { file = "/run/secrets/key" }
        "#;
        let endpoint = parse(text).unwrap().within(Path::new("/models/m"));
        let secret = |name: &str| match &endpoint.headers[name] {
            HeaderText::Secret(secret) => (secret.prefix.clone(), secret.file.display().to_string()),
            HeaderText::Literal(text) => panic!("{text}"),
        };
        assert_eq!(secret("authorization"), ("Bearer ".to_owned(), "/models/m/token".to_owned()));
        assert_eq!(secret("x-key"), (String::new(), "/run/secrets/key".to_owned()));
        assert_eq!(endpoint.ca_file, Some("/models/m/ca.pem".into()));
        assert!(!format!("{endpoint:?}").contains("application/json"));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let error = parse("url = \"http://a\"\nretries = 3").unwrap_err();
        assert!(error.contains("retries"), "{error}");
        for header in ["5", "{ path = \"a\" }", "{ file = \"a\", prefixes = \"b\" }"] {
            let error = parse(&format!("url = \"http://a\"\nheaders.x = {header}")).unwrap_err();
            assert!(error.contains("a header is a string, or a table with `file`"), "{error}");
        }
    }
}
