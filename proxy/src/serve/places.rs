//! The places for open connections. When all are taken, the connection that has waited for a request the longest makes
//! room for a new one, so that whoever opens connections and asks for nothing keeps nobody out. After those come streams
//! of events: their clients come back and go on where they were. A connection that works on a request is never touched.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    budget::{Budget, Share},
    metrics::ConnectionMetrics,
};

/// Bytes of a request's head that each connection may hold for itself, and what all may hold beyond that.
const SMALL_HEAD: usize = 8 << 10;
const MOST_HEADS: usize = 32 << 20;

/// Connections that have lost their places and are not closed yet: each has a file open still.
const MOST_LEAVING: usize = 32;

/// All places.
pub(super) struct Places {
    most: usize,
    state: Mutex<State>,
    /// A place may have become free, or a connection has come to rest.
    changed: Notify,
    heads: Arc<Budget>,
    metrics: ConnectionMetrics,
}

#[derive(Default)]
struct State {
    /// Connections that work on a request.
    busy: usize,
    /// The others, in the order in which they make room.
    resting: BTreeMap<Rank, Arc<Notify>>,
    /// Connections that lost their places and are not closed yet.
    leaving: usize,
    last: u64,
}

/// What a connection does that does not work on a request, and since when, as a number.
type Rank = (Rest, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rest {
    /// It is between requests, or in the middle of a request's head.
    Waiting,
    /// It tells of a job's changes.
    Streaming,
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
    own: Mutex<Own>,
    is_lost: Arc<Notify>,
}

struct Own {
    /// `None` while the connection works on a request. A rank that is not among the resting ones is a lost place.
    rank: Option<Rank>,
    head: Share,
    /// Whether the head of a request has begun to arrive, perhaps before the answer to the one before it.
    is_in_head: bool,
    wait: Wait,
    /// When this wait began.
    since: Instant,
}

impl Places {
    pub(super) fn new(most: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        metrics.limit.set(most as f64);
        let heads = Budget::new(SMALL_HEAD, MOST_HEADS);
        Arc::new(Self { most, state: Mutex::default(), changed: Notify::new(), heads, metrics })
    }

    /// A place for a new connection, as soon as there is one. For one caller at a time.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Place> {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            self.changed.notified().await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut state = self.state();
        if state.open() >= self.most {
            if state.leaving >= MOST_LEAVING {
                return None;
            }
            let ((rest, _), lost) = state.resting.pop_first()?;
            match rest {
                Rest::Waiting => self.metrics.displaced_waiting.increment(1),
                Rest::Streaming => self.metrics.displaced_streaming.increment(1),
            }
            state.leaving += 1;
            lost.notify_one();
        }
        let is_lost = Arc::new(Notify::new());
        let rank = Some(state.rest(Rest::Waiting, &is_lost));
        let (head, wait, since) = (self.heads.share(), Wait::First, Instant::now());
        let own = Mutex::new(Own { rank, head, is_in_head: false, wait, since });
        self.metrics.open.increment(1);
        Some(Arc::new(Place { places: Arc::clone(self), own, is_lost }))
    }

    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        self.state().open()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&self) -> usize {
        self.busy + self.resting.len()
    }

    fn rest(&mut self, rest: Rest, is_lost: &Arc<Notify>) -> Rank {
        self.last += 1;
        let rank = (rest, self.last);
        self.resting.insert(rank, Arc::clone(is_lost));
        rank
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

    /// A request begins. `false` if the place was given to another connection: then the request must not be worked on,
    /// since nobody could be told its outcome.
    pub(super) fn begin(&self) -> bool {
        let mut own = self.own();
        let Some(rank) = own.rank else { return true };
        let mut state = self.places.state();
        let is_kept = state.resting.remove(&rank).is_some();
        if is_kept {
            state.busy += 1;
            own.rank = None;
            own.head.clear();
        }
        is_kept
    }

    /// Waits without working on the request; `false` if the place was given to another connection meanwhile.
    pub(super) async fn wait_until(&self, moment: Instant) -> bool {
        self.rest(Rest::Waiting);
        sleep_until(moment).await;
        self.begin()
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
        own.rank.is_none_or(|(rest, _)| rest == Rest::Streaming) || own.head.grow(bytes)
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
        let mut state = self.places.state();
        match own.rank {
            None => state.busy -= 1,
            Some(rank) if state.resting.remove(&rank).is_some() => {}
            Some(_) => return,
        }
        own.rank = Some(state.rest(rest, &self.is_lost));
        drop(state);
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
        let mut state = self.places.state();
        match own.rank {
            None => state.busy -= 1,
            Some(rank) if state.resting.remove(&rank).is_some() => {}
            Some(_) => state.leaving -= 1,
        }
        drop(state);
        self.places.metrics.open.decrement(1);
        self.places.changed.notify_one();
    }
}

/// The body of an answer. When it is sent, or cannot be, the connection waits for its next request.
struct Answer {
    body: Body,
    place: Arc<Place>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.rest(Rest::Waiting);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn take(places: &Arc<Places>) -> Option<Arc<Place>> {
        places.take().now_or_never()
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
        assert!(first.begin());
        drop(answer(&first, "application/json"));
        let third = take(&places).unwrap();
        assert!(is_lost(&second) && !is_lost(&first) && !is_lost(&third));
        assert!(!second.begin(), "its request must not be worked on");
        assert!(third.begin());
        drop(second);
        assert_eq!(places.open(), 2);
    }

    #[test]
    fn a_request_keeps_its_place_until_it_is_answered() {
        let places = Places::new(1, ConnectionMetrics::noop());
        let first = take(&places).unwrap();
        assert!(first.begin() && first.begin());
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
        assert!(stream.begin());
        let body = answer(&stream, "text/event-stream");
        let third = take(&places).unwrap();
        assert!(is_lost(&waiting) && !is_lost(&stream));
        assert!(third.begin() && take(&places).is_some());
        assert!(is_lost(&stream));
        drop((body, stream, waiting));
        assert_eq!(places.open(), 1, "the third one is busy, the fourth is gone");
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
        assert!(first.begin());
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
        assert!(all[0].begin() && all[0].receives(1 << 30), "a body has another budget");
        assert!(all[1999].receives(32 << 10));
    }
}
