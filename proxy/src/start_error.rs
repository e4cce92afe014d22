//! Why the proxy cannot start.

use std::{io, net::SocketAddr};

use tepal_shared::queue::error::WrongTopology;

use crate::{edge::access::KeysError, http::certificate::CertificateError};

/// The proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process listens on the port.
    #[error(
        "Port {} on {} is in use; set {setting} to another address or stop what listens there",
        addr.port(),
        addr.ip()
    )]
    PortInUse {
        /// The setting with the address.
        setting: &'static str,
        /// The address.
        addr: SocketAddr,
    },
    /// The address is not one of this machine, or the process may not use it.
    #[error("Cannot listen on {addr}; set {setting} to another address")]
    CannotListen {
        /// The setting with the address.
        setting: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The client library rejects the settings of Redis.
    #[error("the settings of Redis cannot be used")]
    Redis(#[source] tepal_shared::queue::RedisError),
    /// The file of API keys changed after the settings were checked, and is no longer valid.
    #[error("the API keys cannot be used")]
    ApiKeys(#[source] KeysError),
    /// The jobs in Redis have another stored format, or are in more partitions.
    #[error("{}: {}", .0, .0.fix())]
    Refused(WrongTopology),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
    /// The operating system starts no more threads, or gives them nothing to wait for connections with.
    #[error("the threads that serve connections cannot be started")]
    Threads(#[source] io::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}
