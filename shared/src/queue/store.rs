//! The job store: one method for each transition of a job, plus the reads. Every transition is one Lua script that is
//! safe to repeat, so a call whose answer was lost is simply made again.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod log;
mod loss;
mod reads;
mod secret;
mod server;
mod settle;
mod submissions;
mod upkeep;
mod workers;

use std::{sync::Arc, time::Duration};

use redis::{Cmd, RedisError};
use tokio::sync::Semaphore;

use crate::{
    job::{Charge, Claim, JobId, MOST_PARTITIONS, Priority, owner::View},
    queue::{
        Policy,
        error::StoreError,
        keys::{Keys, inbox},
        link::{Answered, ConnectionSettings, Generation, Redis, Replicated, ReplicationPolicy},
        scripts::{self, Cancelled, Expired, Fence, Granted, NamedScript, Requeued},
    },
};

pub use log::{LogEntry, LogPage, LogPlace};
pub use loss::{LogMark, LogWatch, LookedUp, Loss};
pub use reads::{PartitionState, QueueState};
pub use secret::QueueSecret;
pub use server::{AofState, ServerState};
pub use upkeep::{Recounted, Swept};

/// What a consumer asks [`JobStore::take`] for.
#[derive(Debug)]
pub struct TakeRequest<'a> {
    /// Whose keys to look at.
    pub partition: u8,
    /// The consumer's name.
    pub consumer: &'a str,
    /// In which order the streams are read.
    pub order: [Priority; 3],
    /// Most jobs to grant.
    pub limit: usize,
    /// Grant no further job after this many bytes of input.
    pub max_bytes: usize,
    /// Where to go on looking for entries that are due again; `None` skips that.
    pub due_from: Option<&'a [String; 3]>,
}

/// Where a client's wish comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Whose jobs the client sees.
    pub view: View<'a>,
    /// Who pays for a large job that nobody owns, and what an owner or payer may keep; `None` = nothing is charged.
    pub charge: Option<&'a Charge>,
    /// Id of the HTTP request, for the logs.
    pub request_id: Option<&'a str>,
    /// W3C Trace Context header of the HTTP request.
    pub traceparent: Option<&'a str>,
}

/// How an attempt wants its job to go on.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// End it with this result, JSON.
    Complete(String),
    /// End it without a result.
    Fail {
        /// One word for programs.
        code: String,
        /// A sentence for the client.
        error: String,
    },
    /// Try again after this pause, at most the lease.
    Retry(Duration),
    /// Give it back without using an attempt.
    Release,
    /// The same, and count that its model call broke off.
    Broken,
}

/// The only code that changes jobs. Clones share one connection.
#[derive(Clone, Debug)]
pub struct JobStore {
    redis: Redis,
    /// For submissions that replicas must confirm.
    replicated: Option<Replicated>,
    keys: Keys,
    policy: Policy,
    gathered: submissions::Gathered,
    last_out_of_memory: server::LastOutOfMemory,
    acknowledged: loss::Acknowledged,
    /// Reads of many jobs take turns.
    large_reads: Arc<Semaphore>,
}

