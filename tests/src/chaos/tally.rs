//! Counts the faults: tried, and really hit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use crate::history::now_us;

/// The faults of a run, by kind.
#[derive(Debug)]
pub struct Tally {
    kinds: Mutex<BTreeMap<String, Tallied>>,
    injected: Mutex<Vec<Injected>>,
    log: Mutex<File>,
}

/// A fault that hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Its kind.
    pub kind: String,
    /// When it began, see [`now_us`].
    pub began_us: u64,
    /// When it ended.
    pub ended_us: u64,
    /// The model that it hit, if it cannot have hit others.
    pub model: Option<&'static str>,
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
    /// Nothing yet. Each fault is written to `faults.log` as it begins and ends.
    pub(super) fn new(dir: &Path) -> Self {
        let log = File::create(dir.join("faults.log")).expect("the faults can be logged");
        Self { kinds: Mutex::default(), injected: Mutex::default(), log: Mutex::new(log) }
    }

    /// A fault begins.
    pub(super) fn note(&self, what: &str) {
        let mut log = self.log.lock().expect("no panic while held");
        writeln!(log, "{} {what}", now_us()).expect("the faults can be logged");
    }

    /// One fault was injected and touched so many jobs, connections, replies or calls.
    pub(super) fn add(&self, kind: &str, began_us: u64, touched: u64) {
        self.add_of(None, kind, began_us, touched);
    }

    /// The same of a fault that can hit only this model.
    pub(super) fn add_of(&self, model: Option<&'static str>, kind: &str, began_us: u64, touched: u64) {
        self.note(&format!("ended: {kind}, touched {touched}"));
        let mut kinds = self.kinds.lock().expect("no panic while held");
        let tallied = kinds.entry(kind.to_owned()).or_default();
        tallied.tried += 1;
        tallied.hit += u64::from(touched > 0);
        tallied.touched += touched;
        if touched > 0 {
            let injected = Injected { kind: kind.to_owned(), began_us, ended_us: now_us(), model };
            self.injected.lock().expect("no panic while held").push(injected);
        }
    }

    /// Every fault that hit.
    #[must_use]
    pub fn injected(&self) -> Vec<Injected> {
        self.injected.lock().expect("no panic while held").clone()
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
