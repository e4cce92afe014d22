//! A TCP proxy that breaks connections on command, between our services and Redis or a model server.
//!
//! It listens on one address over its whole life and is deterministic: nothing happens by chance, and the
//! only sleeps are the requested faults. [`FaultProxy::hits`] counts the faults that really hit a connection:
//! a test whose fault hit no connection has shown nothing.

mod connection;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often each fault really hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultHits {
    /// Connections accepted, for comparison.
    pub connections: u64,
    /// Connections cut by [`FaultProxy::cut_all`].
    pub cut: u64,
    /// Connections closed at once by [`FaultProxy::refuse`].
    pub refused: u64,
    /// Connections of which [`FaultProxy::half_open`] swallowed bytes.
    pub half_open: u64,
    /// Pieces that [`FaultProxy::delay`] held back.
    pub delayed: u64,
    /// Pieces that [`FaultProxy::drip`] passed on.
    pub dripped: u64,
    /// Replies that arrived from the upstream and were swallowed, with their connections cut.
    pub replies_dropped: u64,
}

impl FaultHits {
    /// Each fault by name, for the history's [`Event::Fault`](crate::history::Event::Fault).
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("connection cut", self.cut),
            ("connection refused", self.refused),
            ("connection half-open", self.half_open),
            ("reply delayed", self.delayed),
            ("bytes dripped", self.dripped),
            ("reply dropped", self.replies_dropped),
        ]
    }
}

/// What happens to bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    HalfOpen,
    Delay(Duration),
    Drip { bytes: usize, pause: Duration },
}

/// Which replies to drop.
#[derive(Debug, Default)]
struct Drops {
    replies: u64,
    /// Requests holding these bytes lose their reply; each pattern once.
    requests: Vec<Vec<u8>>,
    /// Connections whose requests hold these bytes fall silent.
    silencing: Option<Vec<u8>>,
}

/// The proxy. It stops, and its connections are cut, when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Control {
    upstream: Mutex<SocketAddr>,
    mode: Mutex<Mode>,
    drops: Mutex<Drops>,
    hits: Mutex<FaultHits>,
    live: Mutex<HashMap<u64, Live>>,
}

/// An accepted connection: its task, and the way to cut it.
#[derive(Debug)]
struct Live {
    cut: oneshot::Sender<()>,
    /// Returns whether the connection was cut.
    task: JoinHandle<bool>,
}

