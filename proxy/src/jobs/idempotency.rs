//! The `Idempotency-Key` header: which record it names, in which partition, and what request it belongs to.

use axum::http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256, digest::Output};
use tepal_shared::job::{Idempotency, MOST_PARTITIONS};

use crate::{
    error::{ApiError, Mistake},
    http::headers::{self, is_visible_ascii},
    jobs::submission::Submission,
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const NAME: &str = "Idempotency-Key";
/// Most characters of a key.
pub(crate) const LONGEST: usize = 255;

/// The request's key, as its hash.
#[derive(Debug)]
pub(crate) struct Key {
    hash: Output<Sha256>,
}

impl Key {
    /// The key of a request, if it has one. Each owner's keys are its own.
    pub(crate) fn read(headers: &HeaderMap, owner: Option<&str>) -> Result<Option<Self>, ApiError> {
        let Some(key) = headers::once(headers, &HEADER, NAME)? else { return Ok(None) };
        if !is_visible_ascii(key.as_bytes(), LONGEST) {
            return Err(malformed());
        }
        let mut hash = Sha256::new();
        if let Some(owner) = owner {
            // Neither an owner nor a key has a zero byte in it.
            hash.update(owner);
            hash.update([0]);
        }
        Ok(Some(Self { hash: hash.chain_update(key.as_bytes()).finalize() }))
    }

    /// The key of one job of a batch: sending the batch again leads to the same jobs.
    pub(crate) fn of_item(&self, index: usize) -> Self {
        let hash = Sha256::new().chain_update(self.hash).chain_update((index as u64).to_be_bytes());
        Self { hash: hash.finalize() }
    }

    /// The partition that holds the key's record: requests with the same key must meet there.
    pub(crate) fn partition(&self, partitions: u16) -> u8 {
        let number = u16::from_be_bytes([self.hash[0], self.hash[1]]);
        (number % partitions.clamp(1, MOST_PARTITIONS)) as u8
    }

    /// The key together with what it was used for.
    pub(crate) fn of(&self, submission: &Submission) -> Idempotency {
        let Submission { input, priority, max_queue, timeout, rows: _, charge: _ } = submission;
        let [max_queue_ms, timeout_ms] =
            [max_queue, timeout].map(|span| span.map_or(0, |span| span.as_millis()));
        // This text must stay the same over versions: records outlive an upgrade by a day.
        let request = format!("{priority} {max_queue_ms} {timeout_ms} {input}");
        Idempotency {
            key_hash: format!("{:x}", self.hash),
            fingerprint: format!("{:x}", Sha256::digest(request)),
        }
    }
}

/// The answer to a key of another form.
pub(crate) fn malformed() -> ApiError {
    let detail = format!("must be 1 to {LONGEST} visible ASCII characters");
    ApiError::Invalid(vec![Mistake::in_header(NAME, "format", detail)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<Option<Key>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().unwrap());
        Key::read(&headers, None)
    }

    #[test]
    fn only_visible_ascii_of_bounded_length_is_a_key() {
        assert!(key(&"k".repeat(255)).unwrap().is_some());
        assert!(Key::read(&HeaderMap::new(), None).unwrap().is_none());
        for bad in ["", "a b", &"k".repeat(256)] {
            assert!(matches!(key(bad), Err(ApiError::Invalid(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_hash_is_sha_256_in_hex() {
        let submission = Submission::default();
        let record = key("abc").unwrap().unwrap().of(&submission);
        // FIPS 180-2, appendix B.1.
        assert_eq!(record.key_hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(record.fingerprint.len(), 64);
    }

    #[test]
    fn each_owner_has_keys_of_its_own() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, "order-1".parse().unwrap());
        let hashes: std::collections::HashSet<_> = [None, Some("a"), Some("b")]
            .map(|owner| Key::read(&headers, owner).unwrap().unwrap().hash)
            .into();
        assert_eq!(hashes.len(), 3);
    }

    #[test]
    fn keys_spread_over_all_partitions() {
        let hit: std::collections::HashSet<u8> =
            (0..2000).map(|n| key(&format!("key-{n}")).unwrap().unwrap().partition(16)).collect();
        assert_eq!(hit.len(), 16);
    }
}
