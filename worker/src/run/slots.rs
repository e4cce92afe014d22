//! The batch slots of the process, shared by its models.
//!
//! A free slot goes to the model that used the least backend time for its weight, of those with a batch to run. A model that had
//! nothing to run begins where the others are: idle time earns nothing. A slot cannot be taken back. So while other models have work
//! now and then, some slots are kept free of a model that holds all others: its long calls must not delay theirs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// No slot is kept free for a model without work for this long. Its next job waits at most for the end of one call.
const RECENT: Duration = Duration::from_secs(10);
/// At most one slot in four, rounded up, is kept free. Each one costs a model that could use all slots some of its rate.
const KEPT_FREE_OF: usize = 4;

/// The slots of the process. Clones share them.
#[derive(Clone, Debug)]
pub struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    changed: Notify,
}

/// The share of one model. Clones belong to the same model.
#[derive(Clone, Debug)]
pub struct Share {
    member: Arc<Membership>,
}

/// A model is in the table as long as its shares.
#[derive(Debug)]
struct Membership {
    shared: Arc<Shared>,
    id: u64,
}

/// The right to run a batch. Dropping it frees the slot.
#[derive(Debug)]
pub struct BatchSlot {
    share: Share,
}

/// A model call that runs. Dropping it ends the call.
#[derive(Debug)]
pub struct RunningCall {
    share: Share,
    began: f64,
}

/// A batch that waits for a slot.
struct Waiting<'a>(&'a Share);

#[derive(Debug)]
struct Table {
    total: usize,
    next_id: u64,
    start: Instant,
    members: Vec<Member>,
}

/// What is known of one model. Times are in seconds since the start.
#[derive(Debug)]
struct Member {
    id: u64,
    weight: f64,
    /// Backend time of its ended calls, and what it was credited with when it had been idle.
    used: f64,
    calls: usize,
    /// The sum of the times at which the running calls began.
    began: f64,
    held: usize,
    waiting: usize,
    active_at: Option<Instant>,
}

impl Slots {
    /// So many slots.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let table = Table { total, next_id: 0, start: Instant::now(), members: Vec::new() };
        Self { shared: Arc::new(Shared { table: Mutex::new(table), changed: Notify::new() }) }
    }

    /// Adds a model. With twice the weight, it gets twice the backend time while both have work.
    #[must_use]
    pub fn share(&self, weight: u32) -> Share {
        let mut table = self.shared.lock();
        let id = table.next_id;
        table.next_id += 1;
        table.members.push(Member::new(id, weight));
        Share { member: Arc::new(Membership { shared: Arc::clone(&self.shared), id }) }
    }
}

impl Share {
    /// Waits for a slot.
    pub async fn slot(&self) -> BatchSlot {
        let _waiting = Waiting::begin(self);
        loop {
            let changed = self.member.shared.changed.notified();
            if self.member.shared.lock().take(self.member.id) {
                return BatchSlot { share: self.clone() };
            }
            changed.await;
        }
    }

    /// A model call begins.
    #[must_use]
    pub fn call(&self) -> RunningCall {
        let began = self.update(|member, now| {
            (member.calls, member.began) = (member.calls + 1, member.began + now);
            now
        });
        RunningCall { share: self.clone(), began: began.unwrap_or_default() }
    }

    fn update<T>(&self, change: impl FnOnce(&mut Member, f64) -> T) -> Option<T> {
        let mut table = self.member.shared.lock();
        let now = table.now();
        table.member(self.member.id).map(|member| change(member, now))
    }
}

impl<'a> Waiting<'a> {
    fn begin(share: &'a Share) -> Self {
        let mut table = share.member.shared.lock();
        let least = table.least_used();
        if let Some(member) = table.member(share.member.id) {
            member.catch_up(least);
            member.waiting += 1;
        }
        Self(share)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.update(|member, _| {
            member.waiting = member.waiting.saturating_sub(1);
            member.active_at = Some(Instant::now());
        });
        // Another model is next now, and slots may be left.
        self.0.member.shared.changed.notify_waiters();
    }
}

impl Drop for BatchSlot {
    fn drop(&mut self) {
        self.share.update(|member, _| {
            member.held = member.held.saturating_sub(1);
            member.active_at = Some(Instant::now());
        });
        self.share.member.shared.changed.notify_waiters();
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.share.update(|member, now| {
            (member.calls, member.began) = (member.calls.saturating_sub(1), member.began - self.began);
            member.used += now - self.began;
        });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.lock().members.retain(|member| member.id != self.id);
    }
}

impl Shared {
    /// Each critical section leaves the table consistent, so a panic elsewhere does not break it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// Takes a slot for this model, if one is free and no other model comes first.
    fn take(&mut self, id: u64) -> bool {
        let is_next = self.next() == Some(id);
        if is_next && let Some(member) = self.member(id) {
            member.held += 1;
        }
        is_next
    }

    /// The model that gets the next slot.
    fn next(&self) -> Option<u64> {
        let held: usize = self.members.iter().map(|member| member.held).sum();
        if held >= self.total {
            return None;
        }
        let now = self.now();
        let may_have = |member: &&Member| member.waiting > 0 && member.held < self.most_slots(member.id);
        let waiting = self.members.iter().filter(may_have);
        let next = waiting.min_by(|one, other| one.used_at(now).total_cmp(&other.used_at(now)));
        next.map(|member| member.id)
    }

