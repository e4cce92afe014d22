//! Accepts connections, and gives them slots. Connections that wait for a slot are in one line for each client. The clients take
//! turns, first those whose new connection would not only replace one of their own. When too many wait, the client with the longest
//! line loses its first one. So a client that opens thousands of connections at once delays no other.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::yield_now,
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    closer::Closer,
    lines::Lines,
    slots::{Slot, Slots},
};
use crate::http::peer::{Peer, TrustedProxies};

/// At least so many accepted connections may wait for a slot.
const LEAST_WAITING: usize = 8;
/// Connections that get a slot before other tasks run.
const IN_A_TURN: usize = 16;
/// Connections that are accepted before one gets a slot.
const ACCEPTED_AT_ONCE: usize = 64;
/// Pause after a failed accept. The usual cause is a lack of file descriptors: other connections must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that arrive.
pub(super) struct Arrivals {
    /// A listener of tokio would register each connection with the runtime of the thread that accepts, which does not serve it.
    listener: AsyncFd<TcpListener>,
    slots: Arc<Slots>,
    trusted: TrustedProxies,
    waiting: Lines<(TcpStream, Peer)>,
    closer: Closer,
    /// Connections that may wait. Each is an open file.
    most_waiting: usize,
    /// Connections that wait, as the metric last showed.
    shown: usize,
    /// Slots given in this turn.
    given: usize,
}

/// An accepted connection with its slot. It belongs to no runtime yet.
pub(super) type Arrival = (TcpStream, Peer, Arc<Slot>);

impl Arrivals {
    pub(super) fn new(
        listener: TcpListener,
        slots: Arc<Slots>,
        trusted: TrustedProxies,
        most_waiting: usize,
    ) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "it is unsound only for a type that may close its file, unlike a listener"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        let most_closing = most_waiting / 8;
        let (waiting, closer) = (Lines::default(), Closer::start(most_closing)?);
        let most_waiting = (most_waiting - most_closing).max(LEAST_WAITING);
        Ok(Self { listener, slots, trusted, waiting, closer, most_waiting, shown: 0, given: 0 })
    }

    /// The next connection. It is safe to drop the future before it is done.
    pub(super) async fn next(&mut self) -> Arrival {
        if self.given >= IN_A_TURN {
            self.given = 0;
            yield_now().await;
        }
        loop {
            // The system has one line for all clients, so many are accepted before one of them gets a slot.
            for _ in 0..ACCEPTED_AT_ONCE {
                let accepted = if self.has_room() { accept(&self.listener).now_or_never() } else { None };
                match accepted {
                    Some(accepted) => self.add(accepted).await,
                    None => break,
                }
            }
            self.remove_closed();
            self.show();
            let (next, has_room) = (self.waiting.next(), self.has_room());
            tokio::select! {
                biased;
                slot = self.slots.take(next.unwrap_or_default()), if next.is_some() => {
                    if let Some((stream, peer)) = self.waiting.pop() {
                        self.given += 1;
                        self.show();
                        return (stream, peer, slot);
                    }
                }
                // No slot may be given yet.
                accepted = accept(&self.listener), if has_room || self.waiting.has_long_line() => {
                    self.add(accepted).await;
                    if self.waiting.count() > self.most_waiting
                        && let Some((stream, _)) = self.waiting.shorten()
                    {
                        self.slots.note_not_served();
                        self.closer.close(stream);
                    }
                }
            }
        }
    }

    fn show(&mut self) {
        let waiting = self.waiting.count();
        if waiting != self.shown {
            self.slots.note_waiting(self.shown, waiting);
            self.shown = waiting;
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.count() < self.most_waiting
    }

    /// A connection that its client has closed needs no slot.
    fn remove_closed(&mut self) {
        while self.waiting.first().is_some_and(|(stream, _)| is_closed(stream))
            && let Some((stream, _)) = self.waiting.pop()
        {
            self.closer.close(stream);
        }
    }

    async fn add(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => {
                let peer = Peer(peer.ip());
                let client = self.trusted.client(peer);
                match stream.set_nonblocking(true) {
                    Ok(()) => self.waiting.push(client, !self.slots.only_replaces(client), (stream, peer)),
                    Err(error) => debug!(action = "connection_failed", %error),
                }
            }
            Err(error) => {
                warn!(action = "accept_failed", %error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

async fn accept(listener: &AsyncFd<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    listener.async_io(Interest::READABLE, TcpListener::accept).await
}
