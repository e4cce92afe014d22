//! Turns of clients. The runtime is fair to tasks, not to clients: with a task for each connection, a client that opens a thousand
//! connections at once would be served a thousand times before the next client. So the connections of one client share a few
//! tasks, its lanes. A lane with more to do than fits into its turn is crowded. Crowded lanes wait for each other; the others do
//! not wait for them.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{FutureExt as _, future::BoxFuture, task::AtomicWaker};
use tokio::{runtime::Handle, sync::Semaphore, task::yield_now};

use crate::http::peer::Client;

/// Connections of a lane that make progress in one turn, if there is only one client. Turns become shorter with each client: a
/// short turn costs more, because the runtime looks for bytes after it.
const IN_A_TURN: usize = 8;

/// A connection, from its first byte to its end.
type Connection = BoxFuture<'static, ()>;

/// The lanes of all clients.
pub(super) struct Turns {
    clients: Mutex<HashMap<Client, Lanes>>,
    count: AtomicUsize,
    /// Lanes of one client. As many as the runtime has threads, so that a single client can use all of them.
    width: usize,
    /// Permits for a turn of a crowded lane, first come, first served. As many as the runtime has threads.
    crowded: Arc<Semaphore>,
}

/// The lanes of one client; `None` for one without connections.
struct Lanes {
    due: Vec<Option<Arc<Due>>>,
    next: usize,
}

/// A task that serves some connections of a client.
struct Lane {
    turns: Arc<Turns>,
    client: Client,
    number: usize,
    /// By number.
    open: Vec<Option<Open>>,
    free: Vec<usize>,
    due: Arc<Due>,
    is_crowded: bool,
}

/// An open connection of a lane.
struct Open {
    connection: Connection,
    wakes: Arc<Wakes>,
    waker: Waker,
}

/// What a lane has to do, in order.
#[derive(Default)]
struct Due {
    steps: Mutex<VecDeque<Step>>,
    lane: AtomicWaker,
}

enum Step {
    Open(Connection),
    /// The connection with this number can make progress.
    Poll(usize),
}

/// Wakes one connection of a lane.
struct Wakes {
    due: Arc<Due>,
    number: usize,
    is_due: AtomicBool,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        let width = Handle::current().metrics().num_workers();
        let (clients, crowded) = (Mutex::default(), Arc::new(Semaphore::new(width)));
        Arc::new(Self { clients, count: AtomicUsize::new(0), width, crowded })
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
        let lanes = clients.entry(client).or_insert_with(|| Lanes::new(self.width));
        let number = lanes.next % self.width;
        lanes.next += 1;
        let due = lanes.due[number].get_or_insert_with(|| {
            let due = Arc::default();
            tokio::spawn(Lane::new(Arc::clone(self), client, number, Arc::clone(&due)).run());
            due
        });
        due.add(Step::Open(connection));
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    /// Steps of one turn.
    fn steps(&self) -> usize {
        (IN_A_TURN / self.count.load(Ordering::Relaxed).max(1)).max(1)
    }

    /// Ends a lane without connections. `false` if a new one has arrived.
    fn end(&self, client: Client, number: usize) -> bool {
        let mut clients = self.clients();
        let Some(lanes) = clients.get_mut(&client) else { return true };
        if lanes.due[number].as_ref().is_some_and(|due| due.is_any()) {
            return false;
        }
        lanes.due[number] = None;
        if lanes.due.iter().all(Option::is_none) {
            clients.remove(&client);
            self.count.store(clients.len(), Ordering::Relaxed);
        }
        true
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Client, Lanes>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn new(width: usize) -> Self {
        Self { due: vec![None; width], next: 0 }
    }
}

impl Lane {
    fn new(turns: Arc<Turns>, client: Client, number: usize, due: Arc<Due>) -> Self {
        Self { turns, client, number, open: Vec::new(), free: Vec::new(), due, is_crowded: false }
    }

    /// Serves the connections until none is left.
    async fn run(mut self) {
        while !self.turns.end(self.client, self.number) {
            self.turn().await;
            while !self.is_empty() {
                self.turn().await;
            }
        }
    }

