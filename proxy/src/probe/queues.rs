//! The state of the queues, summed up over all partitions.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::{join_all, try_join, try_join_all};
use tepal_shared::{
    job::ModelName,
    queue::{error::StoreError, intake::Depths, loss::LogMark, views::QueueState},
};

use tokio::time::timeout;

use crate::{
    jobs::{models::Registry, store::Store},
    snapshot::ModelQueue,
};

/// A partition whose primary hangs must not keep the state of the others from being seen.
const TIMEOUT: Duration = Duration::from_millis(500);

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
    /// The partitions that could not be read.
    pub(super) unreachable: Vec<u8>,
}

impl Queues {
    /// Reads all partitions that can be reached. Fails if none can.
    pub(super) async fn read(store: &Store, models: &Registry) -> Result<Self, StoreError> {
        let mut queues = Self::default();
        queues.depths.limits = models.queue_limits();
        let reads = store.queue().partitions().map(async |partition| {
            let read = async {
                let log = store.views.log_mark(partition).await?;
                let of_each = models.iter().map(|served| OfModel::read(store, partition, served.name));
                Ok((log, try_join_all(of_each).await?))
            };
            let is_up = store.queue().primary(partition).is_up();
            let read = if is_up { timeout(TIMEOUT, read).await } else { Ok(Err(StoreError::Disconnected)) };
            (partition, read.unwrap_or(Err(StoreError::Disconnected)))
        });
        let mut failure = None;
        for (partition, read) in join_all(reads).await {
            match read {
                Ok((log, of_each)) => {
                    queues.logs.push((partition, log));
                    of_each.iter().for_each(|of_model| queues.add(partition, of_model));
                }
                Err(error) => {
                    queues.unreachable.push(partition);
                    failure = Some(error);
                }
            }
        }
        failure.filter(|_| queues.logs.is_empty()).map_or(Ok(queues), Err)
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
