//! Keeps the stored data in order: deletes what expired, repairs lost entries, adds up charges.

use std::time::Duration;

use crate::{
    job::Stream,
    queue::{
        error::StoreError,
        scripts::{PRUNE, RECOUNT, SWEEP, UNCHARGE, argument::millis, reply::Reply},
        work::handle::Work,
    },
};

/// The outcome of one part of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Where the next part begins; `None` = the newest job was reached.
    pub next: Option<String>,
    /// Log entries of expired jobs that were deleted.
    pub forgotten: u64,
    /// Outstanding jobs whose entry was lost, and was written again.
    pub repaired: u64,
}

/// The outcome of one part of a recount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recounted {
    /// Whether all charges of the partition are counted.
    pub is_done: bool,
    /// Stale charges that were deleted.
    pub dropped: u64,
}

impl Work {
    /// Walks up to `limit` log entries of the partition, oldest first, after the entry `after`.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn sweep(&self, partition: u8, after: Option<&str>, limit: usize) -> Result<Swept, StoreError> {
        self.sweep_older(Duration::ZERO, partition, after, limit).await
    }

    /// As [`Work::sweep`], but only of jobs that are older than the lifetime of a result. Only these can have expired, and most of
    /// them have.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn sweep_expired(
        &self,
        partition: u8,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Swept, StoreError> {
        self.sweep_older(self.queue.policy.result_ttl, partition, after, limit).await
    }

    async fn sweep_older(
        &self,
        age: Duration,
        partition: u8,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Swept, StoreError> {
        let mut command = SWEEP.call(&[self.queue.keys.log(partition)]);
        command
            .arg(self.queue.keys.job_prefix(partition))
            .arg(after.unwrap_or("-"))
            .arg(limit)
            .arg(millis(age));
        command.arg(self.queue.keys.idempotency(partition, ""));
        command.arg(self.queue.keys.stream_prefix(partition));
        let mut reply = Reply::new(&SWEEP, self.queue.primary(partition).run(&command).await?)?;
        reply.expect("swept")?;
        Ok(Swept {
            next: Some(reply.text("a log entry")?).filter(|entry| entry != "-"),
            forgotten: reply.count("the forgotten jobs")?,
            repaired: reply.count("the repaired jobs")?,
        })
    }

    /// Deletes up to `limit` charges of inputs and results that Redis has deleted. Returns their number.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn uncharge(&self, partition: u8, limit: usize) -> Result<u64, StoreError> {
        let mut command = UNCHARGE.call(&self.queue.keys.quota(partition));
        command.arg(limit);
        let mut reply = Reply::new(&UNCHARGE, self.queue.primary(partition).run(&command).await?)?;
        reply.expect("uncharged")?;
        reply.count("the dropped charges")
    }

    /// Adds up the next `limit` charges of the partition, from where the last call stopped. When all are counted, the new sums
    /// replace the old ones.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn recount(&self, partition: u8, limit: usize) -> Result<Recounted, StoreError> {
        let mut command = RECOUNT.call(&self.queue.keys.quota(partition));
        command.arg(self.queue.keys.job_prefix(partition)).arg(limit);
        let mut reply = Reply::new(&RECOUNT, self.queue.primary(partition).run(&command).await?)?;
        reply.expect("recounted")?;
        Ok(Recounted {
            is_done: reply.count("whether all are counted")? == 1,
            dropped: reply.count("the dropped charges")?,
        })
    }

    /// Removes the consumers of these streams that belong to none of the `live` workers, hold no entries and were idle for
    /// `silence`. Returns their number.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn prune(
        &self,
        partition: u8,
        streams: &[Stream],
        live: &[String],
        silence: Duration,
    ) -> Result<u64, StoreError> {
        let keys: Vec<_> = streams.iter().map(|stream| self.queue.keys.stream(partition, *stream)).collect();
        let mut command = PRUNE.call(&keys);
        command.arg(millis(silence)).arg(live);
        let mut reply = Reply::new(&PRUNE, self.queue.primary(partition).run(&command).await?)?;
        reply.expect("pruned")?;
        reply.count("the removed consumers")
    }
}
