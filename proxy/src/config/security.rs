//! The settings of TLS and of what browsers may do.

use clap::Args;
use tepal_shared::config::Mistakes;

use crate::{
    certificate::CertificateFiles,
    cors::{self, AllowedOrigins},
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
    /// Origins whose pages may use the API from a browser, as in https://a.example,https://b.example, or *; none = no page
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_name = "ORIGIN,...", help_heading = "HTTP")]
    cors_allowed_origins: Option<String>,
}

impl SecurityArgs {
    /// Where the API's certificate is; `None` = plain HTTP.
    pub(super) fn certificate(&self, mistakes: &mut Mistakes) -> Option<CertificateFiles> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain: chain.into(), key: key.into() }),
            (None, None) => None,
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
