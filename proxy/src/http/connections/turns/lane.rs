//! A lane: a task that serves some connections of a client, in turn with other lanes.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{FutureExt as _, task::AtomicWaker};
use tokio::task::yield_now;

use super::{Connection, Turns, share::Share};
use crate::http::peer::Client;

/// A lane.
pub(super) struct Lane {
    turns: Arc<Turns>,
    client: Client,
    number: usize,
    /// By number.
    open: Vec<Option<Open>>,
    free: Vec<usize>,
    due: Arc<Due>,
    share: Arc<Share>,
    /// Whether busy threads serve it.
    is_busy: bool,
}

/// An open connection of a lane.
struct Open {
    connection: Connection,
    wakes: Arc<Wakes>,
    waker: Waker,
}

/// What a lane has to do, in order.
#[derive(Default)]
pub(super) struct Due {
    steps: Mutex<VecDeque<Step>>,
    lane: AtomicWaker,
}

pub(super) enum Step {
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

/// Why a turn ended.
enum End {
    /// More steps are due.
    More,
    /// The lane has become busy or calm.
    Moves,
    /// No connection is open, and none is to be opened.
    Empty,
}

impl Lane {
    pub(super) fn new(
        turns: Arc<Turns>,
        client: Client,
        number: usize,
        share: Arc<Share>,
        due: Arc<Due>,
    ) -> Self {
        let is_busy = share.is_busy();
        Self { turns, client, number, open: Vec::new(), free: Vec::new(), due, share, is_busy }
    }

    /// Serves the connections on the threads for calm lanes or on those for busy ones.
    pub(super) fn start(self) {
        let threads = if self.is_busy { &self.turns.busy } else { &self.turns.calm };
        threads.clone().spawn(self.run());
    }

    /// Serves the connections until none is left, or until the lane must move.
    async fn run(mut self) {
        loop {
            match poll_fn(|context| self.poll_turn(context)).await {
                // The runtime looks for bytes before the next turn.
                End::More => yield_now().await,
                End::Moves => {
                    self.is_busy = !self.is_busy;
                    return self.start();
                }
                End::Empty if self.turns.end(self.client, self.number) => return,
                End::Empty => {}
            }
        }
    }

    /// Lets some connections make progress. The lane is woken when another one can.
    fn poll_turn(&mut self, context: &Context<'_>) -> Poll<End> {
        self.due.lane.register(context.waker());
        let mut steps = 0;
        while steps < self.turns.steps()
            && let Some(step) = self.due.next()
        {
            match step {
                Step::Open(connection) => self.open(connection),
                Step::Poll(number) => self.poll_connection(number),
            }
            steps += 1;
        }
        let is_busy = self.share.count(steps, self.turns.count());
        let is_any_due = self.due.is_any();
        if self.is_empty() && !is_any_due {
            Poll::Ready(End::Empty)
        } else if is_busy != self.is_busy {
            Poll::Ready(End::Moves)
        } else if is_any_due {
            Poll::Ready(End::More)
        } else {
            Poll::Pending
        }
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
    pub(super) fn add(&self, step: Step) {
        self.steps().push_back(step);
        self.lane.wake();
    }

    pub(super) fn is_any(&self) -> bool {
        !self.steps().is_empty()
    }

    fn next(&self) -> Option<Step> {
        self.steps().pop_front()
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
