//! Connections: accepts them, secures them, limits them, and drains them when the service stops.

mod accept;
mod arrivals;
mod closer;
mod drain;
mod handshake;
pub(crate) mod heads;
pub(crate) mod limits;
mod lines;
mod overdue;
mod pace;
mod refusals;
mod slots;
mod turns;
mod write_timeout;

use std::{io, net, sync::Arc};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::Watcher};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use tracing::{debug, warn};

pub(crate) use self::{handshake::Handshakes, refusals::RejectHead, turns::BusyThreads};
use self::{
    limits::ConnectionLimits,
    overdue::overdue,
    pace::Pace,
    refusals::Refusals,
    slots::{Begin, Slot, Slots},
    turns::Turns,
    write_timeout::WriteTimeout,
};
use super::{
    peer::{Peer, TrustedProxies},
    security_headers::SecurityHeaders,
};
use crate::metrics::ConnectionMetrics;

/// Bytes that one connection holds of a request whose head is incomplete. Longer targets and headers are rejected; these bytes are
/// enough to see which of them it was.
const MOST_UNREAD: usize = 80 << 10;

/// Serves connections.
pub(crate) struct Server {
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
    /// `None` for plain HTTP.
    pub(crate) handshakes: Option<Arc<Handshakes>>,
}

impl Server {
    /// Serves until `shutdown` begins, then waits for the requests in flight.
    pub(crate) async fn run(
        self,
        listener: TcpListener,
        busy: &BusyThreads,
        shutdown: &CancellationToken,
    ) -> io::Result<()> {
        let slots = Slots::new(self.limits.most, self.limits.leaving, self.metrics.clone());
        let closing = CancellationToken::new();
        let close = closing.clone().drop_guard();
        let accepting = accept::Accepting {
            listener: listener.into_std()?,
            slots: Arc::clone(&slots),
            turns: Turns::new(busy.handle()),
            server: Arc::new(self),
            stop: shutdown.clone(),
            closing,
        };
        let drain_timeout = accepting.server.limits.drain_timeout;
        let open = accepting.start().await?;
        drop(close);
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
    http: http1::Builder,
    turns: Arc<Turns>,
    peer: Peer,
    watcher: Watcher,
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
        turns.spawn(client, until_lost(slot, self.answer(stream)));
    }

    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { server, http, peer, watcher, slot, .. } = self;
        let headers = SecurityHeaders { is_tls: server.handshakes.is_some() };
        let (largest_body, reject) = (server.largest_body, Arc::clone(&server.reject));
        let stream = WriteTimeout::new(stream, Arc::clone(&slot), server.limits);
        let overdue = overdue(Arc::clone(&slot), server.limits);
        let seen = Arc::clone(&slot);
        let pace = Pace::default();
        let service = service_fn(move |request: Request<Incoming>| {
            let (mut request, rest) = drain::drainable(request);
            request.extensions_mut().insert(peer);
            let slot = Arc::clone(&slot);
            // Requests of monitoring do not wait for other requests of their address.
            let is_paced = server.paced.contains(&request.uri().path());
            let turn = if is_paced { pace.turn() } else { None };
            let begun = slot.begin(!is_paced);
            // The handler starts when this is first polled.
            let answering = server.router.clone().call(request);
            async move {
                let is_kept = match (begun, turn) {
                    (Begin::Now, None) => true,
                    (Begin::Now, Some(turn)) => slot.wait_until(turn).await,
                    (Begin::Later(_), _) => Box::pin(slot.begin_later()).await,
                    (Begin::Lost, _) => false,
                };
                if !is_kept {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                let Ok(mut answer) = match rest {
                    None => answering.await,
                    // Boxed: it is needed rarely, and each request would hold as much.
                    Some(rest) => Box::pin(rest.discard_beside(answering, &slot, largest_body)).await,
                };
                headers.add_to(answer.headers_mut());
                Ok::<_, io::Error>(slot.hold(answer))
            }
        });
        let stream = TokioIo::new(Refusals::new(stream, seen, headers, peer, reject));
        tokio::select! {
            // The connection runs first, because it sets what it waits for.
            biased;
            ended = watcher.watch(http.serve_connection(stream, service)) => {
                if let Err(error) = ended {
                    debug!(action = "connection_failed", %error);
                }
            }
            () = overdue => debug!(action = "connection_timed_out"),
        }
    }
}
