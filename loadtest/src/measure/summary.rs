//! The numbers of a run or of one phase. Reports print them, and objectives are judged on them.

use serde::Serialize;

use super::latency::LatencySummary;

/// One kind of request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct RequestSummary {
    /// Scheduled requests, including the dropped ones.
    pub(crate) intended: u64,
    /// Answered as the API specifies.
    pub(crate) succeeded: u64,
    /// All others with an outcome, including the dropped and the refused ones.
    pub(crate) failed: u64,
    /// Not sent, because `--max-outstanding` requests were waiting for an answer.
    pub(crate) dropped: u64,
    /// Answered 429 or 503.
    pub(crate) refused: u64,
    /// From the scheduled time to the last byte of the answer. Successes and timeouts only: a fast refusal must not make the
    /// server look fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<LatencySummary>,
}

/// The outcomes of the accepted jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct JobSummary {
    /// Submissions answered 202.
    pub(crate) accepted: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// `not_found` and `unfinished` together.
    pub(crate) lost: u64,
    /// Accepted, and later unknown to the server.
    pub(crate) not_found: u64,
    /// Accepted, and not ended within `--drain-timeout`.
    pub(crate) unfinished: u64,
    /// Not ended when the run was interrupted. Their outcome is unknown, so they do not count as lost.
    pub(crate) abandoned: u64,
    /// Submissions answered with the id of an earlier job of the run.
    pub(crate) duplicated: u64,
    /// Reads answered with the record of another job. The second reads count such an answer as changed.
    pub(crate) mixed_up: u64,
    /// Ended jobs that were read again.
    pub(crate) verified: u64,
    /// Of these, jobs whose bytes had changed.
    pub(crate) changed: u64,
    /// Ended jobs that could not be read again.
    pub(crate) unverified: u64,
    /// Ended jobs that the service had deleted after their promised time.
    pub(crate) expired: u64,
}

/// The outcomes of reading a sample of ended jobs again. The fields are those of [`JobSummary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecondReads {
    pub(crate) verified: u64,
    pub(crate) changed: u64,
    pub(crate) unverified: u64,
    pub(crate) expired: u64,
}

/// Times in seconds, and rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    /// Length of the sending.
    pub(crate) sending_seconds: f64,
    /// From the first request to the end of the last job.
    pub(crate) total_seconds: f64,
    /// Scheduled submissions over `sending_seconds`.
    pub(crate) intended_rps: f64,
    /// Accepted submissions over `sending_seconds`.
    pub(crate) submit_rps: f64,
    /// Completed jobs over `total_seconds`.
    pub(crate) complete_rps: f64,
    /// Share of the sending time, 0 to 1, in which the generator needed a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generator_busy: Option<f64>,
}

/// All numbers of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) submit: RequestSummary,
    pub(crate) get: RequestSummary,
    pub(crate) health: RequestSummary,
    /// Reads that follow jobs to their end. They are closed-loop and include long polls, so no latency target applies.
    pub(crate) follow: RequestSummary,
    /// From the scheduled time of the submission until the generator saw the end of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) complete: Option<LatencySummary>,
    /// From `created_at` to `finished_at` by the server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) turnaround: Option<LatencySummary>,
    /// How late the generator sent. Large values mean that the generator, not the server, was the bottleneck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lag: Option<LatencySummary>,
    pub(crate) jobs: JobSummary,
    pub(crate) rates: Rates,
    /// The highest rate that a ramp could hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) knee_rps: Option<f64>,
}

/// One span of constant intended rate.
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
    /// Why this step of a ramp failed.
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

    /// Scheduled requests of every kind.
    pub(crate) fn intended(&self) -> u64 {
        self.requests().iter().map(|requests| requests.intended).sum()
    }

    /// Failed, refused and dropped requests of every kind.
    pub(crate) fn errors(&self) -> u64 {
        self.requests().iter().map(|requests| requests.failed).sum()
    }

    /// Dropped requests of every kind.
    pub(crate) fn dropped(&self) -> u64 {
        self.requests().iter().map(|requests| requests.dropped).sum()
    }

    /// Requests of every kind answered 429 or 503.
    pub(crate) fn refused(&self) -> u64 {
        self.requests().iter().map(|requests| requests.refused).sum()
    }

    /// Errors over intended requests; `None` if nothing was intended.
    pub(crate) fn errors_ratio(&self) -> Option<f64> {
        (self.intended() > 0).then(|| self.errors() as f64 / self.intended() as f64)
    }

    /// Requests and rates of one phase with the jobs of the whole run.
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
