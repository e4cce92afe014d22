//! How many batches may run at a time. An overloaded backend halves the number; successes let it grow back by one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Several calls that fail together are one sign of overload, not several.
const SHRINK_INTERVAL: Duration = Duration::from_millis(200);

/// The number of batches that may run in this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Concurrency {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    limit: usize,
    max: usize,
    running: usize,
    successes: usize,
    shrunk_at: Option<Instant>,
}

/// The right to run one batch; dropping it gives the place free.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
}

impl Concurrency {
    /// At most `max` batches at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let state = State { limit: max, max, running: 0, successes: 0, shrunk_at: None };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), freed: Notify::new() }) }
    }

    /// Waits for a place.
    pub async fn slot(&self) -> Slot {
        loop {
            let freed = self.shared.freed.notified();
            {
                let mut state = self.shared.lock();
                if state.running < state.limit {
                    state.running += 1;
                    return Slot { shared: Arc::clone(&self.shared) };
                }
            }
            freed.await;
        }
    }

    /// The present limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.lock().limit
    }

    /// The backend said that it is overloaded.
    pub fn shrink(&self) {
        let mut state = self.shared.lock();
        let now = Instant::now();
        if state.shrunk_at.is_none_or(|at| now.duration_since(at) >= SHRINK_INTERVAL) {
            state.limit = (state.limit / 2).max(1);
            (state.successes, state.shrunk_at) = (0, Some(now));
        }
    }

    /// A call succeeded. As many successes as the limit is raise it by one.
    pub fn succeeded(&self) {
        let mut state = self.shared.lock();
        if state.limit == state.max {
            return;
        }
        state.successes += 1;
        if state.successes >= state.limit {
            (state.limit, state.successes) = (state.limit + 1, 0);
            self.shared.freed.notify_one();
        }
    }
}

impl Shared {
    /// Each critical section leaves the numbers whole, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.running = state.running.saturating_sub(1);
        if state.running < state.limit {
            self.shared.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn overload_halves_the_limit_once_and_successes_bring_it_back() {
        let concurrency = Concurrency::new(8);
        concurrency.shrink();
        concurrency.shrink();
        assert_eq!(concurrency.limit(), 4);
        (0..4).for_each(|_| concurrency.succeeded());
        assert_eq!(concurrency.limit(), 5);
        (0..100).for_each(|_| concurrency.succeeded());
        assert_eq!(concurrency.limit(), 8);
    }

    #[test]
    fn a_place_is_given_only_below_the_limit() {
        let concurrency = Concurrency::new(2);
        let first = concurrency.slot().now_or_never();
        let second = concurrency.slot().now_or_never();
        assert!(first.is_some() && second.is_some());
        assert!(concurrency.slot().now_or_never().is_none());
        drop(first);
        assert!(concurrency.slot().now_or_never().is_some());
    }
}
