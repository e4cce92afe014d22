//! Which lanes wait for jobs, which partitions are read for them, and the jobs on their way to them. The lanes and the reader share it.
//!
//! A lane that got jobs is *away*. It mostly waits again within a millisecond, so reads of other partitions go on meanwhile, and
//! jobs that they deliver are kept for it. A lane that is away for longer is busy: reads for it end, and jobs kept for it are released.

mod state;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tepal_shared::job::{Delivery, ModelName};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

pub use self::state::Arrived;
use self::state::State;
use crate::fetch::{quarantine::Turn, ticks::Ticks};

/// A call to Redis that takes longer is late.
const LATE: Duration = Duration::from_millis(100);

/// Where lanes wait for jobs. Clones share it.
#[derive(Clone, Debug)]
pub struct Arrivals {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ticks: Ticks,
    state: Mutex<State>,
    /// Notified when jobs are kept or a lane is away, so that this must end in time.
    changed: Notify,
}

impl Arrivals {
    /// Of a queue with so many partitions.
    #[must_use]
    pub(super) fn new(partitions: u16, ticks: Ticks) -> Self {
        let state = Mutex::new(State::new(partitions));
        Self { shared: Arc::new(Shared { ticks, state, changed: Notify::new() }) }
    }

    /// When partitions are searched.
    #[must_use]
    pub fn ticks(&self) -> Ticks {
        self.shared.ticks
    }

    /// Waits until jobs of the lane arrive; returns none if `end` comes first. The lane `searches_itself` for entries that are due
    /// again, or the reader does it. Never cancel it: jobs may have arrived.
    pub async fn next(
        &self,
        model: ModelName,
        searches_itself: bool,
        end: impl Future<Output = ()>,
    ) -> Option<Arrived> {
        let mut arrival = self.lock().wait(model, searches_itself);
        tokio::select! {
            biased;
            arrived = &mut arrival => arrived.ok(),
            () = end => {
                self.lock().leave(model);
                self.shared.changed.notify_one();
                // Jobs may have arrived just before.
                arrival.try_recv().ok()
            }
        }
    }

    /// The jobs that are kept for a lane.
    #[must_use]
    pub fn kept(&self, model: ModelName) -> Vec<Arrived> {
        self.lock().kept(model)
    }

    /// Those of the partitions in which a take may find jobs of the model. There are none if a read of the streams blocks, and the
    /// reader, or the lane itself, has searched since the last tick.
    pub(super) fn with_jobs(
        &self,
        model: ModelName,
        partitions: impl Iterator<Item = u8>,
        has_searched: impl Fn(u8) -> bool,
    ) -> Vec<u8> {
        let (ticks, state) = (self.shared.ticks, self.lock());
        let may_have_jobs = |partition: &u8| {
            let partition_state = state.partition(*partition);
            let has_none = partition_state.is_read(model)
                && (has_searched(*partition) || partition_state.is_searched(model, ticks.last(*partition)));
            !partition_state.is_suspended && !has_none
        };
        partitions.filter(may_have_jobs).collect()
    }

    /// The reader searched the streams of these models, to their ends, after this tick.
    pub(super) fn searched(&self, partition: u8, tick: u32, models: Vec<ModelName>) {
        self.lock().partition_mut(partition).searched = (tick, models);
    }

    /// A call failed or is late: no lane takes from the partition until [`Arrivals::resume`].
    pub fn suspend(&self, partition: u8) {
        self.lock().partition_mut(partition).is_suspended = true;
    }

    /// When a call that begins now is late: other partitions must not wait for it. There is no such time if there is one only.
    #[must_use]
    pub fn late_at(&self) -> Option<Instant> {
        self.lock().are_several_partitions().then(|| Instant::now() + LATE)
    }

    /// The partition answers.
    pub fn resume(&self, partition: u8) {
        self.lock().partition_mut(partition).is_suspended = false;
    }

    /// Whether no lane takes from the partition.
    #[must_use]
    pub fn is_suspended(&self, partition: u8) -> bool {
        self.lock().partition(partition).is_suspended
    }

    /// Whether no lane takes from some partition.
    #[must_use]
    pub(super) fn are_any_suspended(&self) -> bool {
        self.lock().are_any_suspended()
    }

    /// The models of the waiting lanes for which the reader searches.
    pub(super) fn searched_models(&self) -> Vec<ModelName> {
        self.lock().searched_models()
    }

    /// The models of all lanes that have waited.
    pub(super) fn all_models(&self) -> Vec<ModelName> {
        self.lock().all_models()
    }

    /// Waits until a read of the partition may begin: a lane waits, and none of those `served` by the last read is away. Otherwise a
    /// backlog would arrive job by job.
    pub(super) async fn readable(&self, partition: u8, served: &[ModelName]) {
        let wake = self.wake(partition);
        while !self.lock().is_readable(served) {
            wake.notified().await;
        }
    }

    /// A read of the partition begins. Returns the models that it must cover.
    pub(super) fn begin(&self, partition: u8) -> Vec<ModelName> {
        self.lock().begin(partition)
    }

    /// Waits until the read of the partition must end: it covers a busy lane, or not all that wait.
    pub(super) async fn outdated(&self, partition: u8) {
        let wake = self.wake(partition);
        while !self.lock().is_outdated(partition) {
            wake.notified().await;
        }
    }

    /// The read of the partition ends, or was asked to.
    pub(super) fn end(&self, partition: u8) {
        self.lock().partition_mut(partition).end_read();
    }

    /// Passes jobs that are held by this right to the lanes of their models, or keeps them. Returns these models.
    pub(super) fn hand_out(&self, deliveries: Vec<Delivery>, turn: &Arc<Turn>) -> Vec<ModelName> {
        let mut by_model = HashMap::<_, Vec<_>>::new();
        for delivery in deliveries {
            by_model.entry(delivery.attempt.claim.stream.model).or_default().push(delivery);
        }
        if by_model.is_empty() {
            return Vec::new();
        }
        let models = by_model.keys().copied().collect();
        let mut state = self.lock();
        for (model, deliveries) in by_model {
            state.give(model, Arrived { deliveries, turn: Arc::clone(turn) });
        }
        drop(state);
        self.shared.changed.notify_one();
        models
    }

    /// Waits until jobs were kept for long enough, and returns them. Also decides which lanes are busy.
    pub(super) async fn expired(&self) -> Vec<Arrived> {
        loop {
            let (expired, next) = self.lock().expire();
            if !expired.is_empty() {
                return expired;
            }
            match next {
                Some(next) => tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.shared.changed.notified() => {}
                },
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// All jobs that are kept for any lane.
    pub(super) fn all_kept(&self) -> Vec<Arrived> {
        self.lock().all_kept()
    }

    fn wake(&self, partition: u8) -> Arc<Notify> {
        self.lock().partition(partition).wake()
    }

    /// Each critical section leaves the state consistent, so a panic elsewhere does not break it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
