//! The slots for open connections. When all are in use, an idle connection loses its slot to a new one; [`table`] decides which.
//! A connection with a request in progress never loses its slot, because its client would not learn the outcome.

mod answer;
mod replacements;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{body::Body, http::header::CONTENT_TYPE, response::Response};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::debug;

use self::{
    answer::Answer,
    replacements::Replacements,
    table::{Rank, Rest, Table},
};
use crate::{
    http::{
        budget::{Budget, Share},
        peer::Client,
    },
    metrics::ConnectionMetrics,
};

pub(super) use self::table::Begin;

/// Bytes of a request's head that each connection may hold, and the bytes that all connections may hold beyond that.
const SMALL_HEAD: usize = 8 << 10;
const MOST_HEADS: usize = 8 << 20;

/// Connections that have lost their slots and are not closed yet. Each still has an open file. Beyond these, only a client without
/// a connection gets a slot, so that it does not wait until connections of others are closed.
const MANY_LEAVING: usize = 24;

/// All slots.
pub(super) struct Slots {
    table: Mutex<Table>,
    replacements: Replacements,
    /// Most connections that have lost their slots.
    most_leaving: usize,
    /// A slot may be free, or a connection is idle.
    changed: Notify,
    heads: Arc<Budget>,
    metrics: ConnectionMetrics,
}

/// What an idle connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The whole head of its first request.
    First,
    /// The first byte of another request.
    Next,
    /// The rest of that request's head.
    Head,
}

/// The slot of one connection.
pub(super) struct Slot {
    slots: Arc<Slots>,
    /// The number of its holder in the table.
    holder: usize,
    own: Mutex<Own>,
    is_lost: Arc<Notify>,
}

struct Own {
    /// `None` while a request is in progress. A rank that is not in the table means that the slot is lost.
    rank: Option<Rank>,
    /// Bytes of the head so far, and the memory for them.
    head_bytes: usize,
    head: Share,
    /// Whether the head of a request has begun to arrive, perhaps before the answer to the previous one.
    is_in_head: bool,
    wait: Wait,
    /// Since when it waits.
    since: Instant,
}

/// Keeps a slot in use until its answer is sent, or cannot be sent.
struct InUse(Arc<Slot>);

/// Permission to read and discard the rest of a body.
pub(super) struct Draining(Arc<Slot>);

impl Slots {
    /// `requests`: most requests in progress; `leaving`: more connections that may have lost their slots.
    pub(super) fn new(most: usize, requests: usize, leaving: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        let most_leaving = MANY_LEAVING + leaving;
        // Each port has slots of its own.
        metrics.limit.increment(most as f64);
        let (table, heads) = (Mutex::new(Table::new(most, requests)), Budget::new(SMALL_HEAD, MOST_HEADS));
        let (replacements, changed) = (Replacements::default(), Notify::new());
        Arc::new(Self { table, replacements, most_leaving, changed, heads, metrics })
    }

    /// Waits for a slot for a new connection of this client; `None` for a trusted proxy. Only one task may wait at a time.
    pub(super) async fn take(self: &Arc<Self>, client: Option<Client>) -> Arc<Slot> {
        loop {
            match self.try_take(client) {
                Ok(slot) => return slot,
                Err(None) => self.changed.notified().await,
                // Either may come first.
                Err(Some(moment)) => _ = timeout_at(moment, self.changed.notified()).await,
            }
        }
    }

    /// Fails with the moment at which to try again; `None` when it depends on other connections.
    fn try_take(self: &Arc<Self>, client: Option<Client>) -> Result<Arc<Slot>, Option<Instant>> {
        let mut table = self.table();
        if table.is_full() {
            if table.leaving() >= if table.knows(client) { MANY_LEAVING } else { self.most_leaving } {
                return Err(None);
            }
            if !table.has_idle() {
                return Err(None);
            }
            if table.only_replaces(client) {
                self.replacements.count(Instant::now()).map_err(Some)?;
            }
            match table.displace().ok_or(None)? {
                Rest::Draining => self.metrics.displaced_draining.increment(1),
                Rest::Waiting => self.metrics.displaced_waiting.increment(1),
                Rest::Streaming => self.metrics.displaced_streaming.increment(1),
            }
        }
        let is_lost = Arc::new(Notify::new());
        let (holder, rank) = table.enter(client, &is_lost);
        let (head, wait, since) = (self.heads.share(), Wait::First, Instant::now());
        let own = Mutex::new(Own { rank: Some(rank), head_bytes: 0, head, is_in_head: false, wait, since });
        self.metrics.open.increment(1);
        Ok(Arc::new(Slot { slots: Arc::clone(self), holder, own, is_lost }))
    }

    /// The number of connections that wait for a slot has changed.
    pub(super) fn note_waiting(&self, before: usize, now: usize) {
        // Each port has its own.
        self.metrics.waiting.increment(now as f64 - before as f64);
    }

    /// A connection was closed while it waited for a slot.
    pub(super) fn note_not_served(&self) {
        debug!(action = "connection_not_served");
        self.metrics.displaced_arriving.increment(1);
    }

