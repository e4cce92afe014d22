//! A queue: its connections, its keys and its numbers.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};

use crate::{
    job::MOST_PARTITIONS,
    queue::{
        error::{StoreError, WrongTopology},
        keys::Keys,
        link::{Redis, is_redirection},
        policy::Policy,
    },
};

/// Pause after Redis did not answer at the start.
const PAUSE: Duration = Duration::from_secs(1);

/// A queue in Redis. Clones share the connections. What a service may do with it is in the roles that are made of it:
/// [`Intake`](super::intake::Intake), [`Work`](super::work::Work), [`Views`](super::views::Views).
#[derive(Clone, Debug)]
pub struct Queue {
    redis: Redis,
    /// The primary of each partition.
    primaries: Arc<[Redis]>,
    /// The primary of the keys that belong to no partition.
    primary_of_workers: Redis,
    pub(super) keys: Keys,
    pub(super) policy: Policy,
}

impl Queue {
    /// The queue that `keys` names.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys, policy: Policy) -> Self {
        // Of all that are possible: a job may be in a partition that this process does not use, because `PARTITIONS` differs.
        let primaries = (0..=u8::MAX).map(|partition| redis.of_key(&keys.log(partition))).collect();
        let primary_of_workers = redis.of_key(&keys.workers());
        Self { redis, primaries, primary_of_workers, keys, policy }
    }

    /// The connection to any primary, for health checks and notifications.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The connection to the primary of the partition.
    #[must_use]
    pub fn primary(&self, partition: u8) -> &Redis {
        self.primaries.get(usize::from(partition)).unwrap_or(&self.redis)
    }

    /// The connection to the primary of the keys that belong to no partition.
    #[must_use]
    pub(super) fn primary_of_workers(&self) -> &Redis {
        &self.primary_of_workers
    }

    /// One handle for each primary.
    #[must_use]
    pub(super) fn servers(&self) -> Vec<&Redis> {
        let mut servers = Vec::<&Redis>::new();
        let primaries = self.partitions().map(|partition| self.primary(partition));
        for primary in primaries.chain([&self.primary_of_workers]) {
            if !servers.iter().any(|known| known.is_same(primary)) {
                servers.push(primary);
            }
        }
        servers
    }

    /// Runs commands, each on the primary of its partition, in one round trip to each primary. Returns one outcome for each, in order.
    /// A primary that does not answer fails only the commands that it was sent.
    pub(super) async fn ask(&self, calls: Vec<(u8, Cmd)>) -> Vec<Result<Value, StoreError>> {
        let mut outcomes: Vec<_> = calls.iter().map(|_| Err(StoreError::Disconnected)).collect();
        let mut pipelines = Vec::<(&Redis, Vec<(usize, u8)>, Pipeline)>::new();
        for (number, (partition, command)) in calls.into_iter().enumerate() {
            let primary = self.primary(partition);
            let known = pipelines.iter().position(|(known, ..)| known.is_same(primary));
            let place = known.unwrap_or_else(|| {
                let mut pipeline = Pipeline::new();
                pipeline.ignore_errors();
                pipelines.push((primary, Vec::new(), pipeline));
                pipelines.len() - 1
            });
            let (_, places, pipeline) = &mut pipelines[place];
            places.push((number, partition));
            pipeline.add_command(command);
        }
        let sent = pipelines.iter().map(async |(primary, places, pipeline)| {
            let (_, outcomes) = match primary.send_all(pipeline).await {
                Ok(answered) => answered,
                Err(error) => (0, places.iter().map(|_| Err(error.clone())).collect()),
            };
            let answered = pipeline.cmd_iter().zip(places).zip(outcomes);
            join_all(answered.map(async |((command, (number, partition)), outcome)| match outcome {
                outcome if is_redirection(&outcome) => (*number, self.primary(*partition).run(command).await),
                outcome => (*number, outcome),
            }))
            .await
        });
        for (number, outcome) in join_all(sent).await.into_iter().flatten() {
            outcomes[number] = outcome;
        }
        outcomes
    }

    /// Why this process must not use the queue: its jobs have another stored format, or some are in partitions that the process does
    /// not use. Waits for ever if neither is so when Redis first answers.
    pub async fn refused(&self) -> WrongTopology {
        tokio::select! {
            format = self.redis.refused_format() => format,
            partitions = self.refused_partitions() => partitions,
        }
    }

    async fn refused_partitions(&self) -> WrongTopology {
        let own = self.policy.partitions;
        loop {
            self.redis.up().await;
            // The log has an entry for each job that is kept.
            let first_entry = |partition: u8| {
                let mut command = redis::cmd("XRANGE");
                command.arg(self.keys.log(partition)).arg("-").arg("+").arg("COUNT").arg(1);
                (partition, command)
            };
            let others = (0..=u8::MAX).filter(|partition| u16::from(*partition) >= own);
            let logs = self.ask(others.clone().map(first_entry).collect()).await;
            let is_used = |log: &Result<Value, StoreError>| matches!(log, Ok(Value::Array(entries)) if !entries.is_empty());
            let used = others.zip(&logs).filter(|(_, log)| is_used(log)).map(|(partition, _)| partition);
            if let Some(last) = used.last() {
                return WrongTopology::FewerPartitions { found: u16::from(last) + 1, own };
            }
            // Nodes of a cluster that have no partition of this process are not asked.
            if logs.is_empty() || logs.iter().any(Result::is_ok) {
                return std::future::pending().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The numbers that the transitions use.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Every partition's number.
    pub fn partitions(&self) -> impl Iterator<Item = u8> + use<> {
        partitions(&self.policy)
    }
}

fn partitions(policy: &Policy) -> impl Iterator<Item = u8> + use<> {
    (0..policy.partitions.min(MOST_PARTITIONS)).map(|partition| partition as u8)
}
