//! Which ids a run was given, so that one which is given again is noticed however long after its first job has ended.
//! Only a hash of each is kept: 10 to 21 bytes a job, the one thing whose memory grows with the length of the run.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// As many as there are values of a hash's first byte. A set that grows is copied whole: at seven million ids that would
/// hold the generator up for 0.3 s, and with so many parts it is 0.7 ms at a time.
const PARTS: usize = 256;

/// The ids so far. Of ten million, two have the same hash of 64 bits, a false alarm, in three of a million runs.
#[derive(Debug)]
pub(crate) struct Seen {
    hasher: RandomState,
    parts: [HashSet<u64>; PARTS],
}

impl Seen {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), parts: std::array::from_fn(|_| HashSet::new()) }
    }

    /// Takes in an id; false if it was there before.
    pub(crate) fn insert(&mut self, id: &str) -> bool {
        let hash = self.hasher.hash_one(id);
        let [first, ..] = hash.to_be_bytes();
        self.parts[usize::from(first)].insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once() {
        let mut seen = Seen::new();
        let ids: Vec<_> = (0..10_000).map(|id| id.to_string()).collect();
        assert!(ids.iter().all(|id| seen.insert(id)));
        assert!(!ids.iter().any(|id| seen.insert(id)));
    }

    #[test]
    fn an_id_takes_10_to_21_bytes() {
        let mut seen = Seen::new();
        for id in 1..=100_000 {
            seen.insert(&id.to_string());
            if id % 1_000 == 0 && id >= 20_000 {
                // A table has eight places for seven ids, each of eight bytes and one more.
                let places: usize = seen.parts.iter().map(|part| part.capacity() * 8 / 7).sum();
                let bytes = 9.0 * places as f64 / f64::from(id);
                assert!((10.0..21.0).contains(&bytes), "{bytes} at {id}");
            }
        }
    }
}