    /// Whether a slot for this client would only replace one connection by another.
    pub(super) fn only_replaces(&self, client: Option<Client>) -> bool {
        self.table().only_replaces(client)
    }

    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        self.table().open()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The client may send its first request from now on.
    pub(super) fn opened(&self) {
        self.own().since = Instant::now();
    }

    /// What the connection waits for, and since when; `None` while a request is in progress or an answer is streamed.
    pub(super) fn waits(&self) -> Option<(Wait, Instant)> {
        let own = self.own();
        let is_waiting = own.rank.is_some_and(|(rest, _)| rest == Rest::Waiting);
        is_waiting.then_some((own.wait, own.since))
    }

    /// Begins a request. After [`Begin::Lost`] it must not run, because its client would not learn the outcome. A request that is
    /// not `bounded` begins even if its address has too many in progress.
    pub(super) fn begin(&self, bounded: bool) -> Begin {
        let mut own = self.own();
        let Some(rank) = own.rank else { return Begin::Now };
        let began = self.slots.table().begin(self.holder, rank, bounded);
        if matches!(began, Begin::Now) {
            own.rank = None;
            own.head_bytes = 0;
            own.head.clear();
        }
        began
    }

    /// Begins another request of a connection that has one in progress.
    pub(super) fn begin_another(&self, bounded: bool) -> Begin {
        self.slots.table().begin_another(self.holder, bounded)
    }

    /// Ends a request of a connection that has more in progress.
    pub(super) fn end_another(&self) {
        self.slots.table().end_another(self.holder);
    }

    /// Ends the only request in progress.
    pub(super) fn end(&self) {
        self.rest(Rest::Waiting);
    }

    /// Counts a request that cannot begin yet.
    pub(super) fn note_postponed(&self) {
        self.slots.metrics.postponed.increment(1);
    }

    /// Waits until the address may have one more request in progress, and begins the request. `false` if the slot is lost
    /// meanwhile.
    pub(super) async fn begin_later(&self) -> bool {
        self.note_postponed();
        // It waits since now, not since its last answer.
        self.rest(Rest::Waiting);
        loop {
            match self.begin(true) {
                Begin::Now => return true,
                Begin::Later(turn) => turn.notified().await,
                Begin::Lost => return false,
            }
        }
    }

    /// Waits before it begins the request. `false` if the slot is lost meanwhile.
    pub(super) async fn wait_until(&self, moment: Instant) -> bool {
        self.rest(Rest::Waiting);
        sleep_until(moment).await;
        matches!(self.begin(false), Begin::Now)
    }

    /// Permission to read and discard the rest of a body, unless too many bodies of the address are discarded already.
    pub(super) fn drain(self: &Arc<Self>) -> Option<Draining> {
        self.slots.table().drain(self.holder).then(|| Draining(Arc::clone(self)))
    }

    /// Keeps the slot until the answer is sent.
    pub(super) fn hold(self: Arc<Self>, answer: Response) -> Response {
        let is_stream = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        if is_stream {
            self.rest(Rest::Streaming);
        }
        answer.map(|body| Body::new(Answer { body, _slot: InUse(self) }))
    }

    /// Counts bytes that arrive. `false` if all connections together hold too many bytes of heads. The HTTP library doubles its
    /// buffer when it is full.
    pub(super) fn receives(&self, bytes: usize) -> bool {
        let mut own = self.own();
        if own.rank.is_some_and(|(rest, _)| rest == Rest::Waiting) {
            let total = own.head_bytes + bytes;
            let fits = own.head.grow_to(total.next_power_of_two());
            if fits {
                own.head_bytes = total;
            }
            return fits;
        }
        true
    }

    /// Releases the memory for the head, whose bytes were dropped.
    pub(super) fn drop_head(&self) {
        let mut own = self.own();
        own.head_bytes = 0;
        own.head.clear();
    }

    /// Notes whether the bytes so far end within a head.
    pub(super) fn note_head(&self, is_in_head: bool) {
        let mut own = self.own();
        own.is_in_head = is_in_head;
        if is_in_head && own.wait == Wait::Next {
            (own.wait, own.since) = (Wait::Head, Instant::now());
        }
    }

    /// Returns when the slot is given to another connection.
    pub(super) async fn lost(&self) {
        self.is_lost.notified().await;
    }

    fn rest(&self, rest: Rest) {
        let mut own = self.own();
        let rank = self.slots.table().rest(self.holder, own.rank, rest, &self.is_lost);
        if rank.is_none() {
            return;
        }
        own.rank = rank;
        own.wait = if own.is_in_head { Wait::Head } else { Wait::Next };
        own.since = Instant::now();
        self.slots.changed.notify_one();
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.slots.table().leave(self.holder, own.rank);
        self.slots.metrics.open.decrement(1);
        self.slots.changed.notify_one();
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Draining {
    /// The answer is ready. From now on the connection may lose its slot.
    pub(super) fn answered(&self) {
        self.0.rest(Rest::Draining);
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.slots.table().drained(self.0.holder);
    }
}

#[cfg(test)]
mod tests;
