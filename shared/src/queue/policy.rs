//! Time limits, lifetimes and other limits of a queue.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::job::JobId;

/// The largest expected difference between the clocks of two machines. A job that may expire within this time need not exist.
const MARGIN: Duration = Duration::from_secs(5);

/// Time limits, lifetimes and other limits of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a worker owns a job without renewing its lease.
    pub lease: Duration,
    /// How long a terminal job is kept.
    pub result_ttl: Duration,
    /// How long the input of a failed or cancelled job is kept, at most `result_ttl`.
    pub failed_input_ttl: Duration,
    /// A job fails when its worker was lost this many times.
    pub max_lost: u32,
    /// Largest number of outstanding jobs of a partition; 0 = no limit.
    pub max_queue_depth: u64,
    /// Largest number of dead letters of a model in a partition.
    pub max_dead_letters: u64,
    /// Number of partitions, 1 to [`MOST_PARTITIONS`](crate::job::MOST_PARTITIONS).
    pub partitions: u16,
    /// A worker without a heartbeat for this long counts as dead.
    pub worker_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            result_ttl: Duration::from_secs(86_400),
            failed_input_ttl: Duration::from_secs(43_200),
            max_lost: 3,
            max_queue_depth: 1_000_000,
            max_dead_letters: 10_000,
            partitions: 1,
            worker_timeout: Duration::from_secs(10),
        }
    }
}

impl Policy {
    /// Whether Redis must still have a job that it had at `since`. A job is kept for [`Policy::result_ttl`] after its end. Uses two
    /// clocks, of which one may have stopped or jumped.
    #[must_use]
    pub fn must_exist(&self, id: JobId, since: Instant) -> bool {
        let created = UNIX_EPOCH + Duration::from_millis(id.created_ms());
        let age = SystemTime::now().duration_since(created).unwrap_or_default();
        age.max(since.elapsed()) + MARGIN < self.result_ttl
    }
}
