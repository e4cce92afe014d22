//! Certificates of clients: from which authorities they must be, and whether a client must have one.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tepal_shared::process::{
    doctor::Finding,
    telemetry,
    tls::{self, Unusable},
};
use tokio_rustls::rustls::server::{WebPkiClientVerifier, danger::ClientCertVerifier};
use x509_cert::der::Decode as _;

use super::CertificateError;
use crate::reload::{Files, ReadError};

/// What clients have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// PEM, the authorities that a client's certificate must be from.
    pub authorities: PathBuf,
    /// Whether a client without a certificate is refused.
    pub is_required: bool,
}

/// Decides about the certificates of clients.
pub(super) type Verifier = Arc<dyn ClientCertVerifier>;

impl ClientCertificates {
    pub(super) fn open(&self) -> Result<(Files<1>, Verifier), CertificateError> {
        let (file, contents) = self.read()?;
        Ok((file, self.verifier(&contents)?))
    }

    fn read(&self) -> Result<(Files<1>, Vec<u8>), ReadError> {
        let (file, [text]) = Files::open([self.authorities.clone()])?;
        Ok((file, text))
    }

    /// A verifier that trusts the authorities in this text.
    pub(super) fn verifier(&self, text: &[u8]) -> Result<Verifier, CertificateError> {
        let roots = tls::roots(text).map_err(CertificateError::Authorities)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(tls::provider()));
        let builder = if self.is_required { builder } else { builder.allow_unauthenticated() };
        // Roots were found, and no list of revoked certificates is given: nothing is left to be wrong.
        builder
            .build()
            .map_err(|error| CertificateError::Authorities(Unusable::DamagedCertificate(error.into())))
    }

    /// What the doctor says of them.
    pub(super) fn examine(&self) -> Finding {
        const SUBJECT: &str = "client certificates";
        const MEND: &str = "set TLS_CLIENT_CA_FILE to the certificates of the authorities, PEM";
        let read = self.read().map_err(CertificateError::from);
        let ends = read.and_then(|(_, text)| {
            self.verifier(&text)?;
            ends(&text).map_err(CertificateError::Authorities)
        });
        let now = SystemTime::now();
        match ends {
            Err(error) => Finding::wrong(SUBJECT, telemetry::chain(&error), MEND),
            Ok(ends) => match ends.iter().filter(|end| **end > now).min() {
                None => Finding::wrong(SUBJECT, "all authorities have expired: no client is let in", MEND),
                Some(end) => {
                    let what = if self.is_required { "must show one" } else { "may show one" };
                    let until = humantime::format_rfc3339_seconds(*end);
                    let count = ends.len();
                    Finding::ok(
                        SUBJECT,
                        format!("clients {what}; authorities: {count}, the first until {until}"),
                    )
                }
            },
        }
    }
}

/// When each authority expires.
fn ends(text: &[u8]) -> Result<Vec<SystemTime>, Unusable> {
    let end = |der: &[u8]| {
        let certificate = x509_cert::Certificate::from_der(der)
            .map_err(|error| Unusable::DamagedCertificate(error.into()))?;
        Ok(UNIX_EPOCH + certificate.tbs_certificate().validity().not_after.to_unix_duration())
    };
    tls::certificates(text)?.iter().map(|der| end(der)).collect()
}