    /// Serves the connections until they are crowded, or none is left. A crowded lane has one turn with a permit, which it keeps
    /// until the runtime has looked for bytes that have arrived: so other clients need not wait for other crowded lanes.
    async fn turn(&mut self) {
        if !self.is_crowded {
            return poll_fn(|context| {
                self.poll_connections(context);
                if self.is_crowded || self.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        // The semaphore is never closed.
        let _permit = Arc::clone(&self.turns.crowded).acquire_owned().await.ok();
        poll_fn(|context| {
            self.poll_connections(context);
            Poll::Ready(())
        })
        .await;
        yield_now().await;
    }

    /// Lets some connections make progress. The lane is woken when another one can.
    fn poll_connections(&mut self, context: &Context<'_>) {
        self.due.lane.register(context.waker());
        for _ in 0..self.turns.steps() {
            match self.due.next() {
                Some(Step::Open(connection)) => self.open(connection),
                Some(Step::Poll(number)) => self.poll_connection(number),
                None => break,
            }
        }
        self.is_crowded = self.due.is_any();
    }

    fn open(&mut self, connection: Connection) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        let wakes = Arc::new(Wakes { due: Arc::clone(&self.due), number, is_due: AtomicBool::new(true) });
        let waker = Arc::clone(&wakes).into();
        self.open[number] = Some(Open { connection, wakes, waker });
        self.poll_connection(number);
    }

    /// The number may be that of an earlier connection, which is gone.
    fn poll_connection(&mut self, number: usize) {
        let Some(Open { connection, wakes, waker }) = &mut self.open[number] else { return };
        wakes.is_due.store(false, Ordering::Release);
        if connection.poll_unpin(&mut Context::from_waker(waker)).is_ready() {
            self.open[number] = None;
            self.free.push(number);
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.open.len()
    }
}

impl Due {
    fn add(&self, step: Step) {
        self.steps().push_back(step);
        self.lane.wake();
    }

    fn next(&self) -> Option<Step> {
        self.steps().pop_front()
    }

    fn is_any(&self) -> bool {
        !self.steps().is_empty()
    }

    fn steps(&self) -> MutexGuard<'_, VecDeque<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_due.swap(true, Ordering::AcqRel) {
            self.due.add(Step::Poll(self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn client(number: u8) -> Option<Client> {
        Some(Client::of(std::net::IpAddr::from([10, 0, 0, number])))
    }

    /// Waits until no task can go on.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_client_with_many_connections_delays_no_other() {
        let (turns, begun) = (Turns::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..1000 {
            let begun = Arc::clone(&begun);
            turns.spawn(client(1), async move {
                begun.fetch_add(1, Ordering::Relaxed);
            });
        }
        let (before, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let note = (Arc::clone(&begun), Arc::clone(&before), Arc::clone(&served));
        turns.spawn(client(2), async move {
            note.1.store(note.0.load(Ordering::Relaxed), Ordering::Relaxed);
            note.2.notify_one();
        });
        served.notified().await;
        assert!(before.load(Ordering::Relaxed) <= 2 * IN_A_TURN, "{before:?}");
        while begun.load(Ordering::Relaxed) < 1000 {
            tokio::task::yield_now().await;
        }
        settle().await;
        assert!(turns.clients().is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_own_connection() {
        let (turns, go, is_served) =
            (Turns::new(), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (wait, note) = (Arc::clone(&go), Arc::clone(&is_served));
        turns.spawn(client(1), async move {
            wait.notified().await;
            note.store(true, Ordering::Relaxed);
        });
        turns.spawn(client(1), async { std::panic::resume_unwind(Box::new("a defect")) });
        settle().await;
        go.notify_one();
        settle().await;
        assert!(is_served.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_client_that_comes_back_is_served() {
        let turns = Turns::new();
        for _ in 0..3 {
            let served = Arc::new(Notify::new());
            let note = Arc::clone(&served);
            turns.spawn(client(1), async move { note.notify_one() });
            served.notified().await;
            settle().await;
            assert!(turns.clients().is_empty());
        }
    }
}