impl JobStore {
    /// A store of the queue that `keys` names.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys, policy: Policy) -> Self {
        let (gathered, last_out_of_memory, acknowledged) = Default::default();
        let large_reads = Arc::new(Semaphore::new(1));
        Self {
            redis,
            replicated: None,
            keys,
            policy,
            gathered,
            last_out_of_memory,
            acknowledged,
            large_reads,
        }
    }

    /// The same store, whose submissions are acknowledged only when replicas hold them.
    ///
    /// # Errors
    /// When the client library rejects the address.
    pub fn with_replication(
        mut self,
        settings: ConnectionSettings,
        policy: ReplicationPolicy,
    ) -> Result<Self, RedisError> {
        self.replicated = Some(Replicated::open(settings, policy)?);
        Ok(self)
    }

    /// Runs a script that accepts jobs.
    async fn run_submission(&self, command: &Cmd) -> Result<Answered, StoreError> {
        let outcome = self.submissions().run_on(command).await;
        outcome.inspect_err(|error| self.last_out_of_memory.note(error))
    }

    /// The connection for scripts that accept jobs.
    fn submissions(&self) -> &Redis {
        self.replicated.as_ref().map_or(&self.redis, Replicated::redis)
    }

    /// Waits until enough replicas have what was accepted on that connection.
    async fn confirmed(&self, generation: Generation) -> Result<(), StoreError> {
        match &self.replicated {
            Some(replicated) => replicated.confirmed(generation).await,
            None => Ok(()),
        }
    }

    /// The connection, for health checks and blocking reads.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The keys of this queue.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The numbers that this store works with.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Every partition's number.
    pub fn partitions(&self) -> impl Iterator<Item = u8> + use<> {
        (0..self.policy.partitions.min(MOST_PARTITIONS)).map(|partition| partition as u8)
    }

    /// Grants waiting jobs to a consumer.
    ///
    /// # Errors
    /// Any [`StoreError`]; jobs granted by a call whose answer was lost come back when their lease lapses.
    pub async fn take(&self, request: &TakeRequest<'_>) -> Result<Granted, StoreError> {
        let order: String =
            request.order.iter().map(|priority| stream_number(*priority).to_string()).collect();
        let mut command = self.grant_call(&scripts::TAKE, request.partition, request.consumer);
        command.arg(order).arg(request.limit).arg(request.max_bytes).arg(millis(self.policy.lease));
        match request.due_from {
            Some(cursors) => cursors.iter().for_each(|cursor| {
                command.arg(if cursor.is_empty() { "0-0" } else { cursor.as_str() });
            }),
            None => {
                command.arg("").arg("").arg("");
            }
        }
        command.arg(seconds(self.policy.failed_input_ttl));
        Granted::parse(&scripts::TAKE, self.redis.run(&command).await?)
    }

    /// Grants the jobs of entries that a blocking read delivered to the inbox of `consumer`, until they have `max_bytes` of
    /// input. The rest is due at once.
    ///
    /// # Errors
    /// As [`JobStore::take`].
    pub async fn start(
        &self,
        partition: u8,
        consumer: &str,
        max_bytes: usize,
    ) -> Result<Granted, StoreError> {
        Granted::started(self.redis.run(&self.start_call(partition, consumer, max_bytes)).await?)
    }

    pub(crate) fn start_call(&self, partition: u8, consumer: &str, max_bytes: usize) -> Cmd {
        let mut command = self.grant_call(&scripts::START, partition, consumer);
        command.arg(inbox(consumer)).arg(max_bytes).arg(millis(self.policy.lease));
        command.arg(seconds(self.policy.failed_input_ttl));
        command
    }

    /// What `take` and `start` begin with.
    fn grant_call(&self, script: &NamedScript, partition: u8, consumer: &str) -> Cmd {
        let [high, normal, low] = self.keys.streams(partition);
        let mut command =
            script.call(&[high, normal, low, self.keys.dead(partition), self.keys.alone(partition)]);
        command
            .arg(self.keys.job_prefix(partition))
            .arg(consumer)
            .arg(self.policy.max_lost)
            .arg(seconds(self.policy.result_ttl))
            .arg(self.policy.max_dead_letters);
        command
    }

    /// Extends the lease of jobs that `consumer` runs, all of one partition; returns those that it must stop running.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn renew(
        &self,
        partition: u8,
        consumer: &str,
        held: &[Claim],
    ) -> Result<Vec<(JobId, Fence)>, StoreError> {
        let mut command = scripts::RENEW.call(&self.keys.streams(partition));
        command.arg(self.keys.job_prefix(partition)).arg(consumer);
        for Claim { job_id, token, priority } in held {
            command.arg(job_id.to_string()).arg(*token).arg(stream_number(*priority));
        }
        scripts::parse_renewed(self.redis.run(&command).await?)
    }

    /// Cancels a job that has not ended, if the caller sees it.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn cancel(&self, id: JobId, view: View<'_>) -> Result<Cancelled, StoreError> {
        let [high, normal, low] = self.keys.streams(id.partition());
        let mut command = scripts::CANCEL.call(&[self.keys.job(id), high, normal, low]);
        command.arg(seconds(self.policy.result_ttl)).arg(view.as_argument());
        command.arg(seconds(self.policy.failed_input_ttl));
        Cancelled::parse(self.redis.run(&command).await?)
    }

    /// Submits the input of the failed or cancelled job `old` again as `id`, which must be in the same partition, if the
    /// caller sees the old job. Both have the same owner.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn requeue(&self, old: JobId, id: JobId, origin: Origin<'_>) -> Result<Requeued, StoreError> {
        let partition = old.partition();
        let [high, normal, low] = self.keys.streams(partition);
        let [log, old_job, input] = [self.keys.log(partition), self.keys.job(old), self.keys.input(old)];
        let mut command = scripts::REQUEUE.call(&[self.keys.job(id), high, normal, low, log, old_job, input]);
        command
            .arg(id.to_string())
            .arg(old.to_string())
            .arg(self.policy.max_queue_depth)
            .arg(&id.as_bytes()[..])
            .arg(origin.view.as_argument())
            .arg(origin.charge.map_or(0, |charge| charge.most_bytes))
            .arg(origin.charge.map_or("", |charge| &charge.payer));
        add_origin(&mut command, origin.request_id, origin.traceparent);
        let Answered { generation, value, earlier } = self.run_submission(&command).await?;
        let requeued = Requeued::parse(value)?;
        match (requeued, earlier) {
            (Requeued::Accepted, _) => {
                self.confirmed(generation).await?;
                self.acknowledged.add([id].into_iter(), generation);
            }
            // The earlier sending may find room.
            (Requeued::Full { .. } | Requeued::OverQuota { .. }, Some(error)) => return Err(error),
            _ => {}
        }
        Ok(requeued)
    }

    /// Fails a job that has missed one of its own deadlines.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn expire(&self, id: JobId) -> Result<Expired, StoreError> {
        let [high, normal, low] = self.keys.streams(id.partition());
        let keys = [self.keys.job(id), high, normal, low, self.keys.dead(id.partition())];
        let mut command = scripts::EXPIRE.call(&keys);
        command
            .arg(id.to_string())
            .arg(seconds(self.policy.result_ttl))
            .arg(self.policy.max_dead_letters)
            .arg(seconds(self.policy.failed_input_ttl));
        Expired::parse(self.redis.run(&command).await?)
    }
}

fn add_origin(command: &mut Cmd, request_id: Option<&str>, traceparent: Option<&str>) {
    for (field, value) in [("request_id", request_id), ("traceparent", traceparent)] {
        if let Some(value) = value {
            command.arg(field).arg(value);
        }
    }
}

/// No longer than what Lua can add to a time and still count exactly, which is up to 2^53.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).min(1 << 52)
}

/// A lifetime for Redis, which takes 0 for none at all.
fn seconds(span: Duration) -> u64 {
    span.as_secs().max(1)
}

fn stream_number(priority: Priority) -> usize {
    match priority {
        Priority::High => 1,
        Priority::Normal => 2,
        Priority::Low => 3,
    }
}
