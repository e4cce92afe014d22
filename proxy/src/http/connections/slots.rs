//! The places for open connections. When all are taken, a connection at rest loses its place to a new one; [`table`] says
//! which. A connection that works on a request never does: its client would not learn the outcome.

mod answer;
mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{body::Body, http::header::CONTENT_TYPE, response::Response};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::{
    answer::Answer,
    table::{Rank, Rest, Table},
};
use crate::{
    edge::rate_limit::Client,
    http::budget::{Budget, Share},
    metrics::ConnectionMetrics,
};

pub(in crate::http::connections) use self::table::Begin;

/// Bytes of a request's head that each connection may hold for itself, and what all may hold beyond that.
const SMALL_HEAD: usize = 8 << 10;
const MOST_HEADS: usize = 32 << 20;

/// Connections that have lost their places and are not closed yet: each has a file open still.
const MOST_LEAVING: usize = 32;

/// All places.
pub(super) struct Places {
    table: Mutex<Table>,
    /// A place may have become free, or a connection has come to rest.
    changed: Notify,
    heads: Arc<Budget>,
    metrics: ConnectionMetrics,
}

/// What a connection that waits for a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The whole head of its first request.
    First,
    /// The first byte of another request.
    Next,
    /// The rest of that request's head.
    Head,
}

/// The place of one connection.
pub(super) struct Place {
    places: Arc<Places>,
    /// The number of its holder.
    holder: usize,
    own: Mutex<Own>,
    is_lost: Arc<Notify>,
}

struct Own {
    /// `None` while the connection works on a request. A rank that the table does not know is a lost place.
    rank: Option<Rank>,
    head: Share,
    /// Whether the head of a request has begun to arrive, perhaps before the answer to the one before it.
    is_in_head: bool,
    wait: Wait,
    /// When this wait began.
    since: Instant,
}

/// Permission to read and discard the rest of a body.
pub(super) struct Draining(Arc<Place>);

impl Places {
    pub(super) fn new(most: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        metrics.limit.set(most as f64);
        let (table, heads) = (Mutex::new(Table::new(most)), Budget::new(SMALL_HEAD, MOST_HEADS));
        Arc::new(Self { table, changed: Notify::new(), heads, metrics })
    }

