//! Options about the server.

use std::time::Duration;

use clap::Args;
use humantime::parse_duration;
use hyper::header::HeaderValue;

use crate::mistakes::Mistakes;

/// The server and how to call it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerSettings {
    /// URL of the proxy
    #[arg(long, env = "TEPAL_URL", default_value = "http://127.0.0.1:8000")]
    pub(crate) url: String,
    /// API key, sent as X-API-Key with every request
    #[arg(
        long = "api-key",
        alias = "key",
        env = "TEPAL_API_KEY",
        hide_env_values = true,
        value_parser = parse_key
    )]
    pub(crate) key: Option<HeaderValue>,
    /// Longest time until the whole answer has arrived; for a long poll, its wait is added
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

impl ServerSettings {
    /// Adds what is wrong. The URL is checked where it is parsed.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) {
        mistakes.length("--timeout", self.timeout);
    }
}

/// The value is marked as sensitive, so debug output does not show it.
fn parse_key(text: &str) -> Result<HeaderValue, String> {
    let mut key =
        HeaderValue::from_str(text).map_err(|_| "a key has only visible ASCII characters".to_owned())?;
    key.set_sensitive(true);
    Ok(key)
}
