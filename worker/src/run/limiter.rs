//! The adaptive limiter: how many batches may run at a time. An overload of the backend halves the number and causes a
//! pause. Successes raise the number again, slowly, because only a refusal shows the limit of a backend.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tepal_shared::process::retry::Backoff;
use tokio::{sync::Notify, time::Instant};

use crate::metrics;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Successes for each slot before another slot is added.
const SUCCESSES_PER_PLACE: usize = 8;

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
    /// Slots that are taken. A consumer takes one before it claims jobs.
    given: usize,
    /// Taken slots in which a batch runs.
    running: usize,
    successes: usize,
    /// Grows with each overload.
    epoch: Epoch,
    /// No call starts before this.
    resume_at: Option<Instant>,
    backoff: Backoff,
}

/// When a call started, counted in overloads. Calls of one epoch that fail together are one overload, not several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

/// A slot: the right to run one batch. Dropping it frees the slot.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    is_running: bool,
    /// False while it waits for another slot.
    is_given: bool,
}

impl Concurrency {
    /// At most `max` batches at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let (epoch, resume_at) = (Epoch(0), None);
        let state = State { limit: max, max, given: 0, running: 0, successes: 0, epoch, resume_at, backoff };
        state.tell();
        Self { shared: Arc::new(Shared { state: Mutex::new(state), freed: Notify::new() }) }
    }

    /// Waits for a free slot, and for the end of the pause after an overload.
    pub async fn slot(&self) -> Slot {
        loop {
            let freed = self.shared.freed.notified();
            self.pause().await;
            {
                let mut state = self.shared.lock();
                if state.given < state.limit {
                    state.given += 1;
                    return Slot { shared: Arc::clone(&self.shared), is_running: false, is_given: true };
                }
            }
            freed.await;
        }
    }

    /// Waits for the end of the pause after an overload. A call that starts then belongs to the returned epoch.
    pub async fn pause(&self) -> Epoch {
        loop {
            let pause = {
                let state = self.shared.lock();
                match state.pause_left() {
                    None => return state.epoch,
                    Some(pause) => pause,
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The current limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.lock().limit
    }

    /// The backend reported an overload to a call that started in this epoch.
    pub fn shrink(&self, began: Epoch) {
        let mut state = self.shared.lock();
        if began == state.epoch {
            state.limit = (state.limit.min(state.running) / 2).max(1);
            (state.successes, state.epoch) = (0, Epoch(began.0 + 1));
            state.resume_at = Some(Instant::now() + state.backoff.next_pause());
            state.tell();
        }
    }

    /// A call succeeded.
    pub fn succeeded(&self) {
        let mut state = self.shared.lock();
        state.backoff.reset();
        if state.limit == state.max {
            return;
        }
        state.successes += 1;
        if state.successes >= state.limit * SUCCESSES_PER_PLACE {
            (state.limit, state.successes) = (state.limit + 1, 0);
            state.tell();
            self.shared.freed.notify_one();
        }
    }
}

impl Slot {
    /// The batch starts.
    pub fn run(&mut self) {
        if !std::mem::replace(&mut self.is_running, true) {
            let mut state = self.shared.lock();
            state.running += 1;
            state.tell();
        }
    }

    /// Frees the slot and waits for another one: after an overload fewer batches may run.
    pub async fn wait_again(&mut self) {
        self.give_free();
        let concurrency = Concurrency { shared: Arc::clone(&self.shared) };
        *self = concurrency.slot().await;
        self.run();
    }

    fn give_free(&mut self) {
        if !std::mem::take(&mut self.is_given) {
            return;
        }
        let mut state = self.shared.lock();
        state.given = state.given.saturating_sub(1);
        if std::mem::take(&mut self.is_running) {
            state.running = state.running.saturating_sub(1);
            state.tell();
        }
        if state.given < state.limit {
            self.shared.freed.notify_one();
        }
    }
}

impl State {
    fn tell(&self) {
        metrics::batches(self.running, self.limit);
    }

    fn pause_left(&self) -> Option<Duration> {
        let left = self.resume_at?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Shared {
    /// Each critical section leaves the numbers consistent, so a panic elsewhere does not break them.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_free();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// With `running` of `max` slots taken.
    fn busy(max: usize, running: usize) -> (Concurrency, Vec<Slot>) {
        let concurrency = Concurrency::new(max);
        let mut slots: Vec<_> = (0..running).filter_map(|_| concurrency.slot().now_or_never()).collect();
        slots.iter_mut().for_each(Slot::run);
        (concurrency, slots)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_fail_together_halve_the_limit_once() {
        let (concurrency, _slots) = busy(8, 8);
        let began = concurrency.pause().await;
        (0..6).for_each(|_| concurrency.shrink(began));
        assert_eq!(concurrency.limit(), 4);
        let began = concurrency.pause().await;
        concurrency.shrink(began);
        assert_eq!(concurrency.limit(), 2);
    }

    #[tokio::test]
    async fn the_limit_falls_below_what_ran_and_never_to_nothing() {
        let (concurrency, _slots) = busy(100, 3);
        concurrency.shrink(concurrency.pause().await);
        assert_eq!(concurrency.limit(), 1);
        concurrency.shrink(concurrency.pause().await);
        assert_eq!(concurrency.limit(), 1);
    }

    #[tokio::test]
    async fn a_place_in_which_nothing_runs_yet_is_no_load() {
        let (concurrency, _slots) = busy(100, 6);
        let _idle: Vec<_> = (0..4).map(|_| concurrency.slot().now_or_never()).collect();
        concurrency.shrink(concurrency.pause().await);
        assert_eq!(concurrency.limit(), 3);
    }

    #[tokio::test]
    async fn successes_bring_the_limit_back() {
        let (concurrency, _slots) = busy(8, 8);
        concurrency.shrink(concurrency.pause().await);
        (0..4 * SUCCESSES_PER_PLACE).for_each(|_| concurrency.succeeded());
        assert_eq!(concurrency.limit(), 5);
        (0..1_000).for_each(|_| concurrency.succeeded());
        assert_eq!(concurrency.limit(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_without_a_success_between_them_are_answered_with_growing_pauses() {
        let (concurrency, slots) = busy(2, 1);
        drop(slots);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let began = concurrency.pause().await;
            concurrency.shrink(began);
            assert!(concurrency.slot().now_or_never().is_none());
            let since = Instant::now();
            drop(concurrency.slot().await);
            pauses.push(since.elapsed());
        }
        assert!(
            pauses[0] < Duration::from_millis(100) && pauses[5] > Duration::from_millis(500),
            "{pauses:?}"
        );
        concurrency.succeeded();
        concurrency.shrink(concurrency.pause().await);
        let since = Instant::now();
        drop(concurrency.slot().await);
        assert!(since.elapsed() < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_waits_again_counts_only_when_its_place_is_given() {
        let (concurrency, mut slots) = busy(2, 2);
        concurrency.shrink(concurrency.pause().await);
        let (first, second) = slots.split_at_mut(1);
        let mut waits = Box::pin(first[0].wait_again());
        assert!((&mut waits).now_or_never().is_none(), "the other one runs");
        second[0].give_free();
        waits.await;
        assert!(concurrency.slot().now_or_never().is_none());
        drop(slots);
        assert!(concurrency.slot().now_or_never().is_some());
    }

    #[test]
    fn a_place_is_given_only_below_the_limit() {
        let (concurrency, mut slots) = busy(2, 2);
        assert_eq!(slots.len(), 2);
        assert!(concurrency.slot().now_or_never().is_none());
        slots.pop();
        assert!(concurrency.slot().now_or_never().is_some());
    }
}
