//! Claims waiting jobs for a consumer, and renews their leases.

use redis::Cmd;

use crate::{
    job::{Claim, JobId, Stream},
    queue::{
        error::StoreError,
        keys::inbox,
        scripts::{
            self, NamedScript,
            argument::{millis, seconds},
        },
        work::{
            handle::Work,
            outcome::{Fence, Granted, parse_renewed},
        },
    },
};

/// An id before that of every entry.
const OLDEST: &str = "0-0";

/// Arguments of [`Work::take`].
#[derive(Debug)]
pub struct TakeRequest<'a> {
    /// The partition.
    pub partition: u8,
    /// The consumer's name.
    pub consumer: &'a str,
    /// The streams, of any models, in the order in which they are searched and read.
    pub streams: &'a [Stream],
    /// Largest number of jobs to claim.
    pub limit: usize,
    /// Claim no further job after this many bytes of input.
    pub max_bytes: usize,
    /// Where the search for entries that are due again continues in each stream; `None` = do not search. An empty text is the oldest
    /// entry.
    pub due_from: Option<&'a [String]>,
}

impl Work {
    /// Claims waiting jobs for a consumer.
    ///
    /// # Errors
    /// Any [`StoreError`]. If the reply is lost, the claimed jobs are due again when their lease lapses.
    pub async fn take(&self, request: &TakeRequest<'_>) -> Result<Granted, StoreError> {
        let mut command =
            self.grant_call(&scripts::TAKE, request.partition, request.consumer, request.streams);
        command.arg(request.limit).arg(request.max_bytes).arg(millis(self.queue.policy.lease));
        command.arg(seconds(self.queue.policy.failed_input_ttl));
        if let Some(cursors) = request.due_from {
            for (_, cursor) in request.streams.iter().zip(cursors) {
                command.arg(if cursor.is_empty() { OLDEST } else { cursor });
            }
        }
        let reply = self.queue.primary(request.partition).run(&command).await?;
        Granted::parse(&scripts::TAKE, reply, request.streams)
    }

    /// Claims the jobs of entries that a blocking read of these streams delivered to the inbox of `consumer`, until they have
    /// `max_bytes` of input. The others are due at once.
    ///
    /// # Errors
    /// As [`Work::take`].
    pub async fn start(
        &self,
        partition: u8,
        consumer: &str,
        streams: &[Stream],
        max_bytes: usize,
    ) -> Result<Granted, StoreError> {
        let call = self.start_call(partition, consumer, streams, max_bytes);
        Granted::started(self.queue.primary(partition).run(&call).await?, streams)
    }

    pub(crate) fn start_call(
        &self,
        partition: u8,
        consumer: &str,
        streams: &[Stream],
        max_bytes: usize,
    ) -> Cmd {
        let mut command = self.grant_call(&scripts::START, partition, consumer, streams);
        command.arg(inbox(consumer)).arg(max_bytes).arg(millis(self.queue.policy.lease));
        command.arg(seconds(self.queue.policy.failed_input_ttl));
        command
    }

    /// The keys and arguments with which `take` and `start` begin.
    fn grant_call(&self, script: &NamedScript, partition: u8, consumer: &str, streams: &[Stream]) -> Cmd {
        let keys: Vec<_> = streams.iter().map(|stream| self.queue.keys.stream(partition, *stream)).collect();
        let mut command = script.call(&keys);
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
        let mut streams = Vec::new();
        for Claim { stream, .. } in held {
            if !streams.contains(stream) {
                streams.push(*stream);
            }
        }
        let keys: Vec<_> = streams.iter().map(|stream| self.queue.keys.stream(partition, *stream)).collect();
        let mut command = scripts::RENEW.call(&keys);
        command.arg(self.queue.keys.job_prefix(partition)).arg(consumer);
        for Claim { job_id, token, stream } in held {
            let number = streams.iter().position(|of| of == stream).map_or(0, |index| index + 1);
            command.arg(job_id.to_string()).arg(*token).arg(number);
        }
        parse_renewed(self.queue.primary(partition).run(&command).await?)
    }
}
