//! The share of one client in the calm threads.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// If all clients take their whole share, a client makes a step in this time for each client. So the calm threads are busy for
/// less than half of the time.
const STEP: Duration = Duration::from_micros(250);
/// Steps that a client may make at once: as many as a few requests take.
const AT_ONCE: u32 = 32;
/// A client that makes no step any more is calm again after the time of this many steps, at the latest.
const MOST_AHEAD: u32 = 2 * AT_ONCE;

/// Whether a client keeps to its share: the generic cell rate algorithm (ITU-T I.371, annex A).
pub(super) struct Share(Mutex<Rate>);

struct Rate {
    /// When a client that makes each step when it is due would have made as many steps.
    even: Instant,
    is_busy: bool,
}

impl Share {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Rate { even: Instant::now(), is_busy: false }))
    }

    /// Adds steps of a client that is one of so many. Returns whether it is busy now. A client that is alone delays nobody, so it
    /// is never busy.
    pub(super) fn count(&self, steps: usize, clients: usize) -> bool {
        self.rate().count_at(Instant::now(), steps, clients)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.rate().is_busy
    }

    /// Whether nothing needs to be remembered of the client.
    pub(super) fn is_even(&self) -> bool {
        self.rate().even <= Instant::now()
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rate {
    fn count_at(&mut self, now: Instant, steps: usize, clients: usize) -> bool {
        let step = STEP * u32::try_from(clients).unwrap_or(u32::MAX).min(1 << 20);
        let time = step * u32::try_from(steps).unwrap_or(u32::MAX).min(MOST_AHEAD);
        self.even = (self.even.max(now) + time).min(now + step * MOST_AHEAD);
        let most = if self.is_busy { time.min(step * AT_ONCE) } else { step * AT_ONCE };
        self.is_busy = clients > 1 && self.even > now + most;
        self.is_busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(now: Instant) -> Rate {
        Rate { even: now, is_busy: false }
    }

    #[test]
    fn a_client_is_busy_while_it_exceeds_its_share() {
        let (start, step) = (Instant::now(), STEP * 10);
        let mut rate = rate(start);
        assert!(!rate.count_at(start, AT_ONCE as usize, 10));
        assert!(rate.count_at(start, 1, 10));
        assert!(rate.count_at(start + step * 16, 1, 10));
        assert!(!rate.count_at(start + step * 40, 1, 10));
    }

    #[test]
    fn a_client_that_was_very_busy_is_calm_soon() {
        let start = Instant::now();
        let mut rate = rate(start);
        assert!((0..1000).all(|_| rate.count_at(start, 100, 2)));
        assert!(!rate.count_at(start + STEP * 2 * MOST_AHEAD, 1, 2));
    }

    #[test]
    fn a_client_that_is_alone_is_never_busy() {
        let now = Instant::now();
        let mut rate = rate(now);
        assert!((0..1000).all(|_| !rate.count_at(now, 8, 1)));
        assert!(rate.count_at(now, 8, 2), "another client has come");
        assert!(!rate.count_at(now, 8, 1), "it has gone");
    }
}
