//! Keeps the stored data in order while workers come and go: forgets expired jobs in the log, queues orphaned jobs
//! again, and removes the consumers of dead workers. Every worker has one; what two of them do at once is harmless.

use std::{collections::HashMap, time::Duration};

use tepal_shared::{error::StoreError, shutdown::Shutdown, store::JobStore, telemetry};
use tracing::{error, info, warn};

use crate::metrics;

const INTERVAL: Duration = Duration::from_secs(5);
/// Jobs looked at in one script run: keeps it below a millisecond.
const CHUNK: usize = 100;
/// Script runs in one round and partition: bounds what the janitor costs Redis.
const MOST_CHUNKS: usize = 40;
/// A consumer that lives reads or renews many times in so many leases.
const SILENT_LEASES: u32 = 30;

/// The loop that keeps order.
pub struct Janitor {
    store: JobStore,
    /// For each partition, where its sweep goes on.
    sweeps: HashMap<u8, String>,
    /// For each partition, which data set was seen last.
    epochs: HashMap<u8, String>,
}

impl Janitor {
    /// A janitor of the store's queue.
    #[must_use]
    pub fn new(store: JobStore) -> Self {
        Self { store, sweeps: HashMap::new(), epochs: HashMap::new() }
    }

    /// Works until `shutdown` begins.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.or(ticks.tick()).await.is_some() {
            match shutdown.or(self.round()).await {
                Some(Err(error)) => warn!(action = "upkeep_failed", error = telemetry::chain(&error)),
                Some(Ok(())) => {}
                None => return,
            }
        }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let silence = self.store.policy().lease * SILENT_LEASES;
        let live: Vec<String> = self.store.workers().await?.into_iter().map(|worker| worker.id).collect();
        for partition in self.store.partitions() {
            self.watch_epoch(partition).await?;
            self.sweep(partition).await?;
            let pruned = self.store.prune(partition, &live, silence).await?;
            if pruned > 0 {
                info!(action = "consumers_pruned", partition, count = pruned);
            }
        }
        Ok(())
    }

    /// Jobs that Redis lost cannot be brought back, but it must not happen unseen.
    async fn watch_epoch(&mut self, partition: u8) -> Result<(), StoreError> {
        let epoch = self.store.epoch(partition).await?;
        let before = self.epochs.insert(partition, epoch.clone());
        if before.is_some_and(|before| before != epoch) {
            metrics::data_lost();
            error!(action = "redis_data_lost", partition, "Redis came back without its data");
        }
        Ok(())
    }

    async fn sweep(&mut self, partition: u8) -> Result<(), StoreError> {
        for _ in 0..MOST_CHUNKS {
            let after = self.sweeps.get(&partition).map(String::as_str);
            let swept = self.store.sweep(partition, after, CHUNK).await?;
            if swept.repaired > 0 {
                metrics::repaired(swept.repaired);
                warn!(action = "entries_repaired", partition, count = swept.repaired);
            }
            let Some(next) = swept.next else {
                self.sweeps.remove(&partition);
                return Ok(());
            };
            self.sweeps.insert(partition, next);
        }
        Ok(())
    }
}
