//! Counts the faults: tried, and really hit.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// The faults of a run, by kind.
#[derive(Debug, Default)]
pub struct Tally {
    kinds: Mutex<BTreeMap<String, Tallied>>,
}

/// How a kind of fault went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// How often it was injected.
    pub tried: u64,
    /// How often it changed anything: the worker held jobs, the connection carried bytes, the call was made.
    pub hit: u64,
    /// What all of them hit together: jobs held, connections, replies, calls.
    pub touched: u64,
}

impl Tally {
    /// One fault was injected and touched so many jobs, connections, replies or calls.
    pub(super) fn add(&self, kind: &str, touched: u64) {
        let mut kinds = self.kinds.lock().expect("no panic while held");
        let tallied = kinds.entry(kind.to_owned()).or_default();
        tallied.tried += 1;
        tallied.hit += u64::from(touched > 0);
        tallied.touched += touched;
    }

    /// Every kind that was tried.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Tallied> {
        self.kinds.lock().expect("no panic while held").clone()
    }

    /// Number of faults that really hit.
    #[must_use]
    pub fn hit(&self) -> u64 {
        self.all().values().map(|tallied| tallied.hit).sum()
    }
}
