//! The state of the queues, summed up over all partitions.

use std::time::Duration;

use tepal_shared::{
    job::ModelName,
    queue::{error::StoreError, loss::LogMark, views::QueueState},
};

use crate::jobs::store::Store;

/// The sums over all partitions.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) by_priority: [QueueState; 3],
    pub(super) logs: Vec<(u8, LogMark)>,
    pub(super) oldest_waiting: Option<Duration>,
    pub(super) dead_letters: u64,
}

impl Queues {
    pub(super) async fn read(store: &Store, model: ModelName) -> Result<Self, StoreError> {
        let mut queues = Self::default();
        for partition in store.queue().partitions() {
            let partition_state = store.views.partition_state(partition, model).await?;
            queues.logs.push((partition, partition_state.log));
            for (total, state) in queues.by_priority.iter_mut().zip(partition_state.queues) {
                total.new += state.new;
                total.waiting += state.waiting;
                total.in_flight += state.in_flight;
            }
            queues.oldest_waiting =
                queues.oldest_waiting.max(store.views.oldest_waiting(partition, model).await?);
            queues.dead_letters += store.views.dead_letters(partition, model).await?;
        }
        Ok(queues)
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
