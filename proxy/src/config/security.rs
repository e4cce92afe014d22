//! The settings of TLS and of what browsers may do.

use axum::http::Uri;
use clap::Args;
use tepal_shared::process::settings::Mistakes;

use crate::{
    edge::cors::{self, AllowedOrigins},
    http::certificate::{CertificateFiles, ClientCertificates},
};

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
pub(super) struct SecurityArgs {
    /// PEM file of the API's certificate with what leads to its authority; none = plain HTTP. Read again when it changes
    #[arg(long, env = "TLS_CERT_FILE", value_name = "FILE", help_heading = "HTTP")]
    tls_cert_file: Option<String>,
    /// PEM file of its private key
    #[arg(long, env = "TLS_KEY_FILE", value_name = "FILE", help_heading = "HTTP")]
    tls_key_file: Option<String>,
    /// PEM file of the authorities that certificates of clients must be from; none = clients show none. Read again when it
    /// changes
    #[arg(long, env = "TLS_CLIENT_CA_FILE", value_name = "FILE", help_heading = "HTTP")]
    tls_client_ca_file: Option<String>,
    /// Whether a client must show a certificate of those authorities, or may: `required` or `optional`; required when the
    /// file is given
    #[arg(long, env = "TLS_CLIENT_AUTH", value_name = "WORD", help_heading = "HTTP")]
    tls_client_auth: Option<String>,
    /// Address at which clients reach the API, for `servers` of the contract, as in https://api.example; none = where the
    /// contract was read
    #[arg(long, env = "PUBLIC_URL", value_name = "URL", help_heading = "HTTP")]
    public_url: Option<String>,
    /// Origins whose pages may use the API from a browser, as in https://a.example,https://b.example, or *; none = no page
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_name = "ORIGIN,...", help_heading = "HTTP")]
    cors_allowed_origins: Option<String>,
}

impl SecurityArgs {
    /// Where the API's certificate is; `None` = plain HTTP.
    pub(super) fn certificate(&self, mistakes: &mut Mistakes) -> Option<CertificateFiles> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(chain), Some(key)) => {
                let clients = self.clients(mistakes);
                Some(CertificateFiles { chain: chain.into(), key: key.into(), clients })
            }
            (None, None) => {
                if self.clients(mistakes).is_some() {
                    let why =
                        "needs TLS_CERT_FILE and TLS_KEY_FILE: without TLS no client shows a certificate";
                    mistakes.add("TLS_CLIENT_CA_FILE", why);
                }
                None
            }
            (Some(_), None) => {
                mistakes.add("TLS_KEY_FILE", "must be given with TLS_CERT_FILE: they belong together");
                None
            }
            (None, Some(_)) => {
                mistakes.add("TLS_CERT_FILE", "must be given with TLS_KEY_FILE: they belong together");
                None
            }
        }
    }

    /// What clients have to show; `None` = nothing.
    fn clients(&self, mistakes: &mut Mistakes) -> Option<ClientCertificates> {
        let authorities = self.tls_client_ca_file.as_ref();
        let is_required = match self.tls_client_auth.as_deref() {
            None | Some("required") => true,
            Some("optional") => false,
            Some(word) => {
                mistakes.add("TLS_CLIENT_AUTH", format!("`{word}` must be optional or required"));
                true
            }
        };
        if authorities.is_none() && self.tls_client_auth.is_some() {
            mistakes
                .add("TLS_CLIENT_AUTH", "needs TLS_CLIENT_CA_FILE: it says whose certificates are accepted");
        }
        Some(ClientCertificates { authorities: authorities?.into(), is_required })
    }

    /// Where clients reach the API, without a slash at the end; `None` = where they read the contract.
    pub(super) fn public_url(&self, mistakes: &mut Mistakes) -> Option<String> {
        let text = self.public_url.as_deref()?;
        let is_url = text.parse::<Uri>().is_ok_and(|url| {
            let is_plain = url.query().is_none() && !text.contains(['@', '#']);
            is_plain && matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
        });
        if !is_url {
            mistakes.add("PUBLIC_URL", format!("`{text}` is no address like https://api.example"));
        }
        is_url.then(|| text.trim_end_matches('/').to_owned())
    }

    /// Whose pages may use the API; `None` = nobody's.
    pub(super) fn origins(&self, mistakes: &mut Mistakes) -> Option<AllowedOrigins> {
        let text = self.cors_allowed_origins.as_deref()?;
        match cors::parse(text) {
            Ok(origins) => origins,
            Err(wrong) => {
                wrong.iter().for_each(|reason| mistakes.add("CORS_ALLOWED_ORIGINS", reason));
                None
            }
        }
    }
}
