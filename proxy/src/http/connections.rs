//! Connections: accepts them, secures them, limits them, and lets them finish when the service stops.

mod drain;
mod handshake;
pub(crate) mod heads;
mod overdue;
mod pace;
mod refusals;
mod slots;
mod write_timeout;

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulShutdown, Watcher},
};
use ipnet::IpNet;
use tepal_shared::process::shutdown::{self, Shutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tower::Service as _;
use tracing::{debug, info, warn};

pub(crate) use self::handshake::Handshakes;
use self::{
    overdue::overdue,
    pace::Pace,
    refusals::Refusals,
    slots::{Begin, Place, Places},
    write_timeout::Patience,
};
use crate::{
    config::ConnectionLimits,
    edge::rate_limit::{Peer, RateLimit},
    http::security_headers::SecurityHeaders,
    metrics::ConnectionMetrics,
};

/// Pause after a failed accept, which is mostly a lack of file descriptors: others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What one connection holds of a request that is not understood yet. Longer targets and headers are refused; these are
/// bytes enough to say which of them it was.
const MOST_UNREAD: usize = 80 << 10;

/// What answers, and under which conditions.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) limits: ConnectionLimits,
    /// Bytes of the largest body that is taken.
    pub(crate) largest_body: usize,
    pub(crate) metrics: ConnectionMetrics,
    /// Connections from these networks have no bound for each address.
    pub(crate) trusted: Arc<[IpNet]>,
    /// `None` when no address is limited.
    pub(crate) rate_limit: Option<Arc<RateLimit>>,
    /// `None` for plain HTTP.
    pub(crate) handshakes: Option<Arc<Handshakes>>,
}

impl Server {
    /// Serves until `shutdown` begins, then lets requests in flight finish.
    pub(crate) async fn run(self, listener: TcpListener, shutdown: &Shutdown) {
        let mut http = http1::Builder::new();
        // The library has one limit for slow heads and for idle connections; `overdue` has two.
        http.header_read_timeout(None).max_buf_size(MOST_UNREAD);
        let open = GracefulShutdown::new();
        let (close, closing) = shutdown::channel();
        let places = Places::new(self.limits.most, self.metrics.clone());
        let mut stop = pin!(async {
            shutdown.begun().await;
            info!(action = "draining");
            sleep(self.limits.shutdown_delay).await;
        });
        loop {
            let (stream, peer, place) = tokio::select! {
                accepted = accept(&listener, &places, &self.trusted) => accepted,
                () = &mut stop => break,
            };
            let (server, http, watcher) = (self.clone(), http.clone(), open.watcher());
            tokio::spawn(Connection { server, http, peer, watcher, place }.run(stream, closing.clone()));
        }
        drop(listener);
        close.begin();
        if timeout(self.limits.drain_timeout, open.shutdown()).await.is_err() {
            warn!(action = "drain_timed_out", connections = places.open());
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Places>,
    trusted: &[IpNet],
) -> (TcpStream, Peer, Arc<Place>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and written at once: waiting for more to send would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(action = "nodelay_failed", %error);
                }
                let peer = Peer(peer.ip());
                return (stream, peer, places.take(peer.client(trusted)).await);
            }
            Err(error) => {
                warn!(action = "accept_failed", %error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client's connection.
struct Connection {
    server: Server,
    http: http1::Builder,
    peer: Peer,
    watcher: Watcher,
    place: Arc<Place>,
}

impl Connection {
    /// Secures the connection if it is to be, and answers what comes, as long as it keeps its place. A handshake under
    /// way is given up when the service is `closing`: nothing was asked yet.
    async fn run(self, stream: TcpStream, closing: Shutdown) {
        let place = Arc::clone(&self.place);
        tokio::select! {
            () = self.serve(stream, closing) => {}
            () = place.lost() => debug!(action = "connection_made_room"),
        }
    }

    async fn serve(self, stream: TcpStream, closing: Shutdown) {
        match self.server.handshakes.clone() {
            None => self.answer(stream).await,
            // In a box: what it needs is large, and each connection without it would hold as much.
            Some(handshakes) => Box::pin(self.secure(handshakes, stream, closing)).await,
        }
    }

    async fn secure(self, handshakes: Arc<Handshakes>, stream: TcpStream, closing: Shutdown) {
        if let Some(Some(secured)) = closing.or(handshakes.run(stream)).await {
            self.answer(secured).await;
        }
    }

    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let Self { server, http, peer, watcher, place } = self;
        let headers = SecurityHeaders { is_tls: server.handshakes.is_some() };
        let largest_body = server.largest_body;
        place.opened();
        let stream = Patience::new(stream, Arc::clone(&place), server.limits.write_timeout);
        let overdue = overdue(Arc::clone(&place), server.limits);
        let seen = Arc::clone(&place);
        let pace = Pace::default();
        let service = service_fn(move |request: Request<Incoming>| {
            let (mut request, unread) = drain::lend(request);
            request.extensions_mut().insert(peer);
            let place = Arc::clone(&place);
            // Monitoring does not wait for other requests of its address.
            let is_paced = pace::is_paced(request.uri().path());
            let turn = if is_paced { pace.turn() } else { None };
            let begun = place.begin(!is_paced);
            // The handler does not run before this is polled.
            let answering = server.router.clone().call(request);
            async move {
                let is_kept = match (begun, turn) {
                    (Begin::Now, None) => true,
                    (Begin::Now, Some(turn)) => place.wait_until(turn).await,
                    (Begin::Later(_), _) => Box::pin(place.begin_later()).await,
                    (Begin::Lost, _) => false,
                };
                if !is_kept {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                let Ok(mut answer) = match unread {
                    None => answering.await,
                    // In a box: it is needed rarely, and each request would hold as much.
                    Some(unread) => Box::pin(unread.discard_beside(answering, &place, largest_body)).await,
                };
                headers.add_to(answer.headers_mut());
                Ok::<_, io::Error>(place.hold(answer))
            }
        });
        let account = server.rate_limit.as_ref().and_then(|limit| limit.account_of_peer(peer));
        let stream = TokioIo::new(Refusals::new(stream, seen, headers, account));
        tokio::select! {
            // What the connection waits for is known after it has run.
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
