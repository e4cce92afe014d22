//! Why the certificate of the API cannot be used.

use tepal_shared::process::tls::Unusable;
use tokio_rustls::rustls;

use crate::reload::ReadError;

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The files do not hold a certificate and its key.
    #[error("TLS_CERT_FILE and TLS_KEY_FILE cannot be used")]
    Unusable(#[from] Unusable),
    /// The TLS library cannot be set up.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    /// The file of authorities does not hold any.
    #[error("TLS_CLIENT_CA_FILE cannot be used")]
    Authorities(#[source] Unusable),
}
