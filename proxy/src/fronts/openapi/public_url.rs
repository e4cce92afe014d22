//! The setting of the address that the contract names.

use axum::http::Uri;
use clap::Args;
use tepal_shared::process::settings::Mistakes;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct PublicUrlArgs {
    /// URL of the API for `servers` of the contract, as in https://api.example; none = the URL of the contract itself
    #[arg(long, env, value_name = "URL")]
    public_url: Option<String>,
}

impl PublicUrlArgs {
    /// The URL of the API without a slash at the end; `None` = the URL of the contract itself.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Option<String> {
        let text = self.public_url.as_deref()?;
        let is_url = text.parse::<Uri>().is_ok_and(|url| {
            let is_plain = url.query().is_none() && !text.contains(['@', '#']);
            is_plain && matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
        });
        if !is_url {
            mistakes.add("PUBLIC_URL", format!("`{text}` is not a URL such as https://api.example"));
        }
        is_url.then(|| text.trim_end_matches('/').to_owned())
    }
}
