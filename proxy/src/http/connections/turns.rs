//! Turns of clients. The runtime is fair to tasks, not to clients: with a task for each connection, a client that opens a thousand
//! connections at once would be served a thousand times before the next client. So the connections of one client share a few
//! tasks, its lanes. A client that does more than its share is served by other threads, which have a lower
//! priority.

mod lane;
mod share;

use std::{
    collections::HashMap,
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tepal_shared::process::priority;
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::debug;

use self::{
    lane::{Due, Lane, Step},
    share::Share,
};
use crate::http::peer::Client;

/// Connections of a lane that make progress in one turn, if there is only one client. Turns become shorter with each client: a
/// short turn costs more, because the runtime looks for bytes after it.
const IN_A_TURN: usize = 8;
/// A new connection counts as so many steps of its client.
const STEPS_TO_OPEN: usize = 2;
/// With fewer clients, nothing is removed.
const LEAST_REMEMBERED: usize = 64;

/// A connection, from its first byte to its end.
type Connection = BoxFuture<'static, ()>;

/// The threads that serve busy clients and convert large bodies, with a lower priority. They end when this is dropped.
pub(crate) struct BusyThreads(Option<Runtime>);

/// The lanes of all clients.
pub(super) struct Turns {
    clients: Mutex<Clients>,
    /// Clients with lanes.
    count: AtomicUsize,
    /// Lanes of one client. As many as the runtime has threads, so that a single client can use all of them.
    width: usize,
    /// Serves the clients that keep to their share.
    calm: Handle,
    /// Serves the others.
    busy: Handle,
}

/// The clients with lanes, and those that took more than their share before.
#[derive(Default)]
struct Clients {
    lanes: HashMap<Client, Lanes>,
    with_lanes: usize,
    /// When there are so many, those that nothing needs to be remembered of are removed.
    most: usize,
}

/// The lanes of one client; `None` for one without connections.
struct Lanes {
    due: Vec<Option<Arc<Due>>>,
    next: usize,
    share: Arc<Share>,
}

impl BusyThreads {
    /// Starts as many threads as the present runtime has.
    pub(crate) fn start() -> io::Result<Self> {
        let threads = Handle::current().metrics().num_workers();
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name("busy").enable_all().on_thread_start(lower_priority);
        Ok(Self(Some(builder.build()?)))
    }

    /// Where to spawn tasks; the present runtime when the threads have ended.
    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for BusyThreads {
    fn drop(&mut self) {
        // A task must not wait until other threads have ended.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Turns {
    /// Lanes on the present runtime, and on that of the busy threads.
    pub(super) fn new(busy: Handle) -> Arc<Self> {
        let calm = Handle::current();
        let width = calm.metrics().num_workers();
        Arc::new(Self { clients: Mutex::default(), count: AtomicUsize::new(0), width, calm, busy })
    }

    /// Serves a connection of this client; `None` for a trusted proxy, whose connections belong to many clients.
    pub(super) fn spawn(
        self: &Arc<Self>,
        client: Option<Client>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        let Some(client) = client else {
            tokio::spawn(connection);
            return;
        };
        // A panic ends its connection only.
        let connection = AssertUnwindSafe(connection).catch_unwind().map(|_| ()).boxed();
        let mut clients = self.clients();
        let lanes = clients.lanes_of(client, self.width);
        let is_new = !lanes.has_any();
        let number = lanes.next % self.width;
        lanes.next += 1;
        let share = Arc::clone(&lanes.share);
        let due = lanes.due[number].get_or_insert_with(|| {
            let due = Arc::default();
            Lane::new(Arc::clone(self), client, number, share, Arc::clone(&due)).start();
            due
        });
        due.add(Step::Open(connection));
        clients.with_lanes += usize::from(is_new);
        self.count.store(clients.with_lanes, Ordering::Relaxed);
    }

    /// Opens a connection of this client, beside its lanes: it makes room at once for another connection.
    pub(super) fn open(&self, client: Option<Client>, opening: impl Future<Output = ()> + Send + 'static) {
        let mut is_busy = false;
        if let Some(client) = client {
            let share = Arc::clone(&self.clients().lanes_of(client, self.width).share);
            is_busy = share.count(STEPS_TO_OPEN, self.count());
        }
        let threads = if is_busy { &self.busy } else { &self.calm };
        threads.spawn(opening);
    }

    /// Clients with connections.
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Steps of one turn.
    fn steps(&self) -> usize {
        (IN_A_TURN / self.count().max(1)).max(1)
    }

    /// Ends a lane without connections. `false` if a new one has arrived.
    fn end(&self, client: Client, number: usize) -> bool {
        let mut clients = self.clients();
        let Some(lanes) = clients.lanes.get_mut(&client) else { return true };
        if lanes.due[number].as_ref().is_some_and(|due| due.is_any()) {
            return false;
        }
        lanes.due[number] = None;
        if !lanes.has_any() {
            if lanes.share.is_even() {
                clients.lanes.remove(&client);
            }
            clients.with_lanes -= 1;
            self.count.store(clients.with_lanes, Ordering::Relaxed);
        }
        true
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn lanes_of(&mut self, client: Client, width: usize) -> &mut Lanes {
        if self.lanes.len() >= self.most {
            self.lanes.retain(|_, lanes| lanes.has_any() || !lanes.share.is_even());
            self.most = 2 * self.lanes.len() + LEAST_REMEMBERED;
        }
        self.lanes.entry(client).or_insert_with(|| Lanes::new(width))
    }
}

impl Lanes {
    fn new(width: usize) -> Self {
        Self { due: vec![None; width], next: 0, share: Arc::new(Share::new()) }
    }

    fn has_any(&self) -> bool {
        self.due.iter().any(Option::is_some)
    }
}

/// Where the operating system refuses, the busy threads have the priority of the others.
fn lower_priority() {
    if let Err(error) = priority::lower() {
        debug!(action = "priority_not_lowered", %error);
    }
}

#[cfg(test)]
mod tests;
