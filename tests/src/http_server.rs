//! An HTTP endpoint of one's own, for tests. It speaks HTTP/1.1 on bare sockets, so that it can break an answer at any byte. It records
//! every request, and knows nothing of Tepal.

mod exchange;
mod reply;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use self::exchange::Received;
pub use self::reply::Reply;

use crate::certificates::{Authority, Pair};

/// A running endpoint. Dropping it closes all its connections.
#[derive(Debug)]
pub struct HttpServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What the connections share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The replies to the next requests, except for probes.
    next: VecDeque<Reply>,
    /// The replies to requests with these bodies.
    by_body: HashMap<Vec<u8>, Reply>,
    always: Reply,
    /// The reply to `GET`.
    probes: Reply,
    received: Vec<Received>,
    probe_count: usize,
    /// Requests whose clients went away before the answer.
    abandoned: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpServer {
    /// Starts an endpoint on a free port of 127.0.0.1. It echoes every body as JSON.
    ///
    /// # Panics
    /// When no port can be opened.
    pub async fn start() -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts an endpoint on this address.
    ///
    /// # Panics
    /// When the port cannot be opened.
    pub async fn start_on(addr: SocketAddr) -> Self {
        Self::launch(addr, None).await
    }

    /// Starts an endpoint that shows `pair`, and requires client certificates from `authority`.
    ///
    /// # Panics
    /// When no port can be opened.
    pub async fn start_secured(pair: &Pair, authority: &Authority) -> Self {
        let acceptor = authority.acceptor(pair);
        Self::launch((Ipv4Addr::LOCALHOST, 0).into(), Some(acceptor)).await
    }

    async fn launch(addr: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener =
            TcpListener::bind(addr).await.unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}"));
        let addr = listener.local_addr().expect("it listens");
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&shared)));
        Self { addr, shared, tasks }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The reply to every request from now on, unless something was scripted for it.
    pub fn set_reply(&self, reply: Reply) {
        self.shared.state().always = reply;
    }

    /// Scripts the replies to the next requests, after those scripted before.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.state().next.extend(replies);
    }

    /// The reply to every request with this body.
    pub fn script_for(&self, body: &str, reply: Reply) {
        self.shared.state().by_body.insert(body.into(), reply);
    }

    /// The reply to every `GET`.
    pub fn set_probe_reply(&self, reply: Reply) {
        self.shared.state().probes = reply;
    }

    /// Every request so far that was no `GET`.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.state().received.clone()
    }

    /// Number of `GET` requests so far.
    #[must_use]
    pub fn probe_count(&self) -> usize {
        self.shared.state().probe_count
    }

    /// How many clients went away before the answer.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.shared.state().abandoned
    }

    /// Stops it, and waits until its port is free.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => panic!("cannot accept: {error}"),
        };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            // A broken connection is for the client to notice.
            let _: io::Result<()> = match tls {
                Some(acceptor) => match acceptor.accept(connection).await {
                    Ok(connection) => exchange::serve(connection, &shared).await,
                    Err(error) => Err(error),
                },
                None => exchange::serve(connection, &shared).await,
            };
        });
        while connections.try_join_next().is_some() {}
    }
}