    /// A place for a new connection of this client, as soon as there is one; `None` for a trusted proxy. For one caller at a
    /// time.
    pub(super) async fn take(self: &Arc<Self>, client: Option<Client>) -> Arc<Place> {
        loop {
            if let Some(place) = self.try_take(client) {
                return place;
            }
            self.changed.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>, client: Option<Client>) -> Option<Arc<Place>> {
        let mut table = self.table();
        if table.is_full() {
            if table.leaving() >= MOST_LEAVING {
                return None;
            }
            match table.displace()? {
                Rest::Draining => self.metrics.displaced_draining.increment(1),
                Rest::Waiting => self.metrics.displaced_waiting.increment(1),
                Rest::Streaming => self.metrics.displaced_streaming.increment(1),
            }
        }
        let is_lost = Arc::new(Notify::new());
        let (holder, rank) = table.enter(client, &is_lost);
        let (head, wait, since) = (self.heads.share(), Wait::First, Instant::now());
        let own = Mutex::new(Own { rank: Some(rank), head, is_in_head: false, wait, since });
        self.metrics.open.increment(1);
        Some(Arc::new(Place { places: Arc::clone(self), holder, own, is_lost }))
    }

    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        self.table().open()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The client may send its first request from now on.
    pub(super) fn opened(&self) {
        self.own().since = Instant::now();
    }

    /// What the connection waits for and since when; `None` while it works on a request or streams an answer.
    pub(super) fn waits(&self) -> Option<(Wait, Instant)> {
        let own = self.own();
        let is_waiting = own.rank.is_some_and(|(rest, _)| rest == Rest::Waiting);
        is_waiting.then_some((own.wait, own.since))
    }

    /// Begins a request. After [`Begin::Lost`] nothing may be done for it, since its client would not learn the outcome. A
    /// request that is not `bounded` begins however many of its address are in progress.
    pub(super) fn begin(&self, bounded: bool) -> Begin {
        let mut own = self.own();
        let Some(rank) = own.rank else { return Begin::Now };
        let began = self.places.table().begin(self.holder, rank, bounded);
        if matches!(began, Begin::Now) {
            own.rank = None;
            own.head.clear();
        }
        began
    }

    /// Begins a request as soon as its address may have one more in progress; `false` if the place is lost meanwhile.
    pub(super) async fn begin_later(&self) -> bool {
        self.places.metrics.postponed.increment(1);
        // It waits from now on, not since its last answer.
        self.rest(Rest::Waiting);
        loop {
            match self.begin(true) {
                Begin::Now => return true,
                Begin::Later(turn) => turn.notified().await,
                Begin::Lost => return false,
            }
        }
    }

    /// Waits without working on the request; `false` if the place was given to another connection meanwhile.
    pub(super) async fn wait_until(&self, moment: Instant) -> bool {
        self.rest(Rest::Waiting);
        sleep_until(moment).await;
        matches!(self.begin(false), Begin::Now)
    }

    /// Permission to read and discard the rest of a body, unless the address has too many such bodies already.
    pub(super) fn drain(self: &Arc<Self>) -> Option<Draining> {
        self.places.table().drain(self.holder).then(|| Draining(Arc::clone(self)))
    }

    /// Keeps the place until the answer is sent.
    pub(super) fn hold(self: Arc<Self>, answer: Response) -> Response {
        let is_stream = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
        if is_stream {
            self.rest(Rest::Streaming);
        }
        answer.map(|body| Body::new(Answer { body, place: self }))
    }

    /// Counts what arrives; `false` when all connections together hold too much of requests' heads.
    pub(super) fn receives(&self, bytes: usize) -> bool {
        let mut own = self.own();
        own.rank.is_none_or(|(rest, _)| rest != Rest::Waiting) || own.head.grow(bytes)
    }

    /// Notes whether what has arrived ends within a head.
    pub(super) fn note_head(&self, is_in_head: bool) {
        let mut own = self.own();
        own.is_in_head = is_in_head;
        if is_in_head && own.wait == Wait::Next {
            (own.wait, own.since) = (Wait::Head, Instant::now());
        }
    }

    /// Returns when another connection has been given the place.
    pub(super) async fn lost(&self) {
        self.is_lost.notified().await;
    }

    fn rest(&self, rest: Rest) {
        let mut own = self.own();
        let rank = self.places.table().rest(self.holder, own.rank, rest, &self.is_lost);
        if rank.is_none() {
            return;
        }
        own.rank = rank;
        own.wait = if own.is_in_head { Wait::Head } else { Wait::Next };
        own.since = Instant::now();
        self.places.changed.notify_one();
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.places.table().leave(self.holder, own.rank);
        self.places.metrics.open.decrement(1);
        self.places.changed.notify_one();
    }
}

impl Draining {
    /// The answer is ready. From now on the connection may lose its place.
    pub(super) fn answered(&self) {
        self.0.rest(Rest::Draining);
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.places.table().drained(self.0.holder);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use futures_util::FutureExt as _;

    use super::*;

    fn take(places: &Arc<Places>) -> Option<Arc<Place>> {
        take_from(places, 1)
    }

    fn take_from(places: &Arc<Places>, address: u8) -> Option<Arc<Place>> {
        places.take(Some(Client::of(IpAddr::from([192, 0, 2, address])))).now_or_never()
    }

    fn begins(place: &Place) -> bool {
        matches!(place.begin(true), Begin::Now)
    }

    fn is_lost(place: &Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    fn answer(place: &Arc<Place>, kind: &str) -> Response {
        let mut answer = Response::new(Body::from("x"));
        answer.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
        Arc::clone(place).hold(answer)
    }

    #[test]
    fn the_one_that_waits_the_longest_makes_room() {
        let places = Places::new(2, ConnectionMetrics::noop());
        let (first, second) = (take(&places).unwrap(), take(&places).unwrap());
        // A request later, the first one has waited for less time than the second.
        assert!(begins(&first));
        drop(answer(&first, "application/json"));
        let third = take(&places).unwrap();
        assert!(is_lost(&second) && !is_lost(&first) && !is_lost(&third));
        assert!(!begins(&second), "its request must not be worked on");
        assert!(begins(&third));
        drop(second);
        assert_eq!(places.open(), 2);
    }

    #[test]
    fn a_request_keeps_its_place_until_it_is_answered() {
        let places = Places::new(1, ConnectionMetrics::noop());
        let first = take(&places).unwrap();
        assert!(begins(&first) && begins(&first));
        let body = answer(&first, "application/json");
        assert!(take(&places).is_none());
        drop(body);
        assert!(take(&places).is_some() && is_lost(&first));
        drop(first);
        assert_eq!(places.open(), 0);
    }

    #[test]
    fn streams_make_room_after_those_that_wait() {
        let places = Places::new(2, ConnectionMetrics::noop());
        let (stream, waiting) = (take(&places).unwrap(), take(&places).unwrap());
        assert!(begins(&stream));
        let body = answer(&stream, "text/event-stream");
        let third = take(&places).unwrap();
        assert!(is_lost(&waiting) && !is_lost(&stream));
        assert!(begins(&third) && take(&places).is_some());
        assert!(is_lost(&stream));
        drop((body, stream, waiting));
        assert_eq!(places.open(), 1, "the third one is busy, the fourth is gone");
    }

    #[test]
    fn a_connection_whose_answer_waits_for_the_rest_of_a_body_makes_room_first() {
        let places = Places::new(3, ConnectionMetrics::noop());
        let [waiting, draining, other] = [(); 3].map(|()| take(&places).unwrap());
        assert!(begins(&draining));
        let permit = draining.drain().unwrap();
        permit.answered();
        assert_eq!(draining.waits(), None, "it waits for no request");
        assert!(draining.receives(1 << 30), "a body has another budget");
        assert!(take_from(&places, 2).is_some());
        assert!(is_lost(&draining) && !is_lost(&waiting) && !is_lost(&other));
    }

    #[test]
    fn a_body_that_is_discarded_beside_its_request_keeps_the_place() {
        let places = Places::new(1, ConnectionMetrics::noop());
        let first = take(&places).unwrap();
        assert!(begins(&first));
        drop(first.drain().unwrap());
        assert!(take(&places).is_none());
    }

    #[test]
    fn an_address_at_work_on_all_it_may_keeps_no_other_out() {
        let places = Places::new(4, ConnectionMetrics::noop());
        let all = [(); 4].map(|()| take(&places).unwrap());
        assert_eq!(all.each_ref().map(|place| begins(place)), [true, true, false, false]);
        let other = take_from(&places, 2).unwrap();
        assert!(begins(&other) && is_lost(&all[2]));
        let mut later = std::pin::pin!(all[3].begin_later());
        assert!(later.as_mut().now_or_never().is_none());
        drop(answer(&all[0], "application/json"));
        assert_eq!(later.now_or_never(), Some(true));
    }

    #[test]
    fn those_that_lost_their_places_are_closed_before_too_many_others_come() {
        let places = Places::new(1, ConnectionMetrics::noop());
        let mut all: Vec<_> = (0..=MOST_LEAVING).map(|_| take(&places).unwrap()).collect();
        assert!(take(&places).is_none());
        drop(all.remove(0));
        assert!(take(&places).is_some());
    }

    #[test]
    fn a_request_that_is_given_up_frees_its_place() {
        let places = Places::new(1, ConnectionMetrics::noop());
        let first = take(&places).unwrap();
        assert!(begins(&first));
        drop(first);
        assert_eq!(places.open(), 0);
    }

    #[test]
    fn heads_of_requests_share_a_budget() {
        let places = Places::new(10_000, ConnectionMetrics::noop());
        let all: Vec<_> = (0..2000).map(|_| take(&places).unwrap()).collect();
        assert!(all.iter().all(|place| place.receives(SMALL_HEAD)));
        let large = all.iter().filter(|place| place.receives(32 << 10)).count();
        assert_eq!(large, MOST_HEADS / (32 << 10));
        assert!(!all[1999].receives(32 << 10));
        assert!(begins(&all[0]) && all[0].receives(1 << 30), "a body has another budget");
        assert!(all[1999].receives(32 << 10));
    }
}
