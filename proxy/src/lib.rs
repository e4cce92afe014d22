//! The proxy: HTTP in, jobs out. It never calls a model server. A submission is answered as soon as Redis has the job, unless
//! its client asks to wait for the outcome.
//!
//! | module | owns |
//! | --- | --- |
//! | [`routes`] | the whole route table and the order of the middleware: read this first |
//! | [`request`], [`extract`], [`host`], [`json`] | the body of `POST /predict`; how ids, headers and JSON are read |
//! | [`bodies`], [`answer`], [`budget`] | how much memory bodies and answers may hold, one and all together |
//! | [`results`], [`single_flight`] | large results, and reads that several requests share |
//! | [`accept`], [`prefer`], [`follow`] | what form of answer a client wants and how long it waits; following a job |
//! | [`openapi`] | the contract, made from the route table, the errors, the limits and the model |
//! | [`error`], [`short`] | every error answer, and every error status code; how much of a client's text it repeats |
//! | [`observe`], [`metrics`] | request ids, metrics and log lines of requests |
//! | [`certificate`] | the certificate of the API, and its exchange while connections are open |
//! | [`cors`], [`security_headers`] | what browsers are told, and whose pages may use the API |
//! | [`reload`] | files that may change while the proxy runs |
//! | [`admission`] | whether a request is let in |
//! | [`access`], [`rate_limit`], [`cost`] | API keys and what each may do; how many requests a client may make, and as how many one counts |
//! | [`secret`] | the queue's secret, shared by all proxies, and what is sealed with it |
//! | [`probe`] | a background task that keeps what /health, /metadata and the gauges say |
//! | [`doctor`] | checks what the proxy needs, and tells what is wrong |
//! | [`serve`], [`open_files`] | connections: accepts, limits and drains them; how many the operating system lets us have |
//! | [`config`], [`state`] | settings; what all handlers share |
//! | [`tasks`] | the background tasks |
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a failed unwrap is a failed test")
)]

mod accept;
pub mod access;
mod admission;
mod answer;
mod bodies;
mod budget;
mod certificate;
pub mod config;
mod cors;
mod cost;
pub mod doctor;
mod error;
mod extract;
mod follow;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod host;
mod idempotency;
mod json;
mod metrics;
mod observe;
mod open_files;
mod openapi;
mod prefer;
mod probe;
mod quota;
mod rate_limit;
pub mod reload;
mod request;
mod results;
mod routes;
mod secret;
mod security_headers;
mod serve;
mod short;
mod single_flight;
mod state;
mod tasks;

use std::{io, net::SocketAddr, sync::Arc};

use tepal_shared::process::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpSocket};
use tracing::info;

use crate::{
    access::Access,
    config::{Config, ConnectionLimits},
    serve::{Handshakes, Server},
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
    ApiKeys(#[source] access::KeysError),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] certificate::CertificateError),
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
        router: routes::router(Arc::clone(&app), &config),
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
