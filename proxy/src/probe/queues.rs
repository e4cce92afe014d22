//! The state of the queues, summed up over all partitions.

use std::{collections::BTreeMap, time::Duration};

use tepal_shared::{
    job::ModelName,
    queue::{error::StoreError, intake::Depths, loss::LogMark, views::QueueState},
};

use crate::{
    jobs::{models::Registry, store::Store},
    snapshot::ModelQueue,
};

/// The sums over all partitions.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) by_priority: [QueueState; 3],
    pub(super) logs: Vec<(u8, LogMark)>,
    pub(super) oldest_waiting: Option<Duration>,
    pub(super) dead_letters: u64,
    /// Unfinished jobs of each model.
    pub(super) by_model: BTreeMap<ModelName, ModelQueue>,
    /// The same for each partition.
    pub(super) depths: Depths,
}

impl Queues {
    pub(super) async fn read(store: &Store, models: &Registry) -> Result<Self, StoreError> {
        let mut queues = Self::default();
        for partition in store.queue().partitions() {
            queues.logs.push((partition, store.views.log_mark(partition).await?));
            for served in models.iter() {
                queues.add(store, partition, served.name).await?;
            }
        }
        Ok(queues)
    }

    /// Adds the jobs of a model in a partition.
    async fn add(&mut self, store: &Store, partition: u8, model: ModelName) -> Result<(), StoreError> {
        let states = store.views.queue_states(partition, model).await?;
        for (total, state) in self.by_priority.iter_mut().zip(states) {
            total.new += state.new;
            total.waiting += state.waiting;
            total.in_flight += state.in_flight;
        }
        let outstanding = states.iter().map(|state| state.new + state.waiting + state.in_flight).sum();
        self.depths.counted.insert((partition, model), outstanding);
        let oldest = store.views.oldest_waiting(partition, model).await?;
        let dead_letters = store.views.dead_letters(partition, model).await?;
        self.oldest_waiting = self.oldest_waiting.max(oldest);
        self.dead_letters += dead_letters;
        let queue = self.by_model.entry(model).or_default();
        queue.waiting += states.iter().map(|state| state.new + state.waiting).sum::<u64>();
        queue.running += states.iter().map(|state| state.in_flight).sum::<u64>();
        queue.oldest = queue.oldest.max(oldest);
        queue.dead_letters += dead_letters;
        Ok(())
    }

    pub(super) fn total(&self, count: impl Fn(&QueueState) -> u64) -> u64 {
        self.by_priority.iter().map(count).sum()
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.total(|state| state.new + state.waiting + state.in_flight)
    }

    /// Number of jobs that ever ended, of all proxies.
    pub(super) fn ended(&self) -> u64 {
        let accepted: u64 = self.logs.iter().map(|(_, log)| log.added).sum();
        accepted.saturating_sub(self.outstanding())
    }
}
