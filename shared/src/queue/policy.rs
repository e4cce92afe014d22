//! The numbers that the transitions need.

use std::time::Duration;

/// The numbers that the transitions need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a worker owns a job without renewing.
    pub lease: Duration,
    /// How long a terminal job is kept.
    pub result_ttl: Duration,
    /// How long the input of a failed or cancelled job is kept, at most `result_ttl`.
    pub failed_input_ttl: Duration,
    /// A job fails when its worker was lost this many times.
    pub max_lost: u32,
    /// Most outstanding jobs of a partition; 0 = no limit.
    pub max_queue_depth: u64,
    /// Most dead letters kept in a partition.
    pub max_dead_letters: u64,
    /// Number of partitions, 1 to [`MOST_PARTITIONS`](crate::job::MOST_PARTITIONS).
    pub partitions: u16,
    /// Silence after which a worker counts as dead.
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
