//! The certificate of the API: read at the start, checked by the doctor, replaced while connections are open.

mod clients;
mod error;
mod settings;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use metrics::Gauge;
use tepal_shared::process::{
    doctor::Finding,
    telemetry,
    tls::{self, Unusable},
};
use tokio::sync::watch;
use tokio_rustls::rustls::{
    ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tracing::{error, info};
use x509_cert::der::Decode as _;

use self::clients::Verifier;
pub use self::settings::{CertificateFiles, ClientCertificates};
pub(crate) use self::{error::CertificateError, settings::TlsArgs};
use super::protocol::Protocol;
use crate::reload::{Contents, Files, ReadError};

/// How long before its end the doctor reports it. The alert has the same time.
const RENEW_BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A certificate and key that belong together.
#[derive(Clone)]
struct Certificate {
    key: Arc<CertifiedKey>,
    valid_from: SystemTime,
    expires: SystemTime,
}

/// The TLS configurations of new connections. They change with the files.
pub(crate) type Current = watch::Receiver<Configurations>;

/// The TLS configuration of each protocol.
#[derive(Clone)]
pub(crate) struct Configurations {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl Configurations {
    /// That of a protocol, the only one that it offers.
    pub(crate) fn of(&self, protocol: Protocol) -> Arc<ServerConfig> {
        Arc::clone(match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        })
    }
}

/// Replaces the certificate when the files change.
#[derive(Clone)]
pub(crate) struct Renewal {
    files: Files<2>,
    certificate: Certificate,
    clients: Option<Clients>,
    current: watch::Sender<Configurations>,
    expires: Gauge,
}

/// The authorities of client certificates, and their file.
#[derive(Clone)]
struct Clients {
    settings: ClientCertificates,
    file: Files<1>,
    verifier: Verifier,
}

/// Reads the certificate at the start. `expires` is set to its end.
pub(crate) fn open(files: &CertificateFiles, expires: Gauge) -> Result<(Current, Renewal), CertificateError> {
    let (pair, contents) = open_pair(files)?;
    let certificate = Certificate::read(&contents)?;
    certificate.show(&expires);
    let clients = files.clients.clone().map(Clients::open).transpose()?;
    let (current, seen) = watch::channel(configurations(&certificate, clients.as_ref())?);
    Ok((seen, Renewal { files: pair, certificate, clients, current, expires }))
}

fn open_pair(files: &CertificateFiles) -> Result<(Files<2>, Contents<2>), ReadError> {
    Files::open([files.chain.clone(), files.key.clone()])
}

impl Clients {
    fn open(settings: ClientCertificates) -> Result<Self, CertificateError> {
        let (file, verifier) = clients::open(&settings)?;
        Ok(Self { settings, file, verifier })
    }

    /// Waits for a change of the authorities; for ever if there are none.
    async fn changed(clients: &mut Option<Self>) -> Result<Contents<1>, ReadError> {
        match clients {
            Some(clients) => clients.file.changed().await,
            None => std::future::pending().await,
        }
    }
}

impl Renewal {
    /// Runs as long as the service. Open connections keep their certificate. Files that cannot be used change nothing.
    pub(crate) async fn run(mut self) {
        loop {
            let renewed = tokio::select! {
                found = self.files.changed() => found.map_err(CertificateError::from).and_then(|found| self.renew(&found)),
                found = Clients::changed(&mut self.clients) => found.map_err(CertificateError::from).and_then(|found| self.trust(&found)),
            };
            if let Err(error) = renewed {
                let error = telemetry::chain(&error);
                error!(action = "certificate_rejected", error, "the present one is kept");
            }
        }
    }

    fn renew(&mut self, contents: &Contents<2>) -> Result<(), CertificateError> {
        self.certificate = Certificate::read(contents)?;
        self.certificate.show(&self.expires);
        self.exchange()
    }

    fn trust(&mut self, [text]: &Contents<1>) -> Result<(), CertificateError> {
        if let Some(clients) = &mut self.clients {
            clients.verifier = clients::verifier(&clients.settings, text)?;
            info!(action = "client_authorities_loaded");
        }
        self.exchange()
    }

    fn exchange(&self) -> Result<(), CertificateError> {
        self.current.send_replace(configurations(&self.certificate, self.clients.as_ref())?);
        Ok(())
    }
}

impl Certificate {
    fn read([chain, key]: &Contents<2>) -> Result<Self, Unusable> {
        let key = tls::certified_key(chain, key)?;
        let leaf = key.end_entity_cert().map_err(|error| Unusable::DamagedCertificate(error.into()))?;
        let leaf = x509_cert::Certificate::from_der(leaf)
            .map_err(|error| Unusable::DamagedCertificate(error.into()))?;
        let validity = *leaf.tbs_certificate().validity();
        let time = |time: x509_cert::time::Time| UNIX_EPOCH + time.to_unix_duration();
        Ok(Self {
            key: Arc::new(key),
            valid_from: time(validity.not_before),
            expires: time(validity.not_after),
        })
    }

    fn show(&self, expires: &Gauge) {
        let until = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        expires.set(until.as_secs_f64());
        info!(action = "certificate_loaded", expires = %humantime::format_rfc3339_seconds(self.expires));
    }
}

/// The TLS configurations with this certificate. They know no sessions of those before, so nobody can resume a session that a
/// removed authority had vouched for.
fn configurations(
    certificate: &Certificate,
    clients: Option<&Clients>,
) -> Result<Configurations, CertificateError> {
    let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&certificate.key)));
    let builder = ServerConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Setup)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
        None => builder.with_no_client_auth(),
    };
    let config = builder.with_cert_resolver(resolver);
    let of = |protocol: Protocol| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        Arc::new(config)
    };
    Ok(Configurations { http1: of(Protocol::Http1), http2: of(Protocol::Http2) })
}

/// What the doctor reports about the certificate, and about the authorities of clients.
pub(crate) fn examine(files: &CertificateFiles) -> Vec<Finding> {
    let clients = files.clients.as_ref().map(clients::examine);
    std::iter::once(examine_pair(files)).chain(clients).collect()
}

fn examine_pair(files: &CertificateFiles) -> Finding {
    const SUBJECT: &str = "certificate";
    let contents = open_pair(files).map(|(_, contents)| contents).map_err(CertificateError::from);
    let certificate = contents.and_then(|contents| Ok(Certificate::read(&contents)?));
    let now = SystemTime::now();
    match certificate {
        Err(error) => Finding::wrong(
            SUBJECT,
            telemetry::chain(&error),
            "set TLS_CERT_FILE to the certificate with its chain and TLS_KEY_FILE to its private key, both PEM",
        ),
        Ok(Certificate { valid_from, expires, .. }) => {
            let until = humantime::format_rfc3339_seconds(expires);
            if expires <= now {
                Finding::wrong(SUBJECT, format!("it expired {until}"), "renew it")
            } else if valid_from > now {
                Finding::wrong(SUBJECT, "it is not valid yet", "compare the clocks, or issue another one")
            } else if expires < now + RENEW_BEFORE {
                Finding::wrong(SUBJECT, format!("it expires {until}"), "renew it; no restart is needed")
            } else {
                Finding::ok(SUBJECT, format!("it has its key and is valid until {until}"))
            }
        }
    }
}