impl FaultProxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to `upstream`, e.g. `127.0.0.1:6379`.
    ///
    /// # Panics
    /// When `upstream` is no socket address.
    pub async fn start(upstream: &str) -> Self {
        let upstream = Mutex::new(parsed(upstream));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let control = Arc::new(Control {
            upstream,
            mode: Mutex::new(Mode::Pass),
            drops: Mutex::default(),
            hits: Mutex::default(),
            live: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&control)));
        Self { addr, control, accepting }
    }

    /// Where clients connect to: `127.0.0.1:<port>`.
    #[must_use]
    pub fn addr(&self) -> String {
        self.addr.to_string()
    }

    /// The port clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Passes new connections on to this upstream from now on, as an address that moves at a failover does. Open ones stay
    /// where they are.
    ///
    /// # Panics
    /// When `upstream` is no socket address.
    pub fn lead_to(&self, upstream: &str) {
        *self.control.upstream.lock().expect("no panic while held") = parsed(upstream);
    }

    /// Passes everything on. Connections that lost bytes to [`half_open`](Self::half_open) stay dead, as they
    /// would in a network: end them with [`cut_all`](Self::cut_all), or wait until the client closes them.
    pub fn pass(&self) {
        self.set(Mode::Pass);
    }

    /// Accepts new connections and closes them at once. Open ones go on: see [`down`](Self::down).
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
    }

    /// Refuses new connections and cuts the open ones: the upstream looks crashed until [`pass`](Self::pass).
    pub async fn down(&self) -> usize {
        self.refuse();
        self.cut_all().await
    }

    /// Accepts, reads, and never answers; the upstream sees nothing of it. Open connections fall silent both
    /// ways.
    pub fn half_open(&self) {
        self.set(Mode::HalfOpen);
    }

    /// Holds replies back: each piece arrives `delay` late, at most twice that when pieces come close
    /// together.
    pub fn delay(&self, delay: Duration) {
        self.set(Mode::Delay(delay));
    }

    /// Passes at most `bytes_per_piece` bytes on at a time, in both directions, with a pause after each
    /// piece.
    pub fn drip(&self, bytes_per_piece: usize, pause: Duration) {
        self.set(Mode::Drip { bytes: bytes_per_piece.max(1), pause });
    }

    /// Cuts every open connection (the client sees a reset) and returns how many, once all are gone. Requests
    /// already passed on are still carried out by the upstream; new connections are treated by the mode in
    /// force.
    pub async fn cut_all(&self) -> usize {
        let live: Vec<Live> = self.control.live().drain().map(|(_, live)| live).collect();
        let mut tasks = Vec::new();
        for connection in live {
            let _ = connection.cut.send(()); // It fails when the connection has just ended by itself.
            tasks.push(connection.task);
        }
        let mut cut = 0;
        for task in tasks {
            cut += usize::from(task.await.unwrap_or(false));
        }
        cut
    }

    /// [`drop_replies`](Self::drop_replies) with 1.
    pub fn drop_next_reply(&self) {
        self.drop_replies(1);
    }

    /// Swallows the next `count` replies, whichever connections they come on, and cuts those connections: the
    /// upstream has carried the request out, the client does not know. A "reply" is what the proxy reads at
    /// once, so pipelined replies are lost together.
    pub fn drop_replies(&self, count: u64) {
        self.control.drops().replies += count;
    }

    /// Drops the reply to the next request whose bytes hold `pattern` (a command, a script's SHA-1, a job
    /// id); other requests on other connections pass. Give it several times to drop several.
    pub fn drop_reply_to(&self, pattern: impl AsRef<[u8]>) {
        self.control.drops().requests.push(pattern.as_ref().to_vec());
    }

    /// A connection with a request whose bytes hold `pattern` falls silent, as with [`half_open`](Self::half_open): the upstream does
    /// not see that request.
    pub fn silence(&self, pattern: impl AsRef<[u8]>) {
        self.control.drops().silencing = Some(pattern.as_ref().to_vec());
    }

    /// Disarms [`drop_replies`](Self::drop_replies), [`drop_reply_to`](Self::drop_reply_to) and [`silence`](Self::silence).
    pub fn drop_no_replies(&self) {
        *self.control.drops() = Drops::default();
    }

    /// The faults that really hit so far.
    #[must_use]
    pub fn hits(&self) -> FaultHits {
        *self.control.hits.lock().expect("no panic while held")
    }

    fn set(&self, mode: Mode) {
        *self.control.mode.lock().expect("no panic while held") = mode;
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        for live in self.control.live().values() {
            live.task.abort();
        }
    }
}

impl Control {
    fn upstream(&self) -> SocketAddr {
        *self.upstream.lock().expect("no panic while held")
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().expect("no panic while held")
    }

    fn hit(&self, count: impl FnOnce(&mut FaultHits)) {
        count(&mut self.hits.lock().expect("no panic while held"));
    }

    fn drops(&self) -> MutexGuard<'_, Drops> {
        self.drops.lock().expect("no panic while held")
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u64, Live>> {
        self.live.lock().expect("no panic while held")
    }

    /// Whether this reply is to be dropped because replies are dropped in general.
    fn takes_reply(&self) -> bool {
        let mut drops = self.drops();
        let taken = drops.replies > 0;
        drops.replies -= u64::from(taken);
        taken
    }

    /// Whether the reply to this request is to be dropped.
    fn takes_reply_to(&self, request: &[u8]) -> bool {
        let mut drops = self.drops();
        let found = drops.requests.iter().position(|pattern| holds(request, pattern));
        found.map(|index| drops.requests.swap_remove(index)).is_some()
    }

    /// Whether this request silences its connection.
    fn is_silenced_by(&self, request: &[u8]) -> bool {
        self.drops().silencing.as_ref().is_some_and(|pattern| holds(request, pattern))
    }
}

fn holds(request: &[u8], pattern: &[u8]) -> bool {
    request.windows(pattern.len().max(1)).any(|bytes| bytes == pattern)
}

fn parsed(upstream: &str) -> SocketAddr {
    upstream.parse().unwrap_or_else(|error| panic!("upstream {upstream:?}: {error}"))
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    for id in 0.. {
        let Ok((client, _)) = listener.accept().await else { continue };
        control.hit(|hits| hits.connections += 1);
        if control.mode() == Mode::Refuse {
            control.hit(|hits| hits.refused += 1);
            let _ = client.set_zero_linger();
            continue;
        }
        let (cut, cut_off) = oneshot::channel();
        let connection = connection::run(client, Arc::clone(&control), cut_off);
        let forget = Arc::clone(&control);
        let mut live = control.live(); // Held over the spawn: the task takes itself out when it ends.
        let task = tokio::spawn(async move {
            let was_cut = connection.await;
            forget.live().remove(&id);
            was_cut
        });
        live.insert(id, Live { cut, task });
    }
}
