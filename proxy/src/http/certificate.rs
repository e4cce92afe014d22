//! The certificate of the API: read at the start, checked by the doctor, exchanged while connections are open.

mod clients;

use std::{
    path::PathBuf,
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
    self, ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tracing::{error, info};
use x509_cert::der::Decode as _;

pub use self::clients::ClientCertificates;
use self::clients::Verifier;
use crate::reload::{Contents, Files, ReadError};

/// The only protocol inside of TLS.
const ALPN_HTTP: &[u8] = b"http/1.1";
/// The doctor and the alert tell this long before.
const RENEW_BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, the certificate first and then what leads to its authority.
    pub chain: PathBuf,
    /// PEM, not encrypted.
    pub key: PathBuf,
    /// What clients have to show; `None` = nothing.
    pub clients: Option<ClientCertificates>,
}

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// What is in them is no pair.
    #[error("TLS_CERT_FILE and TLS_KEY_FILE cannot be used")]
    Unusable(#[from] Unusable),
    /// The TLS library cannot work, whatever the certificate.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    /// What is in the file of the authorities of clients is no authority.
    #[error("TLS_CLIENT_CA_FILE cannot be used")]
    Authorities(#[source] Unusable),
}

/// A certificate and key that belong together.
#[derive(Clone)]
struct Certificate {
    key: Arc<CertifiedKey>,
    valid_from: SystemTime,
    expires: SystemTime,
}

/// How connections are to be secured now; what a holder sees changes with the files.
pub(crate) type Current = watch::Receiver<Arc<ServerConfig>>;

/// Keeps the certificate that connections get like the files.
#[derive(Clone)]
pub(crate) struct Renewal {
    files: Files<2>,
    certificate: Certificate,
    clients: Option<Clients>,
    current: watch::Sender<Arc<ServerConfig>>,
    expires: Gauge,
}

/// The authorities of clients, and their file.
#[derive(Clone)]
struct Clients {
    settings: ClientCertificates,
    file: Files<1>,
    verifier: Verifier,
}

impl CertificateFiles {
    fn open(&self) -> Result<(Files<2>, Contents<2>), ReadError> {
        Files::open([self.chain.clone(), self.key.clone()])
    }
}

/// Reads the certificate for the first time. `expires` is set to its end.
pub(crate) fn open(files: &CertificateFiles, expires: Gauge) -> Result<(Current, Renewal), CertificateError> {
    let (pair, contents) = files.open()?;
    let certificate = Certificate::read(&contents)?;
    certificate.tell(&expires);
    let clients = files.clients.clone().map(Clients::open).transpose()?;
    let (current, seen) = watch::channel(config(&certificate, clients.as_ref())?);
    Ok((seen, Renewal { files: pair, certificate, clients, current, expires }))
}

impl Clients {
    fn open(settings: ClientCertificates) -> Result<Self, CertificateError> {
        let (file, verifier) = settings.open()?;
        Ok(Self { settings, file, verifier })
    }

    /// Waits for other authorities; for ever if there are to be none.
    async fn changed(clients: &mut Option<Self>) -> Result<Contents<1>, ReadError> {
        match clients {
            Some(clients) => clients.file.changed().await,
            None => std::future::pending().await,
        }
    }
}

impl Renewal {
    /// Runs as long as the service. Connections that are open keep what they have; a pair that cannot be used changes
    /// nothing.
    pub(crate) async fn run(mut self) {
        loop {
            let renewed = tokio::select! {
                found = self.files.changed() => found.map_err(CertificateError::from).and_then(|found| self.renew(&found)),
                found = Clients::changed(&mut self.clients) => found.map_err(CertificateError::from).and_then(|found| self.trust(&found)),
            };
            if let Err(error) = renewed {
                let error = telemetry::chain(&error);
                error!(action = "certificate_rejected", error, "the one in use is kept");
            }
        }
    }

    fn renew(&mut self, contents: &Contents<2>) -> Result<(), CertificateError> {
        self.certificate = Certificate::read(contents)?;
        self.certificate.tell(&self.expires);
        self.exchange()
    }

    fn trust(&mut self, [text]: &Contents<1>) -> Result<(), CertificateError> {
        if let Some(clients) = &mut self.clients {
            clients.verifier = clients.settings.verifier(text)?;
            info!(action = "client_authorities_loaded");
        }
        self.exchange()
    }

    fn exchange(&self) -> Result<(), CertificateError> {
        self.current.send_replace(config(&self.certificate, self.clients.as_ref())?);
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

    fn tell(&self, expires: &Gauge) {
        let until = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        expires.set(until.as_secs_f64());
        info!(action = "certificate_loaded", expires = %humantime::format_rfc3339_seconds(self.expires));
    }
}

/// How connections are secured with this certificate. A new one forgets the sessions of the old one, so nobody resumes a
/// session that an authority of before has vouched for.
fn config(
    certificate: &Certificate,
    clients: Option<&Clients>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&certificate.key)));
    let builder = ServerConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Setup)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    Ok(Arc::new(config))
}

/// What the doctor says of the certificate, and of the authorities of clients.
pub(crate) fn examine(files: &CertificateFiles) -> Vec<Finding> {
    let clients = files.clients.as_ref().map(ClientCertificates::examine);
    std::iter::once(examine_pair(files)).chain(clients).collect()
}

fn examine_pair(files: &CertificateFiles) -> Finding {
    const SUBJECT: &str = "certificate";
    let contents = files.open().map(|(_, contents)| contents).map_err(CertificateError::from);
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
