//! Claims waiting jobs for a consumer, and renews their leases.

use redis::Cmd;

use crate::{
    job::{Claim, JobId, Priority},
    queue::{
        error::StoreError,
        keys::inbox,
        scripts::{
            self, NamedScript,
            argument::{millis, seconds, stream_number},
        },
        work::{
            handle::Work,
            outcome::{Fence, Granted, parse_renewed},
        },
    },
};

/// Arguments of [`Work::take`].
#[derive(Debug)]
pub struct TakeRequest<'a> {
    /// The partition.
    pub partition: u8,
    /// The consumer's name.
    pub consumer: &'a str,
    /// The order in which the streams are read.
    pub order: [Priority; 3],
    /// Largest number of jobs to claim.
    pub limit: usize,
    /// Claim no further job after this many bytes of input.
    pub max_bytes: usize,
    /// Where the search for entries that are due again continues; `None` = do not search.
    pub due_from: Option<&'a [String; 3]>,
}

impl Work {
    /// Claims waiting jobs for a consumer.
    ///
    /// # Errors
    /// Any [`StoreError`]. If the reply is lost, the claimed jobs are due again when their lease lapses.
    pub async fn take(&self, request: &TakeRequest<'_>) -> Result<Granted, StoreError> {
        let order: String =
            request.order.iter().map(|priority| stream_number(*priority).to_string()).collect();
        let mut command = self.grant_call(&scripts::TAKE, request.partition, request.consumer);
        command.arg(order).arg(request.limit).arg(request.max_bytes).arg(millis(self.queue.policy.lease));
        match request.due_from {
            Some(cursors) => cursors.iter().for_each(|cursor| {
                command.arg(if cursor.is_empty() { "0-0" } else { cursor.as_str() });
            }),
            None => {
                command.arg("").arg("").arg("");
            }
        }
        command.arg(seconds(self.queue.policy.failed_input_ttl));
        Granted::parse(&scripts::TAKE, self.queue.redis.run(&command).await?)
    }

    /// Claims the jobs of entries that a blocking read delivered to the inbox of `consumer`, until they have `max_bytes` of input.
    /// The others are due at once.
    ///
    /// # Errors
    /// As [`Work::take`].
    pub async fn start(
        &self,
        partition: u8,
        consumer: &str,
        max_bytes: usize,
    ) -> Result<Granted, StoreError> {
        Granted::started(self.queue.redis.run(&self.start_call(partition, consumer, max_bytes)).await?)
    }

    pub(crate) fn start_call(&self, partition: u8, consumer: &str, max_bytes: usize) -> Cmd {
        let mut command = self.grant_call(&scripts::START, partition, consumer);
        command.arg(inbox(consumer)).arg(max_bytes).arg(millis(self.queue.policy.lease));
        command.arg(seconds(self.queue.policy.failed_input_ttl));
        command
    }

    /// The keys and arguments with which `take` and `start` begin.
    fn grant_call(&self, script: &NamedScript, partition: u8, consumer: &str) -> Cmd {
        let [high, normal, low] = self.queue.keys.streams(partition);
        let mut command = script.call(&[
            high,
            normal,
            low,
            self.queue.keys.dead(partition),
            self.queue.keys.alone(partition),
        ]);
        command
            .arg(self.queue.keys.job_prefix(partition))
            .arg(consumer)
            .arg(self.queue.policy.max_lost)
            .arg(seconds(self.queue.policy.result_ttl))
            .arg(self.queue.policy.max_dead_letters);
        command
    }

    /// Renews the leases of jobs that `consumer` runs, all of one partition. Returns the jobs that it must stop.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn renew(
        &self,
        partition: u8,
        consumer: &str,
        held: &[Claim],
    ) -> Result<Vec<(JobId, Fence)>, StoreError> {
        let mut command = scripts::RENEW.call(&self.queue.keys.streams(partition));
        command.arg(self.queue.keys.job_prefix(partition)).arg(consumer);
        for Claim { job_id, token, priority } in held {
            command.arg(job_id.to_string()).arg(*token).arg(stream_number(*priority));
        }
        parse_renewed(self.queue.redis.run(&command).await?)
    }
}
