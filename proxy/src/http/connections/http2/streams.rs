//! The requests of one connection, each a stream. The connection holds its slot while it has any; its client must read each answer
//! in time, and may not reset streams all the time (CVE-2023-44487).

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_LENGTH,
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{sync::Notify, time::Instant};

use crate::http::connections::{
    limits::ConnectionLimits,
    overdue::{due, overdue},
    slots::{Begin, Slot},
};

/// Streams that a client may reset at once, and in each second after that: the limits of nghttp2. A client resets a stream when its
/// deadline has passed.
const RESETS_AT_ONCE: f64 = 1000.0;
const RESETS_A_SECOND: f64 = 33.0;

/// The streams of a connection.
pub(super) struct Streams {
    slot: Arc<Slot>,
    limits: ConnectionLimits,
    state: Mutex<State>,
    /// The last request has ended.
    rested: Notify,
    /// The client has reset too many streams.
    flooded: Notify,
}

struct State {
    in_progress: usize,
    /// When each unfinished answer made progress last, by the number of its stream.
    answers: HashMap<u64, Instant>,
    last: u64,
    resets: Resets,
}

/// The resets that a client has left.
struct Resets {
    left: f64,
    since: Instant,
}

/// Why a connection ends.
pub(super) enum End {
    /// The service stops.
    Draining,
    /// The client has sent no request for too long.
    Idle,
    /// The client has read nothing of an answer for too long.
    Stalled,
    /// The client has reset too many streams.
    Resets,
}

/// One stream.
pub(super) struct Stream {
    streams: Arc<Streams>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opened,
    Begun,
    /// The answer is sent. It has this number.
    Answered(u64),
}

/// The body of an answer.
struct Answer {
    body: Body,
    stream: Stream,
}

impl Streams {
    pub(super) fn new(slot: Arc<Slot>, limits: ConnectionLimits) -> Arc<Self> {
        let resets = Resets { left: RESETS_AT_ONCE, since: Instant::now() };
        let state = State { in_progress: 0, answers: HashMap::new(), last: 0, resets };
        Arc::new(Self {
            slot,
            limits,
            state: Mutex::new(state),
            rested: Notify::new(),
            flooded: Notify::new(),
        })
    }

    /// A stream that the client has opened.
    pub(super) fn open(self: &Arc<Self>) -> Stream {
        Stream { streams: Arc::clone(self), phase: Phase::Opened }
    }

    /// Returns when the connection must end. Poll it each time after the connection.
    pub(super) async fn end(&self) -> End {
        loop {
            tokio::select! {
                () = self.flooded.notified() => return End::Resets,
                // What the connection waits for has changed, and nothing else would poll it.
                () = self.rested.notified() => {}
                () = overdue(|| self.due(), self.limits.header_timeout) => {
                    return if self.state().in_progress == 0 { End::Idle } else { End::Stalled };
                }
            }
        }
    }

    /// When the client has waited, or let the proxy wait, for long enough.
    fn due(&self) -> Option<Instant> {
        let state = self.state();
        match state.answers.values().min() {
            Some(progress) => Some(*progress + self.limits.write_timeout),
            None if state.in_progress == 0 => due(&self.slot, &self.limits),
            None => None,
        }
    }

    fn try_begin(&self, bounded: bool) -> Begin {
        let mut state = self.state();
        let began = match state.in_progress {
            0 => self.slot.begin(bounded),
            _ => self.slot.begin_another(bounded),
        };
        state.in_progress += usize::from(matches!(began, Begin::Now));
        began
    }

    fn ended(&self, phase: Phase) {
        let mut state = self.state();
        if let Phase::Answered(number) = phase {
            state.answers.remove(&number);
        } else if !state.resets.take(Instant::now()) {
            self.flooded.notify_one();
        }
        if phase == Phase::Opened {
            return;
        }
        state.in_progress -= 1;
        if state.in_progress > 0 {
            return self.slot.end_another();
        }
        self.slot.end();
        self.rested.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resets {
    /// `false` if none is left.
    fn take(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.since).as_secs_f64() * RESETS_A_SECOND;
        self.since = now;
        self.left = (self.left + gained).min(RESETS_AT_ONCE) - 1.0;
        self.left >= 0.0
    }
}

impl Stream {
    /// Waits until the address may have one more request in progress, and begins the request. `false` if the connection has lost
    /// its slot.
    pub(super) async fn begin(&mut self, bounded: bool) -> bool {
        let mut is_first = true;
        loop {
            match self.streams.try_begin(bounded) {
                Begin::Now => {
                    self.phase = Phase::Begun;
                    return true;
                }
                Begin::Later(turn) => {
                    if std::mem::take(&mut is_first) {
                        self.streams.slot.note_postponed();
                    }
                    turn.notified().await;
                }
                Begin::Lost => return false,
            }
        }
    }

