//! Certificates for tests: a test's own authority and its certificates, as PEM files.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate authority. Only those trust it who are configured to. Clones are the same authority.
#[derive(Clone, Debug)]
pub struct Authority {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
    issued: AtomicUsize,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tepal-certificates-").tempdir();
        let dir = dir.expect("a temporary directory");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.distinguished_name.push(DnType::CommonName, "an authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(dir.path().join("authority.pem"), certificate.pem()).expect("the directory is ours");
        let issuer = Issuer::new(params, key);
        Self { shared: Arc::new(Shared { issuer, dir, issued: AtomicUsize::new(0) }) }
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.shared.dir.path().join("authority.pem")
    }

    /// A certificate for these names and addresses, for servers and clients, that is valid for long.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2100)
    }

    /// The same, valid to the beginning of a year.
    ///
    /// # Panics
    /// When a name cannot be one in a certificate.
    #[must_use]
    pub fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names for a certificate");
        // OpenSSL treats a certificate whose subject is its issuer as self-signed.
        params.distinguished_name.push(DnType::CommonName, "a certificate for tests");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.shared.issuer).expect("a certificate");
        let number = self.shared.issued.fetch_add(1, Ordering::SeqCst);
        let path = |what: &str| self.shared.dir.path().join(format!("{number}-{what}.pem"));
        let pair = Pair { certificate: path("certificate"), key: path("key") };
        fs::write(&pair.certificate, certificate.pem()).expect("the directory is ours");
        fs::write(&pair.key, key.serialize_pem()).expect("the directory is ours");
        pair
    }

    /// A secured connection to a server on 127.0.0.1 whose certificate is from this authority.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn connect(&self, addr: &str) -> TlsStream<TcpStream> {
        let connected = self.try_connect(addr, self.client_config(None)).await;
        connected.unwrap_or_else(|error| panic!("no TLS with {addr}: {error}"))
    }

    /// The same, with a configuration of the client's own.
    ///
    /// # Errors
    /// When the handshake fails, as far as the client knows: one of TLS 1.3 may still be refused by the server.
    ///
    /// # Panics
    /// When no server listens.
    pub async fn try_connect(&self, addr: &str, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(addr).await.expect("a server that listens");
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// TLS of a server that shows this pair and requires client certificates of this authority.
    #[must_use]
    pub(crate) fn acceptor(&self, pair: &Pair) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.certificate()).expect("a certificate");
        roots.add(certificate).expect("an authority");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has all of them")
            .with_client_cert_verifier(verifier.build().expect("an authority"))
            .with_single_cert(vec![pair.der()], key)
            .expect("a certificate with its key");
        TlsAcceptor::from(Arc::new(config))
    }

    /// TLS settings of a client that trusts only this authority and presents this certificate.
    #[must_use]
    pub fn client_config(&self, identity: Option<&Pair>) -> ClientConfig {
        client_config(Some(&self.certificate()), identity)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// The certificate as it goes over the wire.
    ///
    /// # Panics
    /// When the file holds none.
    #[must_use]
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).expect("a certificate")
    }

    /// Replaces other files by these, in one step each, as certbot does.
    ///
    /// # Panics
    /// When the other files cannot be written.
    pub fn replace(&self, other: &Self) {
        for (from, to) in [(&self.certificate, &other.certificate), (&self.key, &other.key)] {
            let fresh = to.with_extension("fresh");
            fs::copy(from, &fresh).expect("the directory is ours");
            fs::rename(fresh, to).expect("the directory is ours");
        }
    }
}

/// What a client needs that trusts the authority in this file, or nobody.
pub(crate) fn client_config(authority: Option<&Path>, identity: Option<&Pair>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    if let Some(path) = authority {
        let certificate = CertificateDer::from_pem_file(path).expect("a certificate");
        roots.add(certificate).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has all of them")
        .with_root_certificates(roots);
    let Some(pair) = identity else { return builder.with_no_client_auth() };
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
    builder.with_client_auth_cert(vec![pair.der()], key).expect("a certificate with its key")
}
