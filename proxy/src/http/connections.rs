//! Connections: accepts them, secures them, limits them, and drains them when the service stops.

mod accept;
mod arrivals;
mod closer;
mod drain;
mod handshake;
pub(crate) mod heads;
mod http1;
mod http2;
pub(crate) mod limits;
mod lines;
mod overdue;
mod pace;
mod refusals;
mod slots;
mod turns;
mod write_timeout;

use std::{io, net, sync::Arc};

use axum::Router;
use futures_util::future::try_join_all;
use hyper_util::server::graceful::Watcher;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub(crate) use self::{handshake::Handshakes, refusals::RejectHead, turns::BusyThreads};
use self::{
    limits::ConnectionLimits,
    slots::{Slot, Slots},
    turns::Turns,
};
use super::{
    peer::{Peer, TrustedProxies},
    protocol::Protocol,
};
use crate::metrics::ConnectionMetrics;

/// Serves the connections of one port.
pub(crate) struct Server {
    /// What they speak.
    pub(crate) protocol: Protocol,
    pub(crate) router: Router,
    pub(crate) limits: ConnectionLimits,
    /// Bytes of the largest valid body.
    pub(crate) largest_body: usize,
    pub(crate) metrics: ConnectionMetrics,
    /// The connections of these proxies are not bounded by address.
    pub(crate) trusted: TrustedProxies,
    pub(crate) reject: Arc<RejectHead>,
    /// Requests for these paths are not counted against a limit, but paced on each connection.
    pub(crate) paced: Arc<[&'static str]>,
    /// `None` without TLS.
    pub(crate) handshakes: Option<Arc<Handshakes>>,
}

/// Serves several ports until `shutdown` begins, then waits for the requests in flight. All ports share the turns of clients.
pub(crate) async fn serve(
    ports: impl IntoIterator<Item = (Server, TcpListener)>,
    busy: &BusyThreads,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let turns = Turns::new(busy.handle());
    let serving =
        ports.into_iter().map(|(server, listener)| server.run(listener, Arc::clone(&turns), shutdown));
    try_join_all(serving).await.map(drop)
}

impl Server {
    async fn run(
        self,
        listener: TcpListener,
        turns: Arc<Turns>,
        shutdown: &CancellationToken,
    ) -> io::Result<()> {
        let ConnectionLimits { most, requests, leaving, .. } = self.limits;
        let slots = Slots::new(most, requests, leaving, self.metrics.clone());
        let (closing, draining) = (CancellationToken::new(), CancellationToken::new());
        let close = closing.clone().drop_guard();
        let accepting = accept::Accepting {
            listener: listener.into_std()?,
            slots: Arc::clone(&slots),
            turns,
            server: Arc::new(self),
            stop: shutdown.clone(),
            closing,
            draining: draining.clone(),
        };
        let drain_timeout = accepting.server.limits.drain_timeout;
        let open = accepting.start().await?;
        drop(close);
        draining.cancel();
        if timeout(drain_timeout, open.shutdown()).await.is_err() {
            warn!(action = "drain_timed_out", connections = slots.open());
        }
        Ok(())
    }
}

/// Does this until the connection's slot is given to another one.
async fn until_lost(slot: Arc<Slot>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = slot.lost() => debug!(action = "connection_made_room"),
    }
}

/// One client's connection.
struct Connection {
    server: Arc<Server>,
    turns: Arc<Turns>,
    peer: Peer,
    /// The service ends when it is dropped. It also ends connections of HTTP/1.1 gracefully.
    watcher: Watcher,
    /// When to end connections of HTTP/2 gracefully.
    draining: CancellationToken,
    slot: Arc<Slot>,
}

impl Connection {
    /// Opens the connection. When the service is `closing`, that is aborted: no request was sent yet. It waits for no turn of its
    /// client, so that it makes room at once for another connection.
    async fn run(self, stream: net::TcpStream, closing: CancellationToken) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return debug!(action = "connection_failed", %error),
        };
        let slot = Arc::clone(&self.slot);
        closing.run_until_cancelled(until_lost(slot, self.open(stream))).await;
    }

    async fn open(self, stream: TcpStream) {
        match self.server.handshakes.clone() {
            None => self.wait_for_byte(stream).await,
            // Boxed: it is large, and each connection without TLS would hold as much.
            Some(handshakes) => Box::pin(self.secure(handshakes, stream)).await,
        }
    }

    /// Waits for the first byte before it sets up HTTP, whose buffers take some 20 KiB: a connection that sends nothing holds
    /// little.
    async fn wait_for_byte(self, stream: TcpStream) {
        self.slot.opened();
        match timeout(self.server.limits.header_timeout, stream.peek(&mut [0])).await {
            // The client has closed it.
            Ok(Ok(0)) => {}
            // HTTP sees an error again when it reads.
            Ok(_) => self.serve(stream),
            Err(_) => debug!(action = "connection_timed_out"),
        }
    }

    async fn secure(self, handshakes: Arc<Handshakes>, stream: TcpStream) {
        if let Some(secured) = handshakes.run(stream).await {
            self.slot.opened();
            self.serve(secured);
        }
    }

    /// Answers the requests of an open connection as long as it keeps its slot, in turn with others.
    fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (turns, slot) = (Arc::clone(&self.turns), Arc::clone(&self.slot));
        let client = self.server.trusted.client(self.peer);
        match self.server.protocol {
            Protocol::Http1 => turns.spawn(client, until_lost(slot, http1::answer(self, stream))),
            Protocol::Http2 => turns.spawn(client, until_lost(slot, http2::answer(self, stream))),
        }
    }
}
