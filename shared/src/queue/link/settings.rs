//! Address of Redis and time limits; explanations of failed connections.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates, io::tcp::TcpSettings,
};

use crate::{
    process::tls::{ClientTls, Reason, TlsServer},
    queue::{
        error::StoreError,
        keys::Keys,
        link::{
            place::{self, NodeAddress, Place, UrlError},
            role::REPLICA,
            sentinel::{SentinelGroup, Sentinels},
        },
    },
};

/// The queue that a connection is for.
#[derive(Clone, Debug)]
pub(super) struct QueueKeys {
    pub(super) partitions: u16,
    /// Whether the stored format is checked.
    pub(super) has_format: bool,
    pub(super) keys: Keys,
}

/// Address of Redis, and time limits.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// An address and the credentials. With Sentinels or a cluster, the address is only the first of several.
    pub info: ConnectionInfo,
    /// How Redis is operated.
    pub(crate) place: Place,
    /// The credentials for Sentinels.
    sentinel: RedisConnectionInfo,
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
    /// Settings for the Redis at `url`; see [`UrlError::Form`] for its forms.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let (place, info) = place::parse(url)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let list =
            |nodes: &[NodeAddress]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let display = match &place {
            Place::Standalone => match info.addr() {
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                    NodeAddress { host: host.clone(), port: *port }.to_string()
                }
                address => address.to_string(),
            },
            Place::Sentinel { sentinels, name } => format!("{name} of Sentinels {}", list(sentinels)),
            Place::Cluster { nodes } => format!("cluster {}", list(nodes)),
        };
        let (response_timeout, patience) = (Duration::from_secs(2), Duration::from_secs(1));
        let sentinel = RedisConnectionInfo::default();
        Ok(Self {
            info,
            place,
            sentinel,
            display,
            response_timeout,
            patience,
            has_identity: false,
            queue: None,
        })
    }

    /// Whether it is a Redis Cluster, in which the keys have other names.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.place, Place::Cluster { .. })
    }

    /// Uses these credentials for Sentinels.
    #[must_use]
    pub fn with_sentinel_credentials(mut self, username: Option<&str>, password: Option<&str>) -> Self {
        if let Some(username) = username {
            self.sentinel = self.sentinel.set_username(username);
        }
        if let Some(password) = password {
            self.sentinel = self.sentinel.set_password(password);
        }
        self
    }

    /// The Sentinels, if there are any.
    pub(super) fn sentinels(&self) -> Option<Sentinels> {
        let Place::Sentinel { sentinels, name } = &self.place else { return None };
        let addresses = sentinels.iter().map(|address| self.of_sentinel(address)).collect();
        Some(Sentinels {
            addresses,
            name: name.clone(),
            turn: Arc::default(),
            replacing_since: Arc::default(),
        })
    }

    /// What the Sentinels know of the group, if there are any and one knows it.
    pub(crate) async fn sentinel_group(&self) -> Option<SentinelGroup> {
        self.sentinels()?.group().await
    }

    /// The same for one server: a node of the cluster, or the primary that Sentinels named.
    pub(super) fn of_node(&self, address: &NodeAddress) -> Self {
        Self { info: self.at(address), display: address.to_string(), ..self.clone() }
    }

    /// How to connect to a Sentinel.
    fn of_sentinel(&self, address: &NodeAddress) -> ConnectionInfo {
        self.at(address).set_redis_settings(self.sentinel.clone())
    }

    fn at(&self, NodeAddress { host, port }: &NodeAddress) -> ConnectionInfo {
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) => ConnectionAddr::Tcp(host.clone(), *port),
            other => other.clone(),
        };
        self.info.clone().set_addr(address)
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

    /// Connects to the primaries of this queue, and refuses a queue of another stored format.
    #[must_use]
    pub fn for_queue(mut self, keys: &Keys, partitions: u16) -> Self {
        self.queue = Some(QueueKeys { partitions, has_format: true, keys: keys.clone() });
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
