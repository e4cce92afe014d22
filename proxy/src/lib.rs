//! The proxy: HTTP in, jobs out. It never calls a model server. A submission is answered as soon as Redis has the job, unless
//! its client asks to wait for the outcome.
//!
//! | module | owns |
//! | --- | --- |
//! | [`http`] | bytes: connections, certificate, limits, bodies, headers; knows no route |
//! | [`edge`] | what every request passes: request id, access, rate limit, CORS |
//! | [`jobs`] | accepting, following and reading jobs; knows no route |
//! | [`fronts`] | the APIs: [`fronts::rest`] has the route table, read it first |
//! | [`probe`] | a background task that reads the state of Redis and the workers once a second |
//! | [`config`] | the list of all settings |
//! | [`error`] | every error of the API, its code and its status |
//! | [`metrics`] | every metric |
//! | [`state`], [`tasks`] | what all handlers share; the background tasks |
//! | [`secret`] | the queue's secret, and the keys derived from it |
//! | [`reload`] | files that change while the proxy runs |
//! | [`doctor`] | `tepal-proxy doctor` |
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a failed unwrap is a failed test")
)]

pub mod config;
pub mod doctor;
mod edge;
mod error;
mod fronts;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod http;
mod jobs;
mod metrics;
mod probe;
pub mod reload;
mod secret;
mod state;
mod tasks;

use std::{io, net::SocketAddr, sync::Arc};

use tepal_shared::process::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpSocket};
use tracing::info;

use crate::{
    config::{Config, ConnectionLimits},
    edge::access::{Access, KeysError},
    fronts::rest,
    http::{
        certificate::{self, CertificateError},
        connections::{Handshakes, Server},
        open_files,
    },
    state::App,
};

/// The proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process listens there.
    #[error(
        "Port {} on {} is in use; set LISTEN_ADDR to another address or stop what listens there",
        .0.port(),
        .0.ip()
    )]
    PortInUse(SocketAddr),
    /// The address is not one of this machine, or the process may not use it.
    #[error("Cannot listen on {addr}; set LISTEN_ADDR to another address")]
    CannotListen {
        /// Which address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client library rejects the settings of Redis.
    #[error("the settings of Redis cannot be used")]
    Redis(#[source] tepal_shared::queue::RedisError),
    /// The API keys changed since the settings were checked, and cannot be used any more.
    #[error("the API keys cannot be used")]
    ApiKeys(#[source] KeysError),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Opens the listening socket.
///
/// # Errors
/// When the address is taken or cannot be used.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, StartError> {
    listen(addr).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse(addr),
        _ => StartError::CannotListen { addr, source },
    })
}

/// Clients whose connections may wait to be accepted; the system has a limit of its own (on Linux `net.core.somaxconn`, 4096).
const BACKLOG: u32 = 65_535;

/// As `TcpListener::bind`, whose backlog of 128 (mio 1.2) a burst of clients fills: the system then drops the handshakes of all others,
/// who try again after a second.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted proxy gets its port although connections of the old one linger. On Windows the option means something else.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` begins and the requests in flight are answered. Redis need not be reachable: requests that
/// need it are answered with 503 until it is.
///
/// # Errors
/// When it cannot start. Once it runs, it outlives every failure of Redis.
pub async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<(), StartError> {
    let (snapshots, snapshot) = tokio::sync::watch::channel(Arc::default());
    let keys = config.api_keys_file.as_deref().map(Access::open).transpose().map_err(StartError::ApiKeys)?;
    let (access, keys_file) = keys.unzip();
    let app = Arc::new(App::new(&config, access, snapshot, shutdown.clone())?);
    let files = config.certificate.as_ref();
    let opened = files.map(|files| certificate::open(files, app.metrics.tls.expires.clone())).transpose()?;
    let (current, renewal) = opened.unzip();
    let server = Server {
        limits: ConnectionLimits {
            most: open_files::make_room(config.connections.most),
            ..config.connections
        },
        largest_body: config.body.max_bytes,
        metrics: app.metrics.connections.clone(),
        trusted: Arc::clone(&config.trusted_proxies),
        rate_limit: app.rate_limit.clone(),
        handshakes: current.map(|current| {
            let (metrics, timeout) = (app.metrics.tls.clone(), config.connections.header_timeout);
            Arc::new(Handshakes { current, metrics, timeout })
        }),
        router: rest::router(Arc::clone(&app), &config),
    };
    let _tasks = tasks::start(&app, snapshots, keys_file, renewal);
    if let Ok(address) = listener.local_addr() {
        let scheme = if server.handshakes.is_some() { "https" } else { "http" };
        info!(action = "listening", %address, scheme, redis = app.store.redis().address());
    }
    server.run(listener, &shutdown).await;
    info!(action = "proxy_stopped");
    Ok(())
}
