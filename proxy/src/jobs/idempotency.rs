//! Idempotency keys: which record a key names, in which partition, and which request it belongs to.

use sha2::{Digest as _, Sha256, digest::Output};
use tepal_shared::job::{Idempotency, MOST_PARTITIONS};

use super::submission::Submission;

/// The key of a request, as its hash.
#[derive(Debug)]
pub(crate) struct IdempotencyKey {
    hash: Output<Sha256>,
}

impl IdempotencyKey {
    /// The key with this text. Each owner has its own keys. Neither an owner nor a key contains a zero byte.
    pub(crate) fn new(text: &[u8], owner: Option<&str>) -> Self {
        let mut hash = Sha256::new();
        if let Some(owner) = owner {
            hash.update(owner);
            hash.update([0]);
        }
        Self { hash: hash.chain_update(text).finalize() }
    }

    /// The key of one job of a batch: sending the batch again leads to the same jobs.
    pub(crate) fn of_item(&self, index: usize) -> Self {
        let hash = Sha256::new().chain_update(self.hash).chain_update((index as u64).to_be_bytes());
        Self { hash: hash.finalize() }
    }

    /// The partition that holds the key's record. Requests with the same key must use the same partition.
    pub(crate) fn partition(&self, partitions: u16) -> u8 {
        let number = u16::from_be_bytes([self.hash[0], self.hash[1]]);
        (number % partitions.clamp(1, MOST_PARTITIONS)) as u8
    }

    /// The record of the key, with the fingerprint of its request.
    pub(crate) fn of(&self, submission: &Submission) -> Idempotency {
        let Submission { model, input, priority, max_queue, timeout, rows: _, charge: _ } = submission;
        let [max_queue_ms, timeout_ms] =
            [max_queue, timeout].map(|span| span.map_or(0, |span| span.as_millis()));
        // The hashed bytes must stay the same in all versions, because records outlive an upgrade by a day. Equal tensors are equal
        // bytes, however the client wrote the numbers.
        let members = format!("{} {priority} {max_queue_ms} {timeout_ms} ", model.name);
        let request = Sha256::new().chain_update(members).chain_update(input);
        Idempotency { key_hash: format!("{:x}", self.hash), fingerprint: format!("{:x}", request.finalize()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::jobs::models::iris;

    #[test]
    fn the_hash_is_sha_256_in_hex() {
        let record = IdempotencyKey::new(b"abc", None).of(&Submission::new(iris()));
        // FIPS 180-2, appendix B.1.
        assert_eq!(record.key_hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(record.fingerprint.len(), 64);
    }

    #[test]
    fn each_owner_has_keys_of_its_own() {
        let hashes: HashSet<_> =
            [None, Some("a"), Some("b")].map(|owner| IdempotencyKey::new(b"order-1", owner).hash).into();
        assert_eq!(hashes.len(), 3);
    }

    #[test]
    fn keys_spread_over_all_partitions() {
        let partition = |n| IdempotencyKey::new(format!("key-{n}").as_bytes(), None).partition(16);
        let hit: HashSet<u8> = (0..2000).map(partition).collect();
        assert_eq!(hit.len(), 16);
    }
}
