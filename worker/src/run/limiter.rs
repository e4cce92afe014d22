//! The adaptive limiter: how many batches of a model may run at a time. An overload of the backend halves the number and causes a
//! pause. Successes raise the number again, slowly, because only a refusal shows the limit of a backend.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tepal_shared::{job::ModelName, process::retry::Backoff};
use tokio::{sync::Notify, time::Instant};

use crate::{
    metrics,
    run::slots::{BatchSlot, Share},
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Successes for each slot before another slot is added.
const SUCCESSES_PER_SLOT: usize = 8;

/// The number of batches of a model that may run in this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Limiter {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The model's share of the slots of the process.
    share: Share,
    numbers: Mutex<Numbers>,
    freed: Notify,
    paused: Notify,
}

#[derive(Debug)]
struct Numbers {
    model: ModelName,
    limit: usize,
    max: usize,
    /// Slots that are taken. A consumer takes one before it claims jobs.
    taken: usize,
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

/// A slot: the right to run one batch. It is a slot of the model and one of the process. Dropping it frees both.
#[derive(Debug)]
pub struct Slot {
    inner: Arc<Inner>,
    of_process: Option<BatchSlot>,
    is_running: bool,
    /// False while it waits for another slot.
    is_taken: bool,
}

impl Limiter {
    /// At most `max` batches of the model at a time, in slots of its share.
    #[must_use]
    pub fn new(model: ModelName, max: usize, share: Share) -> Self {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let (epoch, resume_at) = (Epoch(0), None);
        let numbers =
            Numbers { model, limit: max, max, taken: 0, running: 0, successes: 0, epoch, resume_at, backoff };
        numbers.publish();
        let (freed, paused) = (Notify::new(), Notify::new());
        Self { inner: Arc::new(Inner { share, numbers: Mutex::new(numbers), freed, paused }) }
    }

    /// The model's share of the slots of the process.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.inner.share
    }

    /// Waits for a free slot, and for the end of the pause after an overload.
    pub async fn slot(&self) -> Slot {
        let mut slot = self.slot_of_model().await;
        // While it waits for this one, it holds up only batches of the same model.
        slot.of_process = Some(self.inner.share.slot().await);
        slot
    }

    async fn slot_of_model(&self) -> Slot {
        loop {
            let freed = self.inner.freed.notified();
            self.pause().await;
            {
                let mut numbers = self.inner.lock();
                if numbers.taken < numbers.limit {
                    numbers.taken += 1;
                    let (inner, of_process) = (Arc::clone(&self.inner), None);
                    return Slot { inner, of_process, is_running: false, is_taken: true };
                }
            }
            freed.await;
        }
    }

