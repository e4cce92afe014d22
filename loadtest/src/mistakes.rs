//! The mistakes in a command line. A user sees all of them at once.

use std::time::Duration;

/// No machine sends more.
pub(crate) const HIGHEST_RATE: f64 = 1_000_000.0;
/// No machine and no proxy takes more connections, concurrent jobs or rows. Memory is reserved for each of them.
pub(crate) const HIGHEST_NUMBER: usize = 100_000;
/// Points in time further away do not fit the clock on every system.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Everything wrong with a command line, one sentence each.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Mistakes(Vec<String>);

impl Mistakes {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds `sentence` unless the condition holds.
    pub(crate) fn check(&mut self, holds: bool, sentence: &str) {
        if !holds {
            self.0.push(sentence.to_owned());
        }
    }

    /// Checks a rate in events per second.
    pub(crate) fn rate(&mut self, name: &str, rate: f64) {
        let holds = rate > 0.0 && rate <= HIGHEST_RATE;
        self.check(
            holds,
            &format!("{name} must be above 0 and at most {HIGHEST_RATE} per second, not {rate}"),
        );
    }

    /// Checks a rate or ratio that may be 0.
    pub(crate) fn rate_or_zero(&mut self, name: &str, rate: f64) {
        let holds = (0.0..=HIGHEST_RATE).contains(&rate);
        self.check(holds, &format!("{name} must be between 0 and {HIGHEST_RATE}, not {rate}"));
    }

    /// Checks a number of things that need memory.
    pub(crate) fn number(&mut self, name: &str, number: usize) {
        let holds = (1..=HIGHEST_NUMBER).contains(&number);
        self.check(holds, &format!("{name} must be above 0 and at most {HIGHEST_NUMBER}, not {number}"));
    }

    /// Checks a length of time.
    pub(crate) fn length(&mut self, name: &str, length: Duration) {
        let holds = !length.is_zero() && length <= LONGEST;
        self.check(holds, &format!("{name} must be above 0 and at most 366 days"));
    }

    /// The value, or `None` after adding the mistake.
    pub(crate) fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|mistake| self.0.push(mistake)).ok()
    }
}
