//! How often one connection gets an answer that is not counted against a limit. What comes sooner waits, and makes room for
//! new connections meanwhile: who watches the service is always answered, and nobody takes the processors with it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::edge::admission::UNCOUNTED;

/// Together at most ten in any second.
const AT_ONCE: u32 = 5;
const INTERVAL: Duration = Duration::from_millis(200);

/// Whether requests for this path are paced, and not counted.
pub(super) fn is_paced(path: &str) -> bool {
    UNCOUNTED.contains(&path)
}

/// When the connection has had its last turn.
#[derive(Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Until when a request for such a path waits; `None` when it need not.
    pub(super) fn turn(&self) -> Option<Instant> {
        self.next(Instant::now())
    }

    fn next(&self, now: Instant) -> Option<Instant> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.unwrap_or(now).max(now);
        *next = Some(due + INTERVAL);
        let turn = due.checked_sub(INTERVAL * (AT_ONCE - 1))?;
        (turn > now).then_some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_ten_turns() {
        let pace = Pace::default();
        let (mut now, mut turns) = (Instant::now(), Vec::new());
        for _ in 0..100 {
            now = pace.next(now).unwrap_or(now);
            turns.push(now);
        }
        let second = Duration::from_secs(1);
        for first in &turns {
            let within = turns.iter().filter(|turn| **turn >= *first && **turn < *first + second).count();
            assert!(within <= 10, "{within}");
        }
        assert!(turns[99] - turns[0] <= 20 * second);
        assert!(is_paced("/livez") && !is_paced("/predict"));
    }
}
