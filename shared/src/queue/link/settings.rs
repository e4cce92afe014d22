//! Address of Redis and time limits; explanations of failed connections.

use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
    io::tcp::TcpSettings,
};

use crate::{
    process::tls::{ClientTls, Reason, TlsServer},
    queue::{
        error::StoreError,
        keys::Keys,
        link::topology::{QueueKeys, REPLICA},
    },
};

/// Address of Redis, and time limits.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Address and credentials.
    pub info: ConnectionInfo,
    /// The address without credentials, for logs.
    pub display: String,
    /// Longest wait for the reply to a command that does not block.
    pub response_timeout: Duration,
    /// How long a call may wait for a reconnection, and repeat the command, before it fails.
    pub patience: Duration,
    has_identity: bool,
    pub(super) queue: Option<QueueKeys>,
}

impl ConnectionSettings {
    /// Settings for the Redis at `url` (`redis://[user:password@]host[:port][/db]`, `rediss://` for TLS).
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(url: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let display = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
                if host.contains(':') =>
            {
                format!("[{host}]:{port}")
            }
            address => address.to_string(),
        };
        let (response_timeout, patience) = (Duration::from_secs(2), Duration::from_secs(1));
        Ok(Self { info, display, response_timeout, patience, has_identity: false, queue: None })
    }

    /// Uses these credentials, unless the URL contains some.
    #[must_use]
    pub fn with_missing_credentials(mut self, username: Option<&str>, password: Option<&str>) -> Self {
        let mut settings = self.info.redis_settings().clone();
        if settings.username().is_some() || settings.password().is_some() {
            return self;
        }
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        self.info = self.info.set_redis_settings(settings);
        self
    }

    /// Uses these certificates; for a `rediss://` URL.
    ///
    /// # Errors
    /// When the client library rejects them.
    pub fn with_tls(mut self, tls: &ClientTls) -> Result<Self, RedisError> {
        let client_tls = tls.identity.as_ref().map(|identity| ClientTlsConfig {
            client_cert: identity.chain.clone().into_bytes(),
            client_key: identity.expose_key().to_owned().into_bytes(),
        });
        self.has_identity = client_tls.is_some();
        let root_cert = tls.authorities.clone().map(String::into_bytes);
        let client = Client::build_with_tls(self.info, TlsCertificates { client_tls, root_cert })?;
        self.info = client.get_connection_info().clone();
        Ok(self)
    }

    /// Refuses a queue of another stored format, and a node of a Redis Cluster that does not own all keys of the queue.
    #[must_use]
    pub fn for_queue(mut self, keys: &Keys, partitions: u16) -> Self {
        self.queue = Some(QueueKeys::new(keys, partitions));
        self
    }

    /// Reads the stored format of the queue only where asked, and writes nothing.
    #[must_use]
    pub(crate) fn without_format(mut self) -> Self {
        if let Some(queue) = &mut self.queue {
            queue.has_format = false;
        }
        self
    }

    /// Uses another time limit for replies.
    #[must_use]
    pub fn with_response_timeout(mut self, response_timeout: Duration) -> Self {
        self.response_timeout = response_timeout;
        self
    }

    /// Uses another time limit for calls.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl ConnectionSettings {
    /// Why connecting failed, if TLS or the kind of the server is the cause.
    pub(crate) fn explain(&self, error: &StoreError) -> Option<Reason> {
        if let StoreError::WrongTopology(topology) = error {
            return Some(topology.reason());
        }
        let cause = error.cause()?;
        if cause.kind() == REPLICA {
            let fix =
                "wait until it is promoted, or set REDIS_HOST and REDIS_PORT, or REDIS_URL, to the primary";
            return Some(Reason { what: "Redis is a read-only replica".to_owned(), fix: fix.to_owned() });
        }
        let server = TlsServer { name: "Redis", prefix: "REDIS", has_identity: self.has_identity };
        let is_tls = matches!(self.info.addr(), ConnectionAddr::TcpTls { .. });
        server.explain(cause).or_else(|| (is_tls && is_closed(cause)).then(|| server.explain_closed()))
    }
}

/// Whether Redis closed an open connection.
fn is_closed(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::CertificateError;

    use super::*;

    #[test]
    fn a_failed_handshake_is_explained_although_the_client_library_wraps_it() {
        let settings = ConnectionSettings::new("rediss://h").unwrap();
        let failure = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = RedisError::from(io::Error::new(io::ErrorKind::InvalidData, failure));
        let reason = settings.explain(&error.into()).unwrap();
        assert!(reason.fix.contains("set REDIS_CA_FILE"), "{reason}");
    }
}
