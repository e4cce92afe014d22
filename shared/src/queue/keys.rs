//! Every Redis key, as a function of its parts. The keys of one partition share a hash tag, so that a script's keys
//! are always in one Cluster slot (Redis Cluster specification, "Hash tags").

use std::sync::Arc;

use crate::{
    job::{JobId, ModelName, Stream},
    queue::slots::slots_of_tags,
};

/// The stored format that this version reads and writes: raw tensors. Format 1 had JSON texts and no number.
pub const STORED_FORMAT: u32 = 2;

/// Consumer group of the work streams.
pub const GROUP: &str = "workers";

/// The consumer to which the blocking reads of `consumer` deliver. It holds entries that are delivered but not started. Its name,
/// too, begins with the name of its worker.
#[must_use]
pub fn inbox(consumer: &str) -> String {
    format!("{consumer}:inbox")
}

/// The keys of one queue. Clones share the texts.
#[derive(Clone, Debug)]
pub struct Keys {
    workers: Arc<str>,
    /// What the keys of each partition begin with: its hash tag. A submission needs five keys.
    tags: Arc<[String]>,
}

impl Keys {
    /// Keys of the queue called `queue`.
    pub fn new(queue: impl Into<String>) -> Self {
        let queue = queue.into();
        let tags = (0..=u8::MAX).map(|partition| format!("{{{queue}:{partition}}}:")).collect();
        Self { workers: format!("{queue}:workers").into(), tags }
    }

    /// The same in a Redis Cluster. The tag of partition p is `{queue:p.n}`, and n is the smallest number that puts it into one
    /// certain 256th of the slots. Names alone would leave some primaries without a partition and give others twice their share. The
    /// 256ths follow each other in the order of the reversed bits of p, so the first 2, 4, 8 and so on are evenly spread, too.
    pub fn in_cluster(queue: impl Into<String>) -> Self {
        let queue = queue.into();
        let tag = |partition: u8| {
            let first = 64 * u16::from(partition.reverse_bits());
            let slot = slots_of_tags(&format!("{queue}:{partition}."));
            let mut numbers = (0..u32::MAX).map(|n| n.to_string());
            let n = numbers.find(|n| (first..first + 64).contains(&slot(n)));
            n.map_or_else(|| format!("{{{queue}:{partition}}}:"), |n| format!("{{{queue}:{partition}.{n}}}:"))
        };
        Self { workers: format!("{queue}:workers").into(), tags: (0..=u8::MAX).map(tag).collect() }
    }

    /// Unfinished jobs of a model and a priority: a stream whose entries hold only a job id.
    #[must_use]
    pub fn stream(&self, partition: u8, Stream { model, priority }: Stream) -> String {
        [self.tag(partition), "stream:", model.as_str(), ":", priority.as_str()].concat()
    }

    /// The three streams of a model, in the order of their numbers in the scripts.
    #[must_use]
    pub fn streams(&self, partition: u8, model: ModelName) -> [String; 3] {
        Stream::all_of(model).map(|stream| self.stream(partition, stream))
    }

    /// Prefix of the keys of all streams of the partition. `<model>:<priority>` follows.
    #[must_use]
    pub fn stream_prefix(&self, partition: u8) -> String {
        self.key(partition, "stream:", "")
    }

    /// Prefix of the keys of all job hashes of the partition.
    #[must_use]
    pub fn job_prefix(&self, partition: u8) -> String {
        self.key(partition, "job:", "")
    }

    /// The job's hash, and the channel on which changes of its status are published.
    #[must_use]
    pub fn job(&self, id: JobId) -> String {
        self.key(id.partition(), "job:", &id.to_string())
    }

    /// The input of a job that failed or was cancelled; see `lua/end.lua`.
    #[must_use]
    pub fn input(&self, id: JobId) -> String {
        [self.input_prefix(id.partition()), id.to_string()].concat()
    }

    /// Prefix of the keys of all such inputs of the partition.
    #[must_use]
    pub fn input_prefix(&self, partition: u8) -> String {
        self.key(partition, "input:", "")
    }

    /// One entry for each accepted job, in time order.
    #[must_use]
    pub fn log(&self, partition: u8) -> String {
        self.key(partition, "log", "")
    }

