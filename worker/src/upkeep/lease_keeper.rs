//! The lease keeper: renews the leases of the jobs that this process holds, at a third of the lease. A partition that hangs delays no
//! other.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tepal_shared::{
    job::Claim,
    process::telemetry,
    queue::work::{Fence, Work},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    run::leases::Leases,
    upkeep::liveness::{Activity, Pulse},
};

/// Claims renewed in one call: keeps the script short.
const CHUNK: usize = 256;

/// Renews the leases of the process.
#[derive(Clone, Debug)]
pub struct LeaseKeeper {
    /// The consumer of the process.
    pub consumer: Arc<str>,
    /// The claims of the process.
    pub leases: Leases,
    /// The queue.
    pub work: Work,
    /// The sign of life of this loop.
    pub pulse: Pulse,
}

/// How often leases are renewed.
#[must_use]
pub fn interval(work: &Work) -> Duration {
    work.queue().policy().lease / 3
}

impl LeaseKeeper {
    /// Renews leases until `shutdown` begins.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(interval(&self.work));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut renewals, mut under_way) = (FuturesUnordered::new(), HashSet::new());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {
                    self.pulse.set(Activity::Work);
                    for partition in self.work.queue().partitions() {
                        if under_way.insert(partition) {
                            renewals.push(self.renew_all(partition));
                        }
                    }
                }
                Some(partition) = renewals.next() => {
                    under_way.remove(&partition);
                }
            }
        }
        self.pulse.end();
    }

    /// Renews the leases in a partition. Returns the partition.
    async fn renew_all(&self, partition: u8) -> u8 {
        for chunk in self.leases.of_partition(partition).chunks(CHUNK) {
            self.renew(partition, chunk).await;
        }
        partition
    }

    async fn renew(&self, partition: u8, claims: &[Claim]) {
        let gone = match self.work.renew(partition, &self.consumer, claims).await {
            Ok(gone) => gone,
            // The next tick tries again; two may fail before a lease lapses.
            Err(error) => {
                let error = telemetry::chain(&error);
                return warn!(action = "renew_failed", jobs = claims.len(), error);
            }
        };
        for (id, why) in gone {
            // The job may have ended, or this process may have claimed it again, during the call.
            let claim = claims.iter().find(|claim| claim.job_id == id);
            let hold = claim.and_then(|claim| self.leases.lose(*claim, why));
            if let (Some(hold), Fence::Missing) = (hold, why) {
                self.leases.note_missing(&self.work, id, hold);
            }
        }
    }
}
