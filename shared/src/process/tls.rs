//! TLS: reads certificates, keys and trusted authorities, and explains why a handshake failed and how to fix it.
//!
//! The whole program uses one TLS library, rustls, and one provider of cryptography, ring; see deny.toml.

use std::{error::Error, fmt, io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::process::settings::Mistakes;

/// The cryptography of all connections.
#[must_use]
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// Makes the client libraries use [`provider`], too. Call it once, before the first connection.
pub fn install_provider() {
    // It fails if it was called before, which is harmless.
    let _ = provider().install_default();
}

/// A certificate or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The text contains none.
    #[error("it holds no certificate (PEM, as in -----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// One is damaged.
    #[error("it holds a certificate that is damaged")]
    DamagedCertificate(#[source] Box<dyn Error + Send + Sync>),
    /// The text contains no key, or only an encrypted one.
    #[error("it holds no private key (PEM, not encrypted, as in -----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// One is damaged.
    #[error("it holds a private key that is damaged or of an unknown kind")]
    DamagedKey(#[source] Box<dyn Error + Send + Sync>),
    /// The key does not belong to the certificate.
    #[error("the private key is not the one of the certificate")]
    Mismatch,
}

/// Reads the certificates of a PEM text, at least one.
///
/// # Errors
/// When there is none, or one is damaged.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, pem::Error>>();
    let found = found.map_err(|error| Unusable::DamagedCertificate(error.into()))?;
    if found.is_empty() { Err(Unusable::NoCertificate) } else { Ok(found) }
}

/// Reads a certificate chain and its key, both PEM.
///
/// # Errors
/// When one of them cannot be used, or they do not belong together.
pub fn certified_key(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, Unusable> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => Unusable::NoKey,
        error => Unusable::DamagedKey(error.into()),
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Unusable::Mismatch,
        rustls::Error::InvalidCertificate(_) => Unusable::DamagedCertificate(error.into()),
        error => Unusable::DamagedKey(error.into()),
    })
}

/// Client certificate and trusted authorities for connections to another service. PEM texts that have been checked.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// The trusted authorities; `None` = those that browsers trust.
    pub authorities: Option<String>,
    /// The client certificate, for services that require one.
    pub identity: Option<Identity>,
}

impl ClientTls {
    /// The configuration of a client that uses rustls itself.
    ///
    /// # Errors
    /// When rustls refuses a certificate or the key.
    pub fn client_config(&self) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
        let trusted = match &self.authorities {
            Some(authorities) => roots(authorities.as_bytes())?,
            None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted);
        let Some(identity) = &self.identity else { return Ok(config.with_no_client_auth()) };
        let key = PrivateKeyDer::from_pem_slice(identity.expose_key().as_bytes())?;
        Ok(config.with_client_auth_cert(certificates(identity.chain.as_bytes())?, key)?)
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM, the certificate first.
    pub chain: String,
    /// PEM.
    key: SecretString,
}

impl Identity {
    /// The key as text, for libraries that require it in this form.
    #[must_use]
    pub fn expose_key(&self) -> &str {
        self.key.expose_secret()
    }
}

/// The settings that name the files of a [`ClientTls`].
#[derive(Clone, Copy, Debug)]
pub struct ClientFiles<'a> {
    /// Prefix of their names: `REDIS` for `REDIS_CA_FILE`; empty for the keys of model.toml, as in `ca_file`.
    pub prefix: &'a str,
    /// `_CA_FILE`
    pub authorities: Option<&'a str>,
    /// `_CERT_FILE`
    pub certificate: Option<&'a str>,
    /// `_KEY_FILE`
    pub key: Option<&'a str>,
}

