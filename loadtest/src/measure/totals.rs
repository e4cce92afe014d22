//! Counters and latencies of one kind of request, in a run or in one phase.

use std::time::Duration;

use hdrhistogram::CreationError;

use super::latency::Latency;
use super::summary::{PhaseSummary, RequestSummary};
use crate::http::failure::{Failure, FailureKind};

/// The kinds of request. Each is counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Submit,
    Get,
    Health,
    Follow,
}

impl Operation {
    /// The name in reports and objectives.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Get => "get",
            Self::Health => "health",
            Self::Follow => "follow",
        }
    }
}

/// One kind of request.
#[derive(Debug)]
pub(crate) struct Requests {
    counts: RequestSummary,
    latency: Latency,
}

impl Requests {
    /// Empty counters.
    ///
    /// # Errors
    /// Those of [`Latency::precise`].
    pub(crate) fn new() -> Result<Self, CreationError> {
        Ok(Self { counts: RequestSummary::default(), latency: Latency::precise()? })
    }

    /// Counts a scheduled request.
    pub(crate) fn intend(&mut self) {
        self.counts.intended += 1;
    }

    /// Records the outcome of an intended request.
    pub(crate) fn settle(&mut self, latency: Duration, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => self.counts.succeeded += 1,
            Err(failure) => self.fail(failure),
        }
        if counts_as_latency(outcome) {
            self.latency.record(latency);
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.counts.failed += 1;
        self.counts.refused += u64::from(failure.is_refusal());
        self.counts.dropped += u64::from(failure.kind == FailureKind::Dropped);
    }

    /// The numbers so far.
    pub(crate) fn summary(&self) -> RequestSummary {
        RequestSummary { latency: self.latency.summary(), ..self.counts.clone() }
    }
}

/// A timeout counts as a long latency. Other failures say nothing about the server's speed.
pub(crate) fn counts_as_latency(outcome: Result<(), Failure>) -> bool {
    outcome.map_or_else(|failure| failure.kind == FailureKind::Timeout, |()| true)
}

/// One span of constant intended rate.
#[derive(Debug)]
pub(crate) struct Phase {
    rate: f64,
    seconds: f64,
    submit: Requests,
    get: Requests,
    health: Requests,
    busy: Option<f64>,
    violation: Option<String>,
}

impl Phase {
    /// An empty phase of `rate` submissions per second.
    ///
    /// # Errors
    /// Those of [`Latency::precise`].
    pub(crate) fn new(rate: f64) -> Result<Self, CreationError> {
        let (submit, get, health) = (Requests::new()?, Requests::new()?, Requests::new()?);
        Ok(Self { rate, seconds: 0.0, submit, get, health, busy: None, violation: None })
    }

    /// The counters of `operation`; phases do not count follow requests.
    pub(crate) fn requests(&mut self, operation: Operation) -> Option<&mut Requests> {
        match operation {
            Operation::Submit => Some(&mut self.submit),
            Operation::Get => Some(&mut self.get),
            Operation::Health => Some(&mut self.health),
            Operation::Follow => None,
        }
    }

    /// Records how long the phase lasted and how busy the generator was.
    pub(crate) fn end(&mut self, length: Duration, busy: Option<f64>) {
        self.seconds = length.as_secs_f64();
        self.busy = busy;
    }

    /// Records why this step of a ramp failed.
    pub(crate) fn violate(&mut self, reason: String) {
        self.violation = Some(reason);
    }

    /// The numbers so far.
    pub(crate) fn summary(&self) -> PhaseSummary {
        let submit = self.submit.summary();
        PhaseSummary {
            rate: self.rate,
            seconds: self.seconds,
            submit_rps: per_second(submit.succeeded, self.seconds),
            submit,
            get: self.get.summary(),
            health: self.health.summary(),
            generator_busy: self.busy,
            violation: self.violation.clone(),
        }
    }
}

/// `count` over `seconds`, rounded to a thousandth; 0 for no time.
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 1_000.0).round() / 1_000.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_counts_as_latency_and_a_refusal_does_not() {
        let mut requests = Requests::new().unwrap();
        let failed = |kind| Err(Failure::from(kind));
        requests.settle(Duration::from_millis(2), Ok(()));
        requests.settle(Duration::from_secs(10), failed(FailureKind::Timeout));
        requests.settle(Duration::from_micros(90), failed(FailureKind::Status(503)));
        requests.settle(Duration::ZERO, failed(FailureKind::Dropped));
        let summary = requests.summary();
        assert_eq!((summary.succeeded, summary.failed, summary.refused, summary.dropped), (1, 3, 1, 1));
        let latency = summary.latency.unwrap();
        assert_eq!(latency.count, 2);
        assert!(latency.p50_ms >= 2.0 && latency.max_ms >= 9_990.0, "{latency:?}");
    }

    #[test]
    fn a_rate_over_no_time_is_zero() {
        assert_eq!((per_second(10, 4.0), per_second(1, 3.0), per_second(5, 0.0)), (2.5, 0.333, 0.0));
    }
}
