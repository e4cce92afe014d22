//! Accepts connections, and gives them slots. Connections that wait for a slot are in one line for each client. The clients take
//! turns, first those without another connection. When too many wait, the client with the longest line loses its first one. So a
//! client that opens thousands of connections at once delays no other.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    net::{self, TcpListener},
    task::yield_now,
    time::sleep,
};
use tracing::{debug, warn};

use super::slots::{Slot, Slots};
use crate::http::peer::{Client, Peer, TrustedProxies};

/// At least so many accepted connections may wait for a slot.
const LEAST_WAITING: usize = 8;
/// Connections that get a slot before other tasks run.
const IN_A_TURN: usize = 16;
/// Pause after a failed accept. The usual cause is a lack of file descriptors: other connections must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that arrive.
pub(super) struct Arrivals {
    listener: TcpListener,
    slots: Arc<Slots>,
    trusted: TrustedProxies,
    waiting: Lines<(TcpStream, Peer)>,
    /// Connections that may wait. Each is an open file.
    most_waiting: usize,
    /// Slots given in this turn.
    given: usize,
}

/// An accepted connection with its slot. It belongs to no runtime yet.
pub(super) type Arrival = (TcpStream, Peer, Arc<Slot>);

/// Items in one line for each client. The clients take turns.
struct Lines<T> {
    lines: HashMap<Option<Client>, VecDeque<T>>,
    /// The clients with items, the next one first.
    order: VecDeque<Option<Client>>,
    count: usize,
}

impl Arrivals {
    pub(super) fn new(
        listener: TcpListener,
        slots: Arc<Slots>,
        trusted: TrustedProxies,
        most_waiting: usize,
    ) -> Self {
        let most_waiting = most_waiting.max(LEAST_WAITING);
        Self { listener, slots, trusted, waiting: Lines::default(), most_waiting, given: 0 }
    }

    /// The next connection. It is safe to drop the future before it is done.
    pub(super) async fn next(&mut self) -> Arrival {
        if self.given >= IN_A_TURN {
            self.given = 0;
            yield_now().await;
        }
        loop {
            // The system has one line for all clients, so it is emptied first.
            while self.has_room()
                && let Some(accepted) = self.listener.accept().now_or_never()
            {
                self.add(accepted).await;
            }
            let (next, has_room) = (self.waiting.next(), self.has_room());
            tokio::select! {
                biased;
                slot = self.slots.take(next.unwrap_or_default()), if next.is_some() => {
                    if let Some((stream, peer)) = self.waiting.pop() {
                        self.given += 1;
                        return (stream, peer, slot);
                    }
                }
                // All slots are in use, and none becomes free yet.
                accepted = self.listener.accept(), if has_room || self.waiting.has_long_line() => {
                    self.add(accepted).await;
                    if self.waiting.count > self.most_waiting && self.waiting.shorten().is_some() {
                        self.slots.note_not_served();
                    }
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.count < self.most_waiting
    }

    async fn add(&mut self, accepted: io::Result<(net::TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => {
                // Answers are small and written at once. Nagle's algorithm would only delay them.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(action = "nodelay_failed", %error);
                }
                let peer = Peer(peer.ip());
                let client = self.trusted.client(peer);
                match stream.into_std() {
                    Ok(stream) => self.waiting.push(client, !self.slots.knows(client), (stream, peer)),
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

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), order: VecDeque::new(), count: 0 }
    }
}

impl<T> Lines<T> {
    /// `client`: `None` for a trusted proxy. A new client is the next one.
    fn push(&mut self, client: Option<Client>, is_new: bool, item: T) {
        let line = self.lines.entry(client).or_default();
        match (line.is_empty(), is_new) {
            (true, true) => self.order.push_front(client),
            (true, false) => self.order.push_back(client),
            (false, _) => {}
        }
        line.push_back(item);
        self.count += 1;
    }

    /// The client of the next item.
    fn next(&self) -> Option<Option<Client>> {
        self.order.front().copied()
    }

    /// Whether a client has several items. Otherwise none can be removed without keeping its client out.
    fn has_long_line(&self) -> bool {
        self.lines.len() < self.count
    }

    /// Removes the first item of the longest line, as a new connection replaces an old one that has a slot.
    fn shorten(&mut self) -> Option<T> {
        let line = self.lines.values_mut().max_by_key(|line| line.len()).filter(|line| line.len() > 1)?;
        let item = line.pop_front();
        self.count -= usize::from(item.is_some());
        item
    }

    fn pop(&mut self) -> Option<T> {
        let client = self.order.pop_front()?;
        let line = self.lines.get_mut(&client)?;
        let item = line.pop_front();
        self.count -= usize::from(item.is_some());
        if line.is_empty() {
            self.lines.remove(&client);
        } else {
            self.order.push_back(client);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns() {
        let client = |number| Some(Client::V4(number));
        let mut lines = Lines::default();
        for (number, item) in [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (3, "e"), (3, "f")] {
            lines.push(client(number), false, item);
        }
        lines.push(client(4), true, "new");
        let order: Vec<_> = std::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(order, ["new", "a", "d", "e", "b", "f", "c"]);
        assert!(!lines.has_long_line() && lines.shorten().is_none());
        assert!(lines.lines.is_empty() && lines.order.is_empty() && lines.count == 0);
        lines.push(None, true, "g");
        assert_eq!((lines.next(), lines.pop(), lines.next()), (Some(None), Some("g"), None));
    }

    #[test]
    fn the_longest_line_is_shortened() {
        let mut lines = Lines::default();
        for (number, item) in [(1, "a"), (2, "b"), (2, "c"), (2, "d"), (3, "e"), (3, "f")] {
            lines.push(Some(Client::V4(number)), false, item);
        }
        assert!(lines.has_long_line());
        assert_eq!(lines.shorten(), Some("b"));
        assert!(lines.shorten().is_some() && lines.shorten().is_some());
        assert!(!lines.has_long_line() && lines.shorten().is_none());
        let order: Vec<_> = std::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(order, ["a", "d", "f"]);
    }
}
