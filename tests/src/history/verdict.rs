//! The findings of the checker.

use std::collections::BTreeMap;
use std::fmt;

/// The invariants, numbered as in the project's list of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Each accepted job reaches exactly one terminal state.
    I1,
    /// Nothing of a terminal job changes.
    I2,
    /// A completed result is right, and comes from the last attempt that was granted.
    I3,
    /// After an acknowledged cancel no attempt starts and no result appears.
    I4,
    /// A job fails and loses its lease no more often than allowed.
    I5,
    /// At the end the streams and pending lists are empty, and exactly the terminal jobs have a TTL.
    I6,
    /// One idempotency key is one job.
    I7,
    /// A refused submit leaves nothing behind.
    I8,
    /// A submit whose outcome the client does not know made at most one job.
    I9,
    /// Without an injected fault nothing is repaired.
    I10,
}

/// One breach of an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// The job, stream or idempotency key concerned; empty if none in particular.
    pub subject: String,
    /// The findings.
    pub what: String,
}

/// How jobs ended. `completed + failed + cancelled + lost = accepted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs that a client knows to be accepted.
    pub accepted: usize,
    /// Accepted jobs that completed.
    pub completed: usize,
    /// Accepted jobs that failed for good.
    pub failed: usize,
    /// Accepted jobs that were cancelled.
    pub cancelled: usize,
    /// Accepted jobs without an outcome at the end.
    pub lost: usize,
    /// Jobs with more than one outcome.
    pub doubled: usize,
}

/// The checker's findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// All breaches, by invariant.
    pub violations: Vec<Violation>,
    /// How all jobs ended.
    pub all: Counts,
    /// How the jobs of each model ended.
    pub by_model: BTreeMap<String, Counts>,
    /// Submits whose outcome the client does not know.
    pub ambiguous: usize,
    /// Lost leases of all jobs, which others repaired.
    pub lost_leases: u64,
    /// Each injected fault and how often it really hit.
    pub faults: BTreeMap<String, u64>,
}

impl Verdict {
    /// Whether every invariant held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }

    /// Panics with the whole table unless every invariant held.
    #[track_caller]
    pub fn assert_holds(&self) {
        assert!(self.holds(), "the history breaks Tepal's promises\n{self}");
    }

    /// Whether this invariant was breached.
    #[must_use]
    pub fn breaches(&self, invariant: Invariant) -> bool {
        self.violations.iter().any(|violation| violation.invariant == invariant)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("accepted", self.all.accepted),
            ("completed", self.all.completed),
            ("failed", self.all.failed),
            ("cancelled", self.all.cancelled),
            ("lost", self.all.lost),
            ("doubled", self.all.doubled),
            ("ambiguous submits", self.ambiguous),
        ];
        for (name, count) in counts {
            writeln!(f, "{name:<24} {count:>8}")?;
        }
        writeln!(f, "{:<24} {:>8}", "lost leases", self.lost_leases)?;
        for (kind, hits) in &self.faults {
            writeln!(f, "{:<24} {hits:>8}", format!("fault: {kind}"))?;
        }
        write!(f, "{:<24} {:>8}", "violations", self.violations.len())?;
        for violation in &self.violations {
            write!(f, "\n{violation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4} {}: {}", format!("{:?}", self.invariant), self.subject, self.what)
    }
}