    /// The answer. The request ends when it is sent, or cannot be sent.
    pub(super) fn answer(mut self, mut answer: Response) -> Response {
        let mut state = self.streams.state();
        state.last += 1;
        let number = state.last;
        state.answers.insert(number, Instant::now());
        drop(state);
        self.phase = Phase::Answered(number);
        // Answers of gRPC have none.
        answer.headers_mut().remove(CONTENT_LENGTH);
        answer.map(|body| Body::new(Answer { body, stream: self }))
    }

    /// The client takes another part of the answer.
    fn progresses(&self) {
        if let Phase::Answered(number) = self.phase {
            self.streams.state().answers.insert(number, Instant::now());
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.ended(self.phase);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.stream.progresses();
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Unknown: the library would add a `content-length`.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse as _;
    use futures_util::FutureExt as _;
    use tokio::time::timeout;

    use super::*;
    use crate::{http::connections::slots::Slots, metrics::ConnectionMetrics};

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            most: 1,
            requests: 4,
            waiting: 0,
            leaving: 0,
            header_timeout: SHORT,
            idle_timeout: LONG,
            write_timeout: 2 * SHORT,
            shutdown_delay: LONG,
            drain_timeout: LONG,
        }
    }

    async fn streams() -> (Arc<Slots>, Arc<Streams>) {
        let slots = Slots::new(1, 4, 0, ConnectionMetrics::noop());
        let slot = slots.take(None).await;
        (slots, Streams::new(slot, limits()))
    }

    fn begin(stream: &mut Stream) -> Option<bool> {
        stream.begin(true).now_or_never()
    }

    #[tokio::test]
    async fn a_connection_keeps_its_slot_until_its_last_request_has_ended() {
        let (slots, streams) = streams().await;
        let (mut one, mut two) = (streams.open(), streams.open());
        assert_eq!([begin(&mut one), begin(&mut two)], [Some(true); 2]);
        drop(one);
        assert!(slots.take(None).now_or_never().is_none(), "a request is in progress");
        drop(two.answer("answer".into_response()));
        let _other = slots.take(None).now_or_never().unwrap();
        assert_eq!(begin(&mut streams.open()), Some(false), "the slot is lost");
    }

    #[tokio::test]
    async fn an_address_has_at_most_half_of_all_requests_in_progress() {
        let (_slots, streams) = streams().await;
        let mut begun: Vec<_> = (0..3).map(|_| streams.open()).collect();
        assert_eq!(begun.iter_mut().map(begin).collect::<Vec<_>>(), [Some(true), Some(true), None]);
        assert_eq!(streams.open().begin(false).now_or_never(), Some(true), "monitoring does not wait");
        drop(begun.remove(0));
        assert_eq!(begin(&mut begun[1]), Some(true));
    }

    #[tokio::test]
    async fn an_idle_connection_and_one_whose_answer_is_not_read_end() {
        let (_slots, streams) = streams().await;
        assert!(matches!(streams.end().await, End::Idle));

        let mut stream = streams.open();
        assert_eq!(begin(&mut stream), Some(true));
        assert!(timeout(4 * SHORT, streams.end()).await.is_err(), "it works on a request");
        let (answered, answer) = (Instant::now(), stream.answer("answer".into_response()));
        assert!(matches!(streams.end().await, End::Stalled));
        assert!(answered.elapsed() >= 2 * SHORT);
        drop(answer);
        assert!(
            timeout(4 * SHORT, streams.end()).await.is_err(),
            "it may be idle for longer than before its first request"
        );
    }

    #[tokio::test]
    async fn a_client_that_resets_streams_all_the_time_is_disconnected() {
        let (_slots, streams) = streams().await;
        for _ in 0..1000 {
            drop(streams.open());
        }
        assert!(!matches!(streams.end().now_or_never(), Some(End::Resets)));
        for _ in 0..100 {
            drop(streams.open());
        }
        assert!(matches!(streams.end().now_or_never(), Some(End::Resets)));
    }

    #[test]
    fn resets_come_back_with_time() {
        let start = Instant::now();
        let mut resets = Resets { left: RESETS_AT_ONCE, since: start };
        assert!((0..1000).all(|_| resets.take(start)) && !resets.take(start));
        let later = start + Duration::from_secs(2);
        assert!((0..60).all(|_| resets.take(later)) && (0..10).any(|_| !resets.take(later)));
    }
}
