//! The state of the queues, summed up over all partitions.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::{try_join, try_join_all};
use tepal_shared::{
    job::ModelName,
    queue::{error::StoreError, intake::Depths, loss::LogMark, views::QueueState},
};

use crate::{
    jobs::{models::Registry, store::Store},
    snapshot::ModelQueue,
};

/// The jobs of a model in a partition.
struct OfModel {
    model: ModelName,
    states: [QueueState; 3],
    oldest: Option<Duration>,
    dead_letters: u64,
}

impl OfModel {
    async fn read(store: &Store, partition: u8, model: ModelName) -> Result<Self, StoreError> {
        let views = &store.views;
        let (states, dead_letters) =
            try_join(views.queue_states(partition, model), views.dead_letters(partition, model)).await?;
        let is_waiting = states.iter().any(|state| state.new + state.waiting > 0);
        let oldest = if is_waiting { views.oldest_waiting(partition, model).await? } else { None };
        Ok(Self { model, states, oldest, dead_letters })
    }
}

/// The sums over all partitions.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) logs: Vec<(u8, LogMark)>,
    /// Unfinished jobs of each model.
    pub(super) by_model: BTreeMap<ModelName, ModelQueue>,
    /// The same for each partition.
    pub(super) depths: Depths,
}

impl Queues {
    pub(super) async fn read(store: &Store, models: &Registry) -> Result<Self, StoreError> {
        let mut queues = Self::default();
        queues.depths.limits = models.queue_limits();
        for partition in store.queue().partitions() {
            queues.logs.push((partition, store.views.log_mark(partition).await?));
            let of_each = models.iter().map(|served| OfModel::read(store, partition, served.name));
            for of_model in try_join_all(of_each).await? {
                queues.add(partition, &of_model);
            }
        }
        Ok(queues)
    }

    fn add(&mut self, partition: u8, of_model: &OfModel) {
        let OfModel { model, states, oldest, dead_letters } = of_model;
        let queue = self.by_model.entry(*model).or_default();
        for (total, state) in queue.by_priority.iter_mut().zip(states) {
            *total += state.new + state.waiting;
            queue.waiting_retry += state.waiting;
            queue.running += state.in_flight;
        }
        queue.waiting = queue.by_priority.iter().sum();
        queue.oldest = queue.oldest.max(*oldest);
        queue.dead_letters += dead_letters;
        let outstanding = states.iter().map(|state| state.new + state.waiting + state.in_flight).sum();
        self.depths.counted.insert((partition, *model), outstanding);
    }

    /// Number of jobs that have not ended.
    pub(super) fn outstanding(&self) -> u64 {
        self.by_model.values().map(|queue| queue.waiting + queue.running).sum()
    }

    /// Number of jobs that ever ended, of all proxies.
    pub(super) fn ended(&self) -> u64 {
        let accepted: u64 = self.logs.iter().map(|(_, log)| log.added).sum();
        accepted.saturating_sub(self.outstanding())
    }
}