    /// Waits for the end of the pause after an overload. A call that starts then belongs to the returned epoch.
    pub async fn pause(&self) -> Epoch {
        loop {
            let pause = {
                let numbers = self.inner.lock();
                match numbers.pause_left() {
                    None => return numbers.epoch,
                    Some(pause) => pause,
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until a pause begins.
    pub async fn paused(&self) {
        loop {
            let paused = self.inner.paused.notified();
            if self.inner.lock().pause_left().is_some() {
                return;
            }
            paused.await;
        }
    }

    /// The current limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.inner.lock().limit
    }

    /// The backend reported an overload to a call that started in this epoch.
    pub fn shrink(&self, began: Epoch) {
        let mut numbers = self.inner.lock();
        if began == numbers.epoch {
            numbers.limit = (numbers.limit.min(numbers.running) / 2).max(1);
            (numbers.successes, numbers.epoch) = (0, Epoch(began.0 + 1));
            numbers.resume_at = Some(Instant::now() + numbers.backoff.next_pause());
            numbers.publish();
            self.inner.paused.notify_waiters();
        }
    }

    /// The backend asked not to be called for this long.
    pub fn hold(&self, pause: Option<Duration>) {
        let Some(pause) = pause.filter(|pause| !pause.is_zero()) else { return };
        let mut numbers = self.inner.lock();
        numbers.resume_at = numbers.resume_at.max(Some(Instant::now() + pause));
        self.inner.paused.notify_waiters();
    }

    /// A call succeeded.
    pub fn succeeded(&self) {
        let mut numbers = self.inner.lock();
        numbers.backoff.reset();
        if numbers.limit == numbers.max {
            return;
        }
        numbers.successes += 1;
        if numbers.successes >= numbers.limit * SUCCESSES_PER_SLOT {
            (numbers.limit, numbers.successes) = (numbers.limit + 1, 0);
            numbers.publish();
            self.inner.freed.notify_one();
        }
    }
}

impl Slot {
    /// The batch starts.
    pub fn run(&mut self) {
        if !std::mem::replace(&mut self.is_running, true) {
            let mut numbers = self.inner.lock();
            numbers.running += 1;
            numbers.publish();
        }
    }

    /// Frees the slot. The lane gets the slot of its model first, so that it waits with the others when that of the process is free.
    /// Otherwise a lane that may run as many batches as the process would always come too late, whatever its weight.
    pub async fn end(mut self) {
        self.free();
        tokio::task::yield_now().await;
    }

    /// Frees the slot and waits for another one: after an overload fewer batches may run.
    pub async fn wait_again(&mut self) {
        self.free();
        self.of_process = None;
        let limiter = Limiter { inner: Arc::clone(&self.inner) };
        *self = limiter.slot().await;
        self.run();
    }

    fn free(&mut self) {
        if !std::mem::take(&mut self.is_taken) {
            return;
        }
        let mut numbers = self.inner.lock();
        numbers.taken = numbers.taken.saturating_sub(1);
        if std::mem::take(&mut self.is_running) {
            numbers.running = numbers.running.saturating_sub(1);
            numbers.publish();
        }
        if numbers.taken < numbers.limit {
            self.inner.freed.notify_one();
        }
    }
}

impl Numbers {
    fn publish(&self) {
        metrics::batches(self.model, self.running, self.limit);
    }

    fn pause_left(&self) -> Option<Duration> {
        let left = self.resume_at?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Inner {
    /// Each critical section leaves the numbers consistent, so a panic elsewhere does not break them.
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::run::slots::Slots;

    fn model() -> ModelName {
        "iris".parse().unwrap()
    }

    /// With `running` of `max` slots taken.
    fn busy(max: usize, running: usize) -> (Limiter, Vec<Slot>) {
        let limiter = Limiter::new(model(), max, Slots::new(max).share(1));
        let mut slots: Vec<_> = (0..running).filter_map(|_| limiter.slot().now_or_never()).collect();
        slots.iter_mut().for_each(Slot::run);
        (limiter, slots)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_fail_together_halve_the_limit_once() {
        let (limiter, _slots) = busy(8, 8);
        let began = limiter.pause().await;
        (0..6).for_each(|_| limiter.shrink(began));
        assert_eq!(limiter.limit(), 4);
        let began = limiter.pause().await;
        limiter.shrink(began);
        assert_eq!(limiter.limit(), 2);
    }

    #[tokio::test]
    async fn the_limit_falls_below_what_ran_and_never_to_nothing() {
        let (limiter, _slots) = busy(100, 3);
        limiter.shrink(limiter.pause().await);
        assert_eq!(limiter.limit(), 1);
        limiter.shrink(limiter.pause().await);
        assert_eq!(limiter.limit(), 1);
    }

    #[tokio::test]
    async fn a_slot_in_which_nothing_runs_yet_is_no_load() {
        let (limiter, _slots) = busy(100, 6);
        let _idle: Vec<_> = (0..4).map(|_| limiter.slot().now_or_never()).collect();
        limiter.shrink(limiter.pause().await);
        assert_eq!(limiter.limit(), 3);
    }

    #[tokio::test]
    async fn successes_bring_the_limit_back() {
        let (limiter, _slots) = busy(8, 8);
        limiter.shrink(limiter.pause().await);
        (0..4 * SUCCESSES_PER_SLOT).for_each(|_| limiter.succeeded());
        assert_eq!(limiter.limit(), 5);
        (0..1_000).for_each(|_| limiter.succeeded());
        assert_eq!(limiter.limit(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn overloads_without_a_success_between_them_cause_growing_pauses() {
        let (limiter, slots) = busy(2, 1);
        drop(slots);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let began = limiter.pause().await;
            limiter.shrink(began);
            assert!(limiter.slot().now_or_never().is_none());
            let since = Instant::now();
            drop(limiter.slot().await);
            pauses.push(since.elapsed());
        }
        assert!(
            pauses[0] < Duration::from_millis(100) && pauses[5] > Duration::from_millis(500),
            "{pauses:?}"
        );
        limiter.succeeded();
        limiter.shrink(limiter.pause().await);
        let since = Instant::now();
        drop(limiter.slot().await);
        assert!(since.elapsed() < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_starts_before_the_end_of_the_pause_that_the_backend_asked_for() {
        let (limiter, _slots) = busy(2, 1);
        let mut paused = Box::pin(limiter.paused());
        assert!((&mut paused).now_or_never().is_none());
        limiter.hold(Some(Duration::from_secs(7)));
        assert!(paused.now_or_never().is_some());
        limiter.hold(Some(Duration::from_secs(3)));
        limiter.hold(None);
        let since = Instant::now();
        drop(limiter.slot().await);
        assert!((7..8).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_waits_again_counts_only_when_it_has_its_slot() {
        let (limiter, mut slots) = busy(2, 2);
        limiter.shrink(limiter.pause().await);
        let (first, second) = slots.split_at_mut(1);
        let mut waits = Box::pin(first[0].wait_again());
        assert!((&mut waits).now_or_never().is_none(), "the other one runs");
        second[0].free();
        waits.await;
        assert!(limiter.slot().now_or_never().is_none());
        drop(slots);
        assert!(limiter.slot().now_or_never().is_some());
    }

    #[test]
    fn a_slot_is_free_only_below_the_limit() {
        let (limiter, mut slots) = busy(2, 2);
        assert_eq!(slots.len(), 2);
        assert!(limiter.slot().now_or_never().is_none());
        slots.pop();
        assert!(limiter.slot().now_or_never().is_some());
    }
}