impl ClientFiles<'_> {
    /// Names of the settings that are given.
    #[must_use]
    pub fn given(&self) -> Vec<String> {
        let all = [("CA", self.authorities), ("CERT", self.certificate), ("KEY", self.key)];
        let given = all.into_iter().filter(|(_, path)| path.is_some());
        given.map(|(what, _)| setting(self.prefix, what)).collect()
    }

    /// Reads the files. Adds whatever is wrong to `mistakes`.
    pub fn read(&self, mistakes: &mut Mistakes) -> ClientTls {
        let name = |what: &str| setting(self.prefix, what);
        let authorities =
            self.authorities.and_then(|path| read(&name("CA"), path, mistakes)).filter(|text| {
                let usable = roots(text.as_bytes());
                let path = self.authorities.unwrap_or_default();
                usable.map_err(|error| mistakes.add(&name("CA"), explained(path, &error))).is_ok()
            });
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                let chain = read(&name("CERT"), certificate, mistakes);
                let text = read(&name("KEY"), key, mistakes);
                let identity = chain.zip(text).map(|(chain, key)| Identity { chain, key: key.into() });
                identity.filter(|identity| self.is_usable(identity, mistakes))
            }
            (None, None) => None,
            (given, _) => {
                let [have, lack] = if given.is_some() { ["CERT", "KEY"] } else { ["KEY", "CERT"] };
                mistakes.add(&name(lack), format!("must be given with {}: they belong together", name(have)));
                None
            }
        };
        ClientTls { authorities, identity }
    }

    fn is_usable(&self, identity: &Identity, mistakes: &mut Mistakes) -> bool {
        let usable = certified_key(identity.chain.as_bytes(), identity.expose_key().as_bytes());
        let Err(error) = usable else { return true };
        let (what, path) = match error {
            Unusable::NoCertificate | Unusable::DamagedCertificate(_) => ("CERT", self.certificate),
            Unusable::NoKey | Unusable::DamagedKey(_) | Unusable::Mismatch => ("KEY", self.key),
        };
        mistakes.add(&setting(self.prefix, what), explained(path.unwrap_or_default(), &error));
        false
    }
}

/// The name of the setting of a file.
fn setting(prefix: &str, what: &str) -> String {
    match prefix {
        "" => format!("{}_file", what.to_lowercase()),
        prefix => format!("{prefix}_{what}_FILE"),
    }
}

/// Reads the file that a setting names.
fn read(name: &str, path: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = std::fs::read_to_string(path);
    text.map_err(|error| mistakes.add(name, format!("cannot read {path}: {error}"))).ok()
}

fn explained(path: &str, error: &Unusable) -> String {
    format!("{path}: {}", crate::process::telemetry::chain(error))
}

/// Reads the authorities of a PEM text.
///
/// # Errors
/// When there is none, or one is damaged.
pub fn roots(text: &[u8]) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text)? {
        roots.add(certificate).map_err(|error| Unusable::DamagedCertificate(error.into()))?;
    }
    Ok(roots)
}

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// The server of a connection, for explanations.
#[derive(Clone, Copy, Debug)]
pub struct TlsServer {
    /// Its name.
    pub name: &'static str,
    /// Prefix of the names of its settings, see [`ClientFiles::prefix`].
    pub prefix: &'static str,
    /// Whether this program has a client certificate.
    pub has_identity: bool,
}

