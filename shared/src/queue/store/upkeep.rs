//! What keeps the stored data in order: forgetting what expired, and repairing what an operator broke.

use std::time::Duration;

use super::{JobStore, millis};
use crate::queue::{
    error::StoreError,
    scripts::{self, Reply},
};

/// What a part of a sweep found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Where the next part begins; `None` when the newest job was reached.
    pub next: Option<String>,
    /// Log entries of expired jobs, removed.
    pub forgotten: u64,
    /// Outstanding jobs that nobody would ever have been given, queued again.
    pub repaired: u64,
}

/// What a part of a recount did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recounted {
    /// Whether all charges of the partition are counted.
    pub is_done: bool,
    /// Charges that should not have been there any more.
    pub dropped: u64,
}

impl JobStore {
    /// Looks at up to `limit` jobs of the partition, oldest first, from `after` on.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn sweep(&self, partition: u8, after: Option<&str>, limit: usize) -> Result<Swept, StoreError> {
        self.sweep_older(Duration::ZERO, partition, after, limit).await
    }

    /// Like [`JobStore::sweep`], but only of jobs that were accepted longer ago than a result is kept. No others can have
    /// expired, and of these most have.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn sweep_expired(
        &self,
        partition: u8,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Swept, StoreError> {
        self.sweep_older(self.policy.result_ttl, partition, after, limit).await
    }

    async fn sweep_older(
        &self,
        age: Duration,
        partition: u8,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Swept, StoreError> {
        let [high, normal, low] = self.keys.streams(partition);
        let mut command = scripts::SWEEP.call(&[self.keys.log(partition), high, normal, low]);
        command.arg(self.keys.job_prefix(partition)).arg(after.unwrap_or("-")).arg(limit).arg(millis(age));
        command.arg(self.keys.idempotency(partition, ""));
        let mut reply = Reply::new(&scripts::SWEEP, self.redis.run(&command).await?)?;
        match reply.word()?.as_str() {
            "swept" => Ok(Swept {
                next: Some(reply.text("a log entry")?).filter(|entry| entry != "-"),
                forgotten: reply.count("the forgotten jobs")?,
                repaired: reply.count("the repaired jobs")?,
            }),
            word => reply.unknown(word),
        }
    }

    /// Drops up to `limit` charges of inputs and results that Redis has deleted; returns how many.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn uncharge(&self, partition: u8, limit: usize) -> Result<u64, StoreError> {
        let mut command = scripts::UNCHARGE.call(&self.keys.quota(partition));
        command.arg(limit);
        let mut reply = Reply::new(&scripts::UNCHARGE, self.redis.run(&command).await?)?;
        match reply.word()?.as_str() {
            "uncharged" => reply.count("the dropped charges"),
            word => reply.unknown(word),
        }
    }

    /// Adds up to `limit` charges of the partition anew, from where the last call stopped. When all are counted, the new sums
    /// take the place of the old ones.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn recount(&self, partition: u8, limit: usize) -> Result<Recounted, StoreError> {
        let mut command = scripts::RECOUNT.call(&self.keys.quota(partition));
        command.arg(self.keys.job_prefix(partition)).arg(limit);
        let mut reply = Reply::new(&scripts::RECOUNT, self.redis.run(&command).await?)?;
        match reply.word()?.as_str() {
            "recounted" => Ok(Recounted {
                is_done: reply.count("whether all are counted")? == 1,
                dropped: reply.count("the dropped charges")?,
            }),
            word => reply.unknown(word),
        }
    }

    /// Removes consumers of the partition that belong to none of the `live` workers, hold nothing and were silent for
    /// `silence`; returns how many.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn prune(&self, partition: u8, live: &[String], silence: Duration) -> Result<u64, StoreError> {
        let mut command = scripts::PRUNE.call(&self.keys.streams(partition));
        command.arg(millis(silence)).arg(live);
        let mut reply = Reply::new(&scripts::PRUNE, self.redis.run(&command).await?)?;
        match reply.word()?.as_str() {
            "pruned" => reply.count("the removed consumers"),
            word => reply.unknown(word),
        }
    }
}
