//! Chooses the partitions of jobs that may be in any: those whose primary can be reached and accepts jobs, in turn.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use tepal_shared::{
    job::{JobId, MOST_PARTITIONS, NewJob},
    queue::{Queue, error::StoreError, intake::Submitted},
};

/// How long a partition that refused a job gets none that may be elsewhere, s. A slot that is migrated between nodes of a cluster
/// refuses jobs for up to half a minute although its node answers.
const AVOIDED_FOR: u64 = 5;

/// The choice of partitions.
pub(super) struct Placement {
    queue: Queue,
    turn: AtomicUsize,
    /// When each partition last refused a job that went elsewhere, s; 0 = never.
    refused_at: [AtomicU64; MOST_PARTITIONS as usize],
    started: Instant,
}

impl Placement {
    pub(super) fn new(queue: Queue) -> Self {
        let refused_at = std::array::from_fn(|_| AtomicU64::new(0));
        Self { queue, turn: AtomicUsize::new(0), refused_at, started: Instant::now() }
    }

    /// The id of a job that may be in any partition.
    pub(super) fn new_id(&self) -> JobId {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let partitions = usize::from(self.queue.policy().partitions.clamp(1, MOST_PARTITIONS));
        let mut in_turn = (0..partitions).map(|step| (turn.wrapping_add(step) % partitions) as u8);
        let chosen = in_turn.find(|partition| self.accepts(*partition));
        JobId::new(chosen.unwrap_or((turn % partitions) as u8))
    }

    /// A new id in another partition, if nothing was stored because the partition of the job cannot be written at present. With an
    /// idempotency key a job belongs to its partition.
    pub(super) fn elsewhere(
        &self,
        (id, job): &(JobId, Arc<NewJob>),
        outcome: &Result<Submitted, StoreError>,
    ) -> Option<JobId> {
        let is_unreachable = matches!(outcome, Err(StoreError::Disconnected | StoreError::NotReady(_)));
        if !is_unreachable || job.idempotency.is_some() || self.queue.policy().partitions <= 1 {
            return None;
        }
        self.refused_at[usize::from(id.partition())].store(self.now(), Ordering::Relaxed);
        Some(self.new_id()).filter(|other| other.partition() != id.partition())
    }

    fn accepts(&self, partition: u8) -> bool {
        let refused_at = self.refused_at[usize::from(partition)].load(Ordering::Relaxed);
        let is_avoided = refused_at > 0 && self.now() < refused_at + AVOIDED_FOR;
        !is_avoided && self.queue.primary(partition).is_up()
    }

    /// Seconds, counted from 1.
    fn now(&self) -> u64 {
        1 + self.started.elapsed().as_secs()
    }
}
