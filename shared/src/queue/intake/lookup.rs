//! Looks up acknowledged jobs, to notice that Redis lost some.

use std::collections::HashMap;

use futures_util::future::join_all;
use redis::{Pipeline, Value};

use crate::queue::{error::StoreError, intake::handle::Intake, loss::LookedUp};

impl Intake {
    /// Looks up the last jobs that this process acknowledged: those that were not seen on the present connection, and all of the
    /// `doubtful` partitions. Sends nothing if there are none. Forgets jobs that are gone. The next call looks up again what could not
    /// be looked up.
    ///
    /// # Errors
    /// Any [`StoreError`], if nothing could be looked up.
    pub async fn look_up_acknowledged(&self, doubtful: &[u8]) -> Result<LookedUp, StoreError> {
        let partitions = self.acknowledged.partitions();
        let looks = partitions.iter().map(|partition| self.look_up(*partition, doubtful.contains(partition)));
        let (mut sum, mut failure, mut is_any) = (LookedUp::default(), None, partitions.is_empty());
        for looked_up in join_all(looks).await {
            match looked_up {
                Ok(LookedUp { missing, of }) => {
                    is_any = true;
                    sum = LookedUp { missing: sum.missing + missing, of: sum.of + of };
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.filter(|_| !is_any).map_or(Ok(sum), Err)
    }

    async fn look_up(&self, partition: u8, is_doubtful: bool) -> Result<LookedUp, StoreError> {
        let primary = self.changes(partition);
        let due = self.acknowledged.due(partition, primary.generation()?, is_doubtful);
        let mut pipeline = Pipeline::with_capacity(due.len());
        pipeline.ignore_errors();
        for job in &due {
            pipeline.cmd("HGET").arg(self.queue.keys.job(job.id)).arg("status");
        }
        let (generation, outcomes) = primary.run_all_on(&pipeline).await?;
        let mut exists = HashMap::with_capacity(due.len());
        for (job, status) in due.iter().zip(outcomes) {
            exists.insert(job.id, status? != Value::Nil);
        }
        self.acknowledged.looked_up(partition, &exists, generation);
        let expected = due.iter().filter(|job| self.queue.policy.must_exist(job.id, job.since));
        let missing = expected.clone().filter(|job| exists.get(&job.id) == Some(&false)).count();
        Ok(LookedUp { missing: missing as u64, of: expected.count() as u64 })
    }
}
