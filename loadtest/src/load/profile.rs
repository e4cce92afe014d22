//! How the rate of a run changes over time.

use std::time::Duration;

/// The rate over time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Profile {
    /// One phase for each rate, all of the same length.
    Phases { rates: Vec<f64>, length: Duration },
    /// Phases of growing rate until one cannot be held.
    Ramp { from: f64, growth: f64, max_rate: f64, length: Duration },
    /// A fixed number of jobs, at most `concurrency` in flight.
    Closed { jobs: u64, concurrency: usize },
}

impl Profile {
    /// Whether the rate grows until something breaks.
    pub(crate) fn is_ramp(&self) -> bool {
        matches!(self, Self::Ramp { .. })
    }
}