impl TlsServer {
    /// Why the handshake failed; `None` if TLS is not the cause.
    #[must_use]
    pub fn explain(&self, error: &(dyn Error + 'static)) -> Option<Reason> {
        let causes = causes(error);
        let by_type = causes.iter().find_map(|cause| self.failure(cause.downcast_ref()?));
        // Some libraries keep only the text of an alert.
        by_type.or_else(|| causes.iter().find_map(|cause| self.alert(&cause.to_string())))
    }

    /// Explains a connection that the server closed at the point where it would reject a client certificate. The alert may have been
    /// lost when it closed the connection.
    #[must_use]
    pub fn explain_closed(&self) -> Reason {
        let Self { name, prefix, has_identity } = self;
        if *has_identity {
            let what = format!(
                "{name} closed the connection, perhaps because it does not accept the client certificate"
            );
            return Reason { what, fix: format!("see its log, and {}", setting(prefix, "CERT")) };
        }
        let what = format!("{name} closed the connection, perhaps because it requires a client certificate");
        Reason { what, fix: self.show_certificate() }
    }

    fn show_certificate(&self) -> String {
        format!("set {} and {}", setting(self.prefix, "CERT"), setting(self.prefix, "KEY"))
    }

    fn failure(&self, error: &rustls::Error) -> Option<Reason> {
        let name = self.name;
        let (what, fix) = match error {
            rustls::Error::InvalidCertificate(error) => return Some(self.untrusted(error)),
            rustls::Error::InvalidMessage(_) => {
                ("does not speak TLS at this address", "connect where it does, or without TLS")
            }
            rustls::Error::PeerIncompatible(_) => {
                ("and this program have no version or cipher of TLS in common", "allow TLS 1.2 or 1.3 there")
            }
            _ => return None,
        };
        Some(Reason { what: format!("{name} {what}"), fix: fix.to_owned() })
    }

    fn untrusted(&self, error: &CertificateError) -> Reason {
        use CertificateError as E;
        let (what, fix) = match error {
            E::UnknownIssuer | E::BadSignature => (
                "is not from an authority that is trusted here",
                format!("set {} to the certificate of its authority", setting(self.prefix, "CA")),
            ),
            E::Expired | E::ExpiredContext { .. } => ("has expired", "renew it".to_owned()),
            E::NotValidYet | E::NotValidYetContext { .. } => {
                ("is not valid yet", "compare the clocks of both machines".to_owned())
            }
            E::NotValidForName | E::NotValidForNameContext { .. } => (
                "is for another name",
                "connect with a name that it holds, or issue one that holds this name or address".to_owned(),
            ),
            error => ("cannot be used", format!("issue another one ({error})")),
        };
        Reason { what: format!("the certificate of {} {what}", self.name), fix }
    }

    /// Explains an alert of the server.
    fn alert(&self, text: &str) -> Option<Reason> {
        let (_, said) = text.split_once("received fatal alert: ")?;
        let said = said.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let Self { name, prefix, has_identity } = self;
        let (what, fix) = match said {
            "CertificateRequired" | "HandshakeFailure" | "BadCertificate" if !has_identity => {
                (format!("{name} requires a client certificate"), self.show_certificate())
            }
            "UnknownCA"
            | "BadCertificate"
            | "CertificateUnknown"
            | "CertificateRequired"
            | "CertificateExpired"
            | "CertificateRevoked"
            | "UnsupportedCertificate"
            | "DecryptError"
            | "AccessDenied" => (
                format!("{name} does not accept the client certificate ({said})"),
                format!(
                    "set {} to one that is valid and from an authority that it trusts",
                    setting(prefix, "CERT")
                ),
            ),
            said => (format!("{name} broke off the handshake ({said})"), "see its log".to_owned()),
        };
        Some(Reason { what, fix })
    }
}

/// An error and its causes, including those that libraries wrap without returning them as source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        causes.push(error);
        next = if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            Some(&**shared)
        } else if let Some(error) = error.downcast_ref::<io::Error>() {
            error.get_ref().map(|inner| inner as &(dyn Error + 'static))
        } else {
            error.source()
        };
    }
    causes
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    const REDIS: TlsServer = TlsServer { name: "Redis", prefix: "REDIS", has_identity: false };

    fn explain(server: TlsServer, error: rustls::Error) -> Option<Reason> {
        server.explain(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn each_failure_says_which_setting_or_certificate_to_look_at() {
        let invalid = rustls::Error::InvalidCertificate;
        let alert = rustls::Error::AlertReceived;
        let known = TlsServer { has_identity: true, ..REDIS };
        for (server, error, expected) in [
            (REDIS, invalid(CertificateError::UnknownIssuer), "set REDIS_CA_FILE"),
            (TlsServer { prefix: "", ..REDIS }, invalid(CertificateError::UnknownIssuer), "set ca_file"),
            (REDIS, invalid(CertificateError::Expired), "has expired"),
            (REDIS, invalid(CertificateError::NotValidForName), "another name"),
            (REDIS, invalid(CertificateError::InvalidPurpose), "cannot be used"),
            (REDIS, alert(AlertDescription::CertificateRequired), "set REDIS_CERT_FILE and REDIS_KEY_FILE"),
            (known, alert(AlertDescription::UnknownCA), "does not accept the client certificate (UnknownCA)"),
            (known, alert(AlertDescription::HandshakeFailure), "broke off the handshake (HandshakeFailure)"),
            (
                REDIS,
                rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "not speak TLS",
            ),
        ] {
            let text = explain(server, error).unwrap().to_string();
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(explain(REDIS, rustls::Error::HandshakeNotComplete), None);
        assert_eq!(REDIS.explain(&io::Error::other("gone")), None);
    }

    #[test]
    fn texts_without_certificate_or_key_are_refused() {
        assert!(matches!(certificates(b"hello"), Err(Unusable::NoCertificate)));
        let broken = b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(certificates(broken), Err(Unusable::DamagedCertificate(_))));
    }
}
