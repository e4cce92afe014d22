//! Looks up acknowledged jobs, to notice that Redis lost some.

use std::collections::HashMap;

use redis::{Pipeline, Value};

use crate::queue::{error::StoreError, intake::handle::Intake, link::Generation, loss::LookedUp};

/// Largest number of commands in a pipeline.
const CHUNK: usize = 512;

impl Intake {
    /// Looks up the last jobs that this process acknowledged: those that were not seen on the present connection, and all of the
    /// `doubtful` partitions. Sends nothing if there are none. Forgets jobs that are gone. After a failure, the next call looks up
    /// the same jobs again.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn look_up_acknowledged(&self, doubtful: &[u8]) -> Result<LookedUp, StoreError> {
        let redis = self.submissions();
        let due = self.acknowledged.due(redis.generation()?, doubtful);
        let (mut exists, mut oldest) = (HashMap::with_capacity(due.len()), Generation::MAX);
        for jobs in due.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(jobs.len());
            pipeline.ignore_errors();
            for job in jobs {
                pipeline.cmd("HGET").arg(self.queue.keys.job(job.id)).arg("status");
            }
            let (generation, outcomes) = redis.run_all_on(&pipeline).await?;
            oldest = oldest.min(generation);
            for (job, status) in jobs.iter().zip(outcomes) {
                exists.insert(job.id, status? != Value::Nil);
            }
        }
        self.acknowledged.looked_up(&exists, oldest);
        let expected: Vec<_> =
            due.iter().filter(|job| self.queue.policy.must_exist(job.id, job.since)).collect();
        let missing = expected.iter().filter(|job| exists.get(&job.id) == Some(&false)).count();
        Ok(LookedUp { missing: missing as u64, of: expected.len() as u64 })
    }
}
