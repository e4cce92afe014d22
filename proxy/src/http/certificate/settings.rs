//! The settings of TLS.

use std::path::PathBuf;

use clap::Args;
use tepal_shared::process::settings::Mistakes;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct TlsArgs {
    /// PEM file with the API's certificate and its intermediate certificates; none = plain HTTP. Reloaded when it changes
    #[arg(long, env, value_name = "FILE")]
    tls_cert_file: Option<String>,
    /// PEM file with its private key
    #[arg(long, env, value_name = "FILE")]
    tls_key_file: Option<String>,
    /// PEM file with the authorities that issue client certificates; none = no client certificates. Reloaded when it changes
    #[arg(long, env, value_name = "FILE")]
    tls_client_ca_file: Option<String>,
    /// Whether a client must present a certificate of those authorities: `required`, the default with that file, or `optional`
    #[arg(long, env, value_name = "WORD")]
    tls_client_auth: Option<String>,
}

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, the certificate first, then its intermediate certificates.
    pub chain: PathBuf,
    /// PEM, not encrypted.
    pub key: PathBuf,
    /// What clients must present; `None` = nothing.
    pub clients: Option<ClientCertificates>,
}

/// What clients must present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM, the authorities that may issue client certificates.
    pub authorities: PathBuf,
    /// Whether a client without a certificate is rejected.
    pub is_required: bool,
}

impl TlsArgs {
    /// The files of the API's certificate; `None` = plain HTTP.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Option<CertificateFiles> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(chain), Some(key)) => {
                let clients = self.clients(mistakes);
                Some(CertificateFiles { chain: chain.into(), key: key.into(), clients })
            }
            (None, None) => {
                if self.clients(mistakes).is_some() {
                    let why =
                        "needs TLS_CERT_FILE and TLS_KEY_FILE: without TLS clients present no certificates";
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

    /// What clients must present; `None` = nothing.
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
            mistakes.add("TLS_CLIENT_AUTH", "needs TLS_CLIENT_CA_FILE, which names the accepted authorities");
        }
        Some(ClientCertificates { authorities: authorities?.into(), is_required })
    }
}
