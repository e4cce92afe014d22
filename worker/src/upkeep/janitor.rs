//! The janitor. It deletes expired jobs and their charges from the log, queues jobs again that lost their entry, removes the
//! consumers of dead workers, and reports jobs that Redis lost. Every worker has one. Two janitors at the same time do no harm.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tepal_shared::{
    job::Stream,
    process::telemetry,
    queue::{
        error::StoreError,
        loss::{LogWatch, Loss},
        work::Work,
    },
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    lanes::Served,
    metrics,
    run::leases::Leases,
    upkeep::removed::{RemovedModelJobs, RemovedModels},
};

const INTERVAL: Duration = Duration::from_secs(5);
/// Jobs of one script run, which then takes about a millisecond.
const CHUNK: usize = 100;
/// Script runs of a walk in one round and partition. Limits the load of the janitor on Redis.
const MOST_CHUNKS: u32 = 40;
/// Script runs that delete most of their jobs do not count against that limit. They have this limit of their own. Jobs expire
/// as fast as they were accepted, and a job that is not deleted takes memory for ever. Each such run halves the pause before
/// the next one, but not below the time that the run takes.
const MOST_DELETING_CHUNKS: usize = 1000;
/// In this many leases a living consumer reads or renews many times.
const SILENT_LEASES: u32 = 30;

/// The loop of the janitor.
pub struct Janitor {
    work: Work,
    /// For each partition and kind of sweep, where it continues.
    sweeps: HashMap<(u8, Sweep), String>,
    logs: LogWatch,
    leases: Leases,
    served: Served,
    /// `None`: the jobs of removed models wait.
    removed: Option<RemovedModels>,
}

/// The kind of sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sweep {
    /// Jobs old enough to have expired.
    Expired,
    /// All jobs, because some may have lost their entries.
    All,
}

impl Janitor {
    /// A janitor of the store's queue, in the worker that holds these jobs and serves these models.
    #[must_use]
    pub fn new(work: Work, leases: Leases, served: Served) -> Self {
        Self { work, sweeps: HashMap::new(), logs: LogWatch::default(), leases, served, removed: None }
    }

    /// The same, and this consumer fails jobs that wait for removed models, if the setting says so.
    #[must_use]
    pub fn with_removed_models(self, setting: RemovedModelJobs, consumer: Arc<str>) -> Self {
        let removed =
            (setting == RemovedModelJobs::Fail).then(|| RemovedModels::new(self.work.clone(), consumer));
        Self { removed, ..self }
    }

    /// Works until `shutdown` begins.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            match shutdown.run_until_cancelled(self.round()).await {
                // The connection itself logs a wrong topology, once.
                Some(Ok(()) | Err(StoreError::WrongTopology(_))) => {}
                Some(Err(error)) => warn!(action = "upkeep_failed", error = telemetry::chain(&error)),
                None => break,
            }
        }
        self.report(None);
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let streams: Vec<_> = self.served.models().into_iter().flat_map(Stream::all_of).collect();
        let workers = self.work.workers().await?;
        if let Some(removed) = &self.removed {
            removed.fail_jobs(&workers).await?;
        }
        let live: Vec<String> = workers.into_iter().map(|worker| worker.id).collect();
        let mut outcome = match self.watch_logs().await {
            // The worker's user has the rights of an older ACL file. The proxies watch the logs, too.
            Err(StoreError::Forbidden(_)) => Ok(()),
            outcome => outcome,
        };
        for partition in self.reachable() {
            outcome = outcome.and(self.tidy(partition, &streams, &live).await);
        }
        outcome
    }

    /// The partitions that answer. A call would wait for another one, and the round with it.
    fn reachable(&self) -> impl Iterator<Item = u8> + use<> {
        let queue = self.work.queue().clone();
        self.work.queue().partitions().filter(move |partition| queue.primary(*partition).is_up())
    }

    async fn tidy(&mut self, partition: u8, streams: &[Stream], live: &[String]) -> Result<(), StoreError> {
        self.sweep(partition, Sweep::Expired).await?;
        self.sweep(partition, Sweep::All).await?;
        self.settle_charges(partition).await?;
        let silence = self.work.queue().policy().lease * SILENT_LEASES;
        let pruned = self.work.prune(partition, streams, live, silence).await?;
        if pruned > 0 {
            info!(action = "consumers_pruned", partition, count = pruned);
        }
        Ok(())
    }

    /// Reports jobs that Redis lost. They cannot be restored, but the loss must be seen.
    async fn watch_logs(&mut self) -> Result<(), StoreError> {
        let (mut logs, mut outcome) = (Vec::new(), Ok(()));
        for partition in self.reachable() {
            match self.work.log_mark(partition).await {
                Ok(mark) => logs.push((partition, mark)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.report(self.logs.went_back(&logs));
        self.logs.saw(&logs);
        outcome
    }

    fn report(&self, went_back: Option<u64>) {
        if let Some(loss) = Loss::of(self.leases.take_missing(), went_back) {
            metrics::data_lost(loss.at_least());
            error!(action = "redis_data_lost", jobs = loss.at_least(), reason = %loss);
        }
    }

    /// Drops charges that are due, and recounts their sums.
    async fn settle_charges(&self, partition: u8) -> Result<(), StoreError> {
        for _ in 0..MOST_DELETING_CHUNKS {
            if self.work.uncharge(partition, CHUNK).await? < CHUNK as u64 {
                break;
            }
        }
        for _ in 0..MOST_CHUNKS {
            let recounted = self.work.recount(partition, CHUNK).await?;
            if recounted.dropped > 0 {
                warn!(action = "charges_dropped", partition, count = recounted.dropped);
            }
            if recounted.is_done {
                break;
            }
        }
        Ok(())
    }

    async fn sweep(&mut self, partition: u8, what: Sweep) -> Result<(), StoreError> {
        let (mut deleting, mut others, mut pause) = (0, 0, self.stride());
        while deleting < MOST_DELETING_CHUNKS && others < MOST_CHUNKS {
            let began = Instant::now();
            let after = self.sweeps.get(&(partition, what)).map(String::as_str);
            let swept = match what {
                Sweep::Expired => self.work.sweep_expired(partition, after, CHUNK).await?,
                Sweep::All => self.work.sweep(partition, after, CHUNK).await?,
            };
            let deleted_most = swept.forgotten > CHUNK as u64 / 2;
            if deleted_most {
                (deleting, pause) = (deleting + 1, pause / 2);
            } else {
                (others, pause) = (others + 1, self.stride());
            }
            if swept.repaired > 0 {
                metrics::repaired(swept.repaired);
                warn!(action = "entries_repaired", partition, count = swept.repaired);
            }
            let Some(next) = swept.next else {
                self.sweeps.remove(&(partition, what));
                return Ok(());
            };
            self.sweeps.insert((partition, what), next);
            tokio::time::sleep(pause.max(began.elapsed())).await;
        }
        Ok(())
    }

    /// The pause between script runs with which a full walk takes a round. In one go it would hold up all clients of a Redis
    /// that may use a fifth of a processor, as in the composition: its whole share of 100 ms is gone after 20 runs.
    fn stride(&self) -> Duration {
        let partitions = u32::from(self.work.queue().policy().partitions).max(1);
        INTERVAL / (MOST_CHUNKS * partitions)
    }
}
