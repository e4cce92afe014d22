//! The numbers of a run, or of one phase of it: what reports print and SLO terms are judged on.

use serde::Serialize;

use crate::latency::LatencySummary;

/// One kind of request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct RequestSummary {
    /// Requests that the schedule asked for, the dropped ones included.
    pub(crate) intended: u64,
    /// Answered as the API promises.
    pub(crate) succeeded: u64,
    /// Everything else that has an outcome, the dropped and the refused ones included.
    pub(crate) failed: u64,
    /// Not sent, because `--max-outstanding` requests were waiting.
    pub(crate) dropped: u64,
    /// Answered 429 or 503.
    pub(crate) refused: u64,
    /// From the intended send time to the last byte of the answer. Successes and timeouts only: a fast refusal
    /// must not make the server look quick.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<LatencySummary>,
}

/// What became of the accepted jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct JobSummary {
    /// Submissions answered 202.
    pub(crate) accepted: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// `not_found` and `unfinished` together.
    pub(crate) lost: u64,
    /// Accepted, but later unknown to the server.
    pub(crate) not_found: u64,
    /// Accepted, but not terminal within `--drain-timeout`.
    pub(crate) unfinished: u64,
    /// Not terminal when the run was interrupted: nobody knows, so not counted as lost.
    pub(crate) abandoned: u64,
    /// Submissions answered with an id that an earlier one of the run was given.
    pub(crate) duplicated: u64,
    /// Reads answered with the record of another job; the second reads at the end count such an answer as changed.
    pub(crate) mixed_up: u64,
    /// Terminal jobs read again at the end.
    pub(crate) verified: u64,
    /// Of those, how many no longer had the same bytes.
    pub(crate) changed: u64,
    /// Terminal jobs that could not be read again.
    pub(crate) unverified: u64,
    /// Terminal jobs that the service need not keep any more, and did not.
    pub(crate) expired: u64,
}

/// Times and rates; rates are per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    /// How long requests were being sent.
    pub(crate) sending_seconds: f64,
    /// From the first request to the end of the last job.
    pub(crate) total_seconds: f64,
    /// Submissions that the schedule asked for, over `sending_seconds`.
    pub(crate) intended_rps: f64,
    /// Accepted submissions over `sending_seconds`.
    pub(crate) submit_rps: f64,
    /// Completed jobs over `total_seconds`.
    pub(crate) complete_rps: f64,
    /// Share of the sending time, 0 to 1, in which the generator ran or waited for a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generator_busy: Option<f64>,
}

/// All numbers of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) submit: RequestSummary,
    pub(crate) get: RequestSummary,
    pub(crate) health: RequestSummary,
    /// Reads that follow jobs to their end. Closed-loop, long polls included: no latency target applies.
    pub(crate) follow: RequestSummary,
    /// From the intended submission to the moment a terminal state was seen here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) complete: Option<LatencySummary>,
    /// From `created_at` to `finished_at` by the server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) turnaround: Option<LatencySummary>,
    /// How late the generator itself sent: large values mean that it, not the server, was the bottleneck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lag: Option<LatencySummary>,
    pub(crate) jobs: JobSummary,
    pub(crate) rates: Rates,
    /// The highest rate that a ramp could hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) knee_rps: Option<f64>,
}

/// One stretch of constant intended rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct PhaseSummary {
    /// Intended submissions per second; 0 for the closed loop.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
    /// Accepted submissions per second.
    pub(crate) submit_rps: f64,
    pub(crate) submit: RequestSummary,
    pub(crate) get: RequestSummary,
    pub(crate) health: RequestSummary,
    /// As [`Rates::generator_busy`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generator_busy: Option<f64>,
    /// Why a ramp did not accept this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) violation: Option<String>,
}

impl RequestSummary {
    /// Succeeded over intended; `None` if nothing was intended.
    pub(crate) fn achieved_ratio(&self) -> Option<f64> {
        (self.intended > 0).then(|| self.succeeded as f64 / self.intended as f64)
    }
}

impl Summary {
    fn requests(&self) -> [&RequestSummary; 4] {
        [&self.submit, &self.get, &self.health, &self.follow]
    }

    /// Requests of every kind that were meant to be sent.
    pub(crate) fn intended(&self) -> u64 {
        self.requests().iter().map(|requests| requests.intended).sum()
    }

    /// Requests of every kind that failed, were refused or dropped.
    pub(crate) fn errors(&self) -> u64 {
        self.requests().iter().map(|requests| requests.failed).sum()
    }

    /// Requests of every kind that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.requests().iter().map(|requests| requests.dropped).sum()
    }

    /// Requests of every kind that were answered 429 or 503.
    pub(crate) fn refused(&self) -> u64 {
        self.requests().iter().map(|requests| requests.refused).sum()
    }

    /// Errors over intended requests; `None` if nothing was intended.
    pub(crate) fn errors_ratio(&self) -> Option<f64> {
        (self.intended() > 0).then(|| self.errors() as f64 / self.intended() as f64)
    }

    /// The same run as one of its phases saw it: requests and rates of the phase, jobs of the whole run.
    pub(crate) fn seen_in(&self, phase: &PhaseSummary) -> Self {
        let rates = Rates {
            intended_rps: phase.rate,
            submit_rps: phase.submit_rps,
            generator_busy: phase.generator_busy,
            ..self.rates.clone()
        };
        Self {
            submit: phase.submit.clone(),
            get: phase.get.clone(),
            health: phase.health.clone(),
            follow: RequestSummary::default(),
            rates,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_over_every_kind_of_request() {
        let requests = |intended, failed| RequestSummary { intended, failed, ..Default::default() };
        let summary = Summary {
            submit: requests(100, 3),
            get: requests(60, 0),
            health: requests(20, 1),
            follow: requests(20, 1),
            ..Default::default()
        };
        assert_eq!((summary.errors(), summary.errors_ratio()), (5, Some(0.025)));
        assert_eq!(Summary::default().errors_ratio(), None);
    }

    #[test]
    fn a_phase_replaces_the_requests_but_not_the_jobs() {
        let whole = Summary { jobs: JobSummary { accepted: 9, ..Default::default() }, ..Default::default() };
        let submit = RequestSummary { intended: 4, succeeded: 4, ..Default::default() };
        let phase = PhaseSummary { rate: 2.0, submit_rps: 1.5, submit: submit.clone(), ..Default::default() };
        let seen = whole.seen_in(&phase);
        assert_eq!((seen.submit, seen.jobs.accepted, seen.rates.submit_rps), (submit, 9, 1.5));
    }
}
