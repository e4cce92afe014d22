//! Client certificates: by which authorities they must be issued, and whether a client must have one.

use std::{
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

use super::{error::CertificateError, settings::ClientCertificates};
use crate::reload::{Files, ReadError};

/// Verifies client certificates.
pub(super) type Verifier = Arc<dyn ClientCertVerifier>;

/// The file of the authorities, and a verifier that trusts them.
pub(super) fn open(settings: &ClientCertificates) -> Result<(Files<1>, Verifier), CertificateError> {
    let (file, contents) = read(settings)?;
    Ok((file, verifier(settings, &contents)?))
}

fn read(settings: &ClientCertificates) -> Result<(Files<1>, Vec<u8>), ReadError> {
    let (file, [text]) = Files::open([settings.authorities.clone()])?;
    Ok((file, text))
}

/// A verifier that trusts the authorities in this text.
pub(super) fn verifier(settings: &ClientCertificates, text: &[u8]) -> Result<Verifier, CertificateError> {
    let roots = tls::roots(text).map_err(CertificateError::Authorities)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(tls::provider()));
    let builder = if settings.is_required { builder } else { builder.allow_unauthenticated() };
    // Roots were found, and no list of revoked certificates is given: nothing else can be wrong.
    builder.build().map_err(|error| CertificateError::Authorities(Unusable::DamagedCertificate(error.into())))
}

/// What the doctor reports about them.
pub(super) fn examine(settings: &ClientCertificates) -> Finding {
    const SUBJECT: &str = "client certificates";
    const FIX: &str = "set TLS_CLIENT_CA_FILE to the certificates of the authorities, PEM";
    let read = read(settings).map_err(CertificateError::from);
    let ends = read.and_then(|(_, text)| {
        verifier(settings, &text)?;
        ends(&text).map_err(CertificateError::Authorities)
    });
    let now = SystemTime::now();
    match ends {
        Err(error) => Finding::wrong(SUBJECT, telemetry::chain(&error), FIX),
        Ok(ends) => match ends.iter().filter(|end| **end > now).min() {
            None => Finding::wrong(SUBJECT, "all authorities have expired: no client can connect", FIX),
            Some(end) => {
                let what = if settings.is_required { "must present one" } else { "may present one" };
                let until = humantime::format_rfc3339_seconds(*end);
                let count = ends.len();
                Finding::ok(SUBJECT, format!("clients {what}; authorities: {count}, the first until {until}"))
            }
        },
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
