//! The right to settle a job.

use super::{JobId, Priority};

/// The right to settle one job, until its lease lapses or another attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The job.
    pub job_id: JobId,
    /// Fencing token. Grows by one with each claim of the job; only the newest may write.
    pub token: u64,
    /// The stream that the job's entry is in.
    pub priority: Priority,
}
