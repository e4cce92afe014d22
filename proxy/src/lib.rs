//! The proxy: HTTP and gRPC in, jobs out. It never calls a model server. It answers a submission as soon as Redis holds the job, unless
//! the client asks to wait for the outcome.
//!
//! | module | owns |
//! | --- | --- |
//! | [`http`] | bytes: connections, certificate, limits, bodies, headers; knows no route |
//! | [`edge`] | what every request passes: request id, access, rate limit, CORS |
//! | [`jobs`] | accepting, following and reading jobs; knows no route |
//! | [`fronts`] | the APIs, and the table of their routes: read [`fronts::rest`] first |
//! | [`probe`] | a background task that reads the state of Redis and the workers once a second |
//! | [`config`] | the list of all settings |
//! | [`error`] | every error of the API, its code and its status |
//! | [`metrics`] | every metric |
//! | [`state`], [`snapshot`], [`tasks`] | what all handlers share; what the probe saw last; the background tasks |
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
mod small_pages;
mod snapshot;
mod start_error;
mod state;
mod tasks;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::start_error::StartError;
use self::{
    config::Config,
    edge::{access::Access, unreadable},
    fronts::Api,
    http::{
        certificate::{self, Current},
        connections::{self, BusyThreads, Handshakes, RejectHead, Server, limits::ConnectionLimits},
        conversions::Conversions,
        open_files::{self, Room},
        protocol::Protocol,
    },
    state::App,
};

/// The listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// That of the API over HTTP.
    pub http: TcpListener,
    /// That of the API over gRPC; `None` without it.
    pub grpc: Option<TcpListener>,
}

/// Opens the listening sockets. Call it in a runtime.
///
/// # Errors
/// When an address is in use, or cannot be used.
pub fn listen(config: &Config) -> Result<Listeners, StartError> {
    let http = bind("LISTEN_ADDR", config.listen_addr)?;
    let grpc = config.grpc.map(|grpc| bind("GRPC_LISTEN_ADDR", grpc.listen_addr)).transpose()?;
    Ok(Listeners { http, grpc })
}

/// Opens a listening socket for the address of this setting. Call it in a runtime.
///
/// # Errors
/// When the address is in use, or cannot be used.
pub fn bind(setting: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    open_socket(addr).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { setting, addr },
        _ => StartError::CannotListen { setting, addr, source },
    })
}

/// Connections that may wait to be accepted. The operating system has its own limit (on Linux `net.core.somaxconn`, 4096).
const BACKLOG: u32 = 65_535;

/// Like `TcpListener::bind`, but with a larger backlog. A burst of clients fills its backlog of 128 (mio 1.2): then the system
/// drops the handshakes of other clients, which try again only after a second.
fn open_socket(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted proxy gets its port although connections of the old process linger. On Windows the option has another meaning.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    // Answers are small and written at once. Nagle's algorithm would only delay them. The accepted connections inherit it.
    socket.set_nodelay(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` begins and the requests in flight are answered. Redis need not be reachable: until it is, requests
/// that need it are answered with 503.
///
/// # Errors
/// When the proxy cannot start. A running proxy survives every failure of Redis.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    small_pages::prefer();
    let (snapshots, snapshot) = tokio::sync::watch::channel(Arc::default());
    let keys = config.api_keys_file.as_deref().map(Access::open).transpose().map_err(StartError::ApiKeys)?;
    let (access, keys_file) = keys.unzip();
    let busy = BusyThreads::start().map_err(StartError::Threads)?;
    let conversions = Conversions::new(busy.handle());
    let app = Arc::new(App::new(&config, access, snapshot, conversions, shutdown.clone())?);
    let files = config.certificate.as_ref();
    let opened = files.map(|files| certificate::open(files, app.metrics.tls.expires.clone())).transpose()?;
    let (current, renewal) = opened.unzip();
    let ports = ports(&app, &config, current.as_ref(), listeners);
    let follower = config.own_models.clone().followed(Arc::clone(&app.models), Arc::clone(&app.metrics));
    let _tasks = tasks::start(&app, snapshots, tasks::Followed { models: follower, keys_file, renewal });
    for (server, listener) in &ports {
        announce(&app, server, listener);
    }
    let queue = app.store.queue();
    tokio::select! {
        outcome = connections::serve(ports, &busy, &shutdown) => outcome.map_err(StartError::Threads)?,
        refused = queue.refused() => return Err(StartError::Refused(refused)),
    }
    info!(action = "proxy_stopped");
    Ok(())
}

fn announce(app: &App, server: &Server, listener: &TcpListener) {
    let Ok(address) = listener.local_addr() else { return };
    let scheme = match (server.protocol, server.handshakes.is_some()) {
        (Protocol::Http1, false) => "http",
        (Protocol::Http1, true) => "https",
        (Protocol::Http2, false) => "grpc",
        (Protocol::Http2, true) => "grpcs",
    };
    info!(action = "listening", %address, scheme, redis = app.store.queue().redis().address());
}

/// What serves each listening socket. They share the open files that connections may use.
fn ports(
    app: &Arc<App>,
    config: &Config,
    certificate: Option<&Current>,
    listeners: Listeners,
) -> Vec<(Server, TcpListener)> {
    let calls = config.grpc.map_or(0, |grpc| grpc.most_connections);
    let all = config.connections.most + calls;
    let room = open_files::make_room(all);
    let limits = |most: usize| {
        let Room { connections: most, waiting, leaving } = room.part(most, all);
        ConnectionLimits { most, requests: most, waiting, leaving, ..config.connections }
    };
    let http = (limits(config.connections.most), fronts::api(Arc::clone(app), config), Protocol::Http1);
    let mut ports = vec![(server(app, config, certificate, http), listeners.http)];
    if let Some(listener) = listeners.grpc {
        // A connection has many calls at a time, so the calls are as many as the requests over HTTP.
        let limits = ConnectionLimits { requests: config.connections.most, ..limits(calls) };
        let grpc = (limits, fronts::grpc_api(Arc::clone(app)), Protocol::Http2);
        ports.push((server(app, config, certificate, grpc), listener));
    }
    ports
}

fn server(
    app: &Arc<App>,
    config: &Config,
    certificate: Option<&Current>,
    (limits, api, protocol): (ConnectionLimits, Api, Protocol),
) -> Server {
    let handshakes = certificate.map(|current| {
        let (current, metrics) = (current.clone(), app.metrics.tls.clone());
        Arc::new(Handshakes { current, protocol, metrics, timeout: limits.header_timeout })
    });
    let rate_limit = app.admission.rate_limit.clone();
    let reject: Arc<RejectHead> =
        Arc::new(move |peer, error| unreadable::reject(rate_limit.as_ref(), peer, error));
    Server {
        protocol,
        router: api.router,
        limits,
        largest_body: config.body.max_bytes,
        metrics: app.metrics.connections.clone(),
        trusted: config.trusted_proxies.clone(),
        reject,
        paced: api.open_paths,
        handshakes,
    }
}
