//! Many jobs in one round trip.

use redis::Pipeline;

use super::JobStore;
use crate::{
    error::StoreError,
    job::{Job, JobId, NewJob},
    scripts::Submitted,
};

impl JobStore {
    /// Accepts the jobs, each by itself; one outcome for each, in order. Repeating it with the same ids is safe.
    ///
    /// # Errors
    /// When the round trip as a whole failed: after `Ambiguous` any of the jobs may have been accepted.
    pub async fn submit_all(
        &self,
        jobs: &[(JobId, NewJob)],
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(jobs.len());
        pipeline.ignore_errors();
        for (id, job) in jobs {
            pipeline.add_command(self.submit_call(*id, job));
        }
        let outcomes = match &self.replicated {
            Some(replicated) => replicated.run_all(&pipeline).await?,
            None => self.redis.run_all(&pipeline).await?,
        };
        Ok(outcomes.into_iter().map(|outcome| outcome.and_then(Submitted::parse)).collect())
    }

    /// The jobs as they stand, in order; `None` for one that is not there (any more).
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(ids.len());
        pipeline.ignore_errors();
        for id in ids {
            pipeline.add_command(self.read_call(*id));
        }
        let outcomes = self.redis.run_all(&pipeline).await?;
        ids.iter().zip(outcomes).map(|(id, outcome)| super::reads::job_from(*id, outcome?)).collect()
    }
}
