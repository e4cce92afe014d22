//! The ids of all jobs of a run. They detect an id that the server issues twice, even long after the first job has ended.
//! A hash of each id is kept: 10 to 21 bytes a job. Nothing else grows with the length of a run.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// One part for each value of a hash's first byte. A set that grows is copied whole. With seven million ids, one large set
/// would stop the generator for 0.3 s; a part stops it for 0.7 ms.
const PARTS: usize = 256;

/// The ids so far. With ten million ids, two have the same 64-bit hash, a false alarm, in three of a million runs.
#[derive(Debug)]
pub(crate) struct Ids {
    hasher: RandomState,
    parts: [HashSet<u64>; PARTS],
}

impl Ids {
    /// No ids yet.
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), parts: std::array::from_fn(|_| HashSet::new()) }
    }

    /// Adds an id. Returns false if it is already known.
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
        let mut known = Ids::new();
        let ids: Vec<_> = (0..10_000).map(|id| id.to_string()).collect();
        assert!(ids.iter().all(|id| known.insert(id)));
        assert!(!ids.iter().any(|id| known.insert(id)));
    }

    #[test]
    fn an_id_takes_10_to_21_bytes() {
        let mut known = Ids::new();
        for id in 1..=100_000 {
            known.insert(&id.to_string());
            if id % 1_000 == 0 && id >= 20_000 {
                // A table has eight slots for seven ids. Each slot takes eight bytes and one more.
                let slots: usize = known.parts.iter().map(|part| part.capacity() * 8 / 7).sum();
                let bytes = 9.0 * slots as f64 / f64::from(id);
                assert!((10.0..21.0).contains(&bytes), "{bytes} at {id}");
            }
        }
    }
}
