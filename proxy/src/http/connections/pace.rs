//! The rate of uncounted answers on one connection. A request that comes too early waits; meanwhile its slot can be given to
//! another connection. So monitoring always gets its answer, and no client can use it to exhaust the processors.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Together these allow at most ten answers in any second.
const AT_ONCE: u32 = 5;
const INTERVAL: Duration = Duration::from_millis(200);

/// The time of the connection's next turn.
#[derive(Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// How long a request for such a path must wait; `None` if it need not wait.
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
    }
}
