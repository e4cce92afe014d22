//! Every Redis key, as a function of its parts. The keys of one partition share a hash tag, so that a script's keys
//! are always in one Cluster slot (Redis Cluster specification, "Hash tags").

use crate::job::{JobId, Priority};

/// Consumer group of the work streams.
pub const GROUP: &str = "workers";

/// The consumer to which the blocking reads of `consumer` deliver: it holds what is delivered and not started yet. Its name
/// begins with that of its worker, too.
#[must_use]
pub fn inbox(consumer: &str) -> String {
    format!("{consumer}:inbox")
}

/// Names the keys of one queue.
#[derive(Clone, Debug)]
pub struct Keys {
    queue: String,
}

impl Keys {
    /// Keys of the queue called `queue`.
    pub fn new(queue: impl Into<String>) -> Self {
        Self { queue: queue.into() }
    }

    /// Outstanding work of one priority: a stream whose entries carry only a job id.
    #[must_use]
    pub fn stream(&self, partition: u8, priority: Priority) -> String {
        self.key(partition, "stream:", priority.as_str())
    }

    /// The three work streams in the order of their numbers in the scripts.
    #[must_use]
    pub fn streams(&self, partition: u8) -> [String; 3] {
        Priority::ALL.map(|priority| self.stream(partition, priority))
    }

    /// What every job hash's key of the partition begins with.
    #[must_use]
    pub fn job_prefix(&self, partition: u8) -> String {
        self.key(partition, "job:", "")
    }

    /// The job's hash; also the channel on which its end is published.
    #[must_use]
    pub fn job(&self, id: JobId) -> String {
        self.key(id.partition(), "job:", &id.to_string())
    }

    /// The input of a job that failed or was cancelled; see `lua/end.lua`.
    #[must_use]
    pub fn input(&self, id: JobId) -> String {
        [self.input_prefix(id.partition()), id.to_string()].concat()
    }

    /// What every such key of the partition begins with.
    #[must_use]
    pub fn input_prefix(&self, partition: u8) -> String {
        self.key(partition, "input:", "")
    }

    /// One entry for each accepted job, in time order.
    #[must_use]
    pub fn log(&self, partition: u8) -> String {
        self.key(partition, "log", "")
    }

    /// Between which times, and up to which id, the log's ids were ahead of the clock; see `lua/accept.lua`.
    #[must_use]
    pub fn log_ahead(&self, partition: u8) -> String {
        self.key(partition, "log:ahead", "")
    }

    /// Jobs that failed for good.
    #[must_use]
    pub fn dead(&self, partition: u8) -> String {
        self.key(partition, "dead", "")
    }

    /// The job that was the last to run because a model call with it alone broke off.
    #[must_use]
    pub fn alone(&self, partition: u8) -> String {
        self.key(partition, "alone", "")
    }

    /// What payers keep: the charges, their sums, and the sums of a recount; see `lua/quota.lua`.
    #[must_use]
    pub fn quota(&self, partition: u8) -> [String; 3] {
        ["charges", "bytes", "recount"].map(|name| self.key(partition, "quota:", name))
    }

    /// What all of these keys of the partition begin with.
    #[must_use]
    pub fn quota_prefix(&self, partition: u8) -> String {
        self.key(partition, "quota:", "")
    }

    /// The record of an idempotency key, by the key's hash.
    #[must_use]
    pub fn idempotency(&self, partition: u8, key_hash: &str) -> String {
        self.key(partition, "idem:", key_hash)
    }

    /// What the proxies derive their keys from. A worker must not read it, see compose/users.acl.
    #[must_use]
    pub fn secret(&self) -> String {
        self.key(0, "secret", "")
    }

    /// The live workers and what they say of themselves.
    #[must_use]
    pub fn workers(&self) -> String {
        format!("{}:workers", self.queue)
    }

    /// A submission needs five keys, and `format!` takes twice as long.
    fn key(&self, partition: u8, kind: &str, rest: &str) -> String {
        ["{", &self.queue, ":", &partition.to_string(), "}:", kind, rest].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_partition_share_its_hash_tag() {
        let keys = Keys::new("predict_queue");
        let id = JobId::new(7);
        for key in [
            keys.stream(7, Priority::High),
            keys.job(id),
            keys.input(id),
            keys.log(7),
            keys.log_ahead(7),
            keys.dead(7),
            keys.alone(7),
            keys.idempotency(7, "ab"),
        ] {
            assert!(key.starts_with("{predict_queue:7}:"), "{key}");
        }
        assert!(keys.quota(7).iter().all(|key| key.starts_with("{predict_queue:7}:quota:")));
        assert_eq!(keys.job(id), format!("{}{id}", keys.job_prefix(7)));
    }
}
