//! Checks every invariant.

use serde_json::Value;

use super::case::Case;
use super::{History, Rules, Verdict, jobs, queue};

impl History {
    /// Checks all invariants. `oracle` says whether a result is right for an input.
    pub fn check(&self, rules: Rules, oracle: impl Fn(&Value, &Value) -> bool) -> Verdict {
        let mut case = Case::new(self, rules, &oracle);
        jobs::check(&mut case);
        queue::check(&mut case);
        case.count();
        case.verdict.violations.sort_by(|a, b| (a.invariant, &a.subject).cmp(&(b.invariant, &b.subject)));
        case.verdict
    }
}