    /// How many slots this model may hold at present, at least one.
    fn most_slots(&self, id: u64) -> usize {
        let others = self.members.iter().filter(|other| other.id != id && other.is_recent()).count();
        let kept_free = others.min(self.total.div_ceil(KEPT_FREE_OF));
        self.total.saturating_sub(kept_free).max(1)
    }

    /// The least use of a model that has work now.
    fn least_used(&self) -> Option<f64> {
        let now = self.now();
        let active = self.members.iter().filter(|member| member.is_active());
        active.map(|member| member.used_at(now)).min_by(f64::total_cmp)
    }
}

impl Member {
    fn new(id: u64, weight: u32) -> Self {
        let weight = f64::from(weight.max(1));
        Self { id, weight, used: 0.0, calls: 0, began: 0.0, held: 0, waiting: 0, active_at: None }
    }

    fn is_active(&self) -> bool {
        self.held + self.waiting + self.calls > 0
    }

    fn is_recent(&self) -> bool {
        self.is_active() || self.active_at.is_some_and(|at| at.elapsed() < RECENT)
    }

    /// Backend time so far for each unit of weight. Calls that run count for as long as they have run.
    fn used_at(&self, now: f64) -> f64 {
        (self.used + self.calls as f64 * now - self.began) / self.weight
    }

    /// A model that was idle begins where the others are.
    fn catch_up(&mut self, least: Option<f64>) {
        if let Some(least) = least.filter(|_| !self.is_active()) {
            self.used = self.used.max(least * self.weight);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::{task::JoinSet, time::sleep};

    use super::*;

    /// Runs calls of this length for ever, as many at a time as there are slots.
    async fn saturate(share: Share, length: Duration) {
        let mut calls = JoinSet::new();
        loop {
            let slot = share.slot().await;
            let call = share.call();
            calls.spawn(async move {
                sleep(length).await;
                drop((call, slot));
            });
        }
    }

    /// The backend time of the shares in so long, in ms.
    async fn backend_time<const N: usize>(lengths: [(Share, u64); N], during: Duration) -> [f64; N] {
        let mut models = JoinSet::new();
        for (share, length_ms) in &lengths {
            models.spawn(saturate(share.clone(), Duration::from_millis(*length_ms)));
        }
        sleep(during).await;
        lengths.map(|(share, _)| {
            share.update(|member, now| member.used_at(now) * member.weight * 1000.0).unwrap()
        })
    }

    fn assert_ratio([one, other]: [f64; 2], expected: f64) {
        let ratio = one / other;
        assert!((expected * 0.9..expected * 1.1).contains(&ratio), "{one} ms and {other} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn models_with_a_backlog_get_the_same_backend_time_however_long_their_calls_are() {
        for total in [1, 2, 3, 8] {
            let slots = Slots::new(total);
            let lengths = [(slots.share(1), 50), (slots.share(1), 5)];
            assert_ratio(backend_time(lengths, Duration::from_secs(60)).await, 1.0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backend_time_follows_the_weights() {
        // With more slots kept free for each of two models, neither could use more than three of four.
        let slots = Slots::new(4);
        let lengths = [(slots.share(3), 20), (slots.share(1), 20)];
        assert_ratio(backend_time(lengths, Duration::from_secs(60)).await, 3.0);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_earns_nothing() {
        let slots = Slots::new(2);
        let (busy, idle) = (slots.share(1), slots.share(2));
        let _call = (busy.slot().await, busy.call());
        tokio::time::advance(Duration::from_secs(100)).await;

        let _slot = idle.slot().await;

        let used = [&busy, &idle].map(|share| share.update(|member, now| member.used_at(now)).unwrap());
        assert_eq!(used, [100.0, 100.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_is_kept_free_of_long_calls_while_another_model_has_work_now_and_then() {
        let slots = Slots::new(8);
        let (long, other) = (slots.share(1), slots.share(1));
        drop(other.slot().await);
        let held: Vec<_> = std::iter::from_fn(|| long.slot().now_or_never()).collect();
        assert_eq!(held.len(), 7);
        assert!(other.slot().now_or_never().is_some());

        tokio::time::advance(RECENT).await;
        assert!(long.slot().now_or_never().is_some(), "it is kept free for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn many_models_leave_most_slots_to_a_busy_one_and_every_model_has_one_in_turn() {
        let slots = Slots::new(8);
        let others: Vec<_> = (0..19).map(|_| slots.share(1)).collect();
        let busy = slots.share(1);
        for other in &others {
            drop(other.slot().await);
        }
        let held: Vec<_> = std::iter::from_fn(|| busy.slot().now_or_never()).collect();
        assert_eq!(held.len(), 6);

        let only = Slots::new(1);
        let (one, other) = (only.share(1), only.share(1));
        drop(other.slot().await);
        let slot = one.slot().now_or_never();
        assert!(slot.is_some() && other.slot().now_or_never().is_none());
        drop(slot);
        assert!(other.slot().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_no_longer_waits_holds_up_nobody() {
        let slots = Slots::new(1);
        let (one, other) = (slots.share(1), slots.share(1));
        let slot = one.slot().await;
        let mut first = Box::pin(one.slot());
        let mut second = Box::pin(other.slot());
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(slot);
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_is_removed_is_forgotten() {
        let slots = Slots::new(4);
        let (one, removed) = (slots.share(1), slots.share(1));
        drop(removed.slot().await);
        drop(removed);
        assert_eq!(std::iter::from_fn(|| one.slot().now_or_never()).take(9).collect::<Vec<_>>().len(), 4);
    }
}
