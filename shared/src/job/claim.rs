//! The right to settle a job.

use super::{JobId, ModelName, Priority};

/// The right to settle one job, until its lease lapses or another attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The job.
    pub job_id: JobId,
    /// Fencing token. Grows by one with each claim of the job; only the newest may write.
    pub token: u64,
    /// The stream that the job's entry is in.
    pub stream: Stream,
}

/// A stream of unfinished jobs. Each partition has one for each model and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The model of its jobs.
    pub model: ModelName,
    /// Their priority.
    pub priority: Priority,
}

impl Stream {
    /// The streams of a model.
    #[must_use]
    pub fn all_of(model: ModelName) -> [Self; 3] {
        Priority::ALL.map(|priority| Self { model, priority })
    }
}