    /// Since when, and up to which id, the ids of the log were ahead of the clock; see `lua/accept.lua`.
    #[must_use]
    pub fn log_ahead(&self, partition: u8) -> String {
        self.key(partition, "log:ahead", "")
    }

    /// Dead letters: jobs of a model that failed. The scripts derive this key from that of a stream, see `lua/end.lua`.
    #[must_use]
    pub fn dead(&self, partition: u8, model: ModelName) -> String {
        self.key(partition, "dead:", model.as_str())
    }

    /// The last job of a model that ran alone in the partition because its model call broke off. The scripts derive it, too.
    #[must_use]
    pub fn alone(&self, partition: u8, model: ModelName) -> String {
        self.key(partition, "alone:", model.as_str())
    }

    /// The charges of payers, their sums, and the sums of a recount; see `lua/quota.lua`.
    #[must_use]
    pub fn quota(&self, partition: u8) -> [String; 3] {
        ["charges", "bytes", "recount"].map(|name| self.key(partition, "quota:", name))
    }

    /// Prefix of these keys of the partition.
    #[must_use]
    pub fn quota_prefix(&self, partition: u8) -> String {
        self.key(partition, "quota:", "")
    }

    /// The record of an idempotency key, by the key's hash.
    #[must_use]
    pub fn idempotency(&self, partition: u8, key_hash: &str) -> String {
        self.key(partition, "idem:", key_hash)
    }

    /// The queue's secret, from which the proxies derive their keys. A worker must not read it, see compose/users.acl.
    #[must_use]
    pub fn secret(&self) -> String {
        self.key(0, "secret", "")
    }

    /// Number of the stored format.
    #[must_use]
    pub fn format(&self) -> String {
        self.key(0, "format", "")
    }

    /// The work streams of format 1, which had no number.
    #[must_use]
    pub fn former_streams(&self, partition: u8) -> [String; 3] {
        ["high", "normal", "low"].map(|priority| self.key(partition, "stream:", priority))
    }

    /// The descriptions of the models, by their names.
    #[must_use]
    pub fn models(&self) -> String {
        self.key(0, "models", "")
    }

    /// The heartbeats of the workers.
    #[must_use]
    pub fn workers(&self) -> String {
        self.workers.to_string()
    }

    fn key(&self, partition: u8, kind: &str, rest: &str) -> String {
        [self.tag(partition), kind, rest].concat()
    }

    fn tag(&self, partition: u8) -> &str {
        &self.tags[usize::from(partition)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::slots::slot_of;

    #[test]
    fn the_partitions_of_a_cluster_are_spread_over_the_slots() {
        let keys = Keys::in_cluster("predict_queue");
        let slots: Vec<_> = (0..=u8::MAX).map(|partition| slot_of(&keys.log(partition))).collect();
        for partitions in [1, 2, 4, 16, 64, 256] {
            let width = 16_384 / partitions;
            let mut taken: Vec<_> =
                slots[..partitions].iter().map(|slot| usize::from(*slot) / width).collect();
            taken.sort_unstable();
            assert_eq!(taken, (0..partitions).collect::<Vec<_>>(), "{partitions} partitions");
        }
        assert_eq!(Keys::in_cluster("predict_queue").log(3), keys.log(3), "all processes find the same");
        assert!(keys.log(3).starts_with("{predict_queue:3."), "{}", keys.log(3));
    }

    #[test]
    fn keys_of_a_partition_share_its_hash_tag() {
        let keys = Keys::new("predict_queue");
        let (id, model) = (JobId::new(7), "m".parse().unwrap());
        for key in [
            keys.stream(7, Stream::all_of(model)[0]),
            keys.job(id),
            keys.input(id),
            keys.log(7),
            keys.log_ahead(7),
            keys.dead(7, model),
            keys.alone(7, model),
            keys.idempotency(7, "ab"),
        ] {
            assert!(key.starts_with("{predict_queue:7}:"), "{key}");
        }
        assert!(keys.quota(7).iter().all(|key| key.starts_with("{predict_queue:7}:quota:")));
        assert_eq!(keys.job(id), format!("{}{id}", keys.job_prefix(7)));
        let streams = keys.streams(7, model);
        assert_eq!(streams, ["m:high", "m:normal", "m:low"].map(|rest| keys.stream_prefix(7) + rest));
    }
}
