//! A claimed job as its worker gets it.

use std::time::Duration;

use super::Claim;

/// A claimed job with its input.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// This attempt at the job.
    pub attempt: Attempt,
    /// The input in its stored form, see [`input`](super::input).
    pub input: Vec<u8>,
}

/// One try at running a job.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The right to settle the job.
    pub claim: Claim,
    /// Earlier claims that were released unused.
    pub released: u64,
    /// Earlier claims whose lease lapsed.
    pub lost: u64,
    /// Earlier claims that were released because the model call broke off.
    pub broken: u64,
    /// Time since the job was submitted.
    pub age: Duration,
    /// The rest of the job's own run time limit.
    pub time_left: Option<Duration>,
    /// Id of the HTTP request that submitted the job, for the logs.
    pub request_id: Option<String>,
    /// W3C Trace Context of that request.
    pub traceparent: Option<String>,
}

impl Attempt {
    /// The number of this attempt, counted from 1. Releases and lost leases are not attempts.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.claim.token.saturating_sub(self.released).saturating_sub(self.lost)
    }

    /// Whether the job lost a worker before, or the model server during its call. Such a job may be what kills them.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.lost > 0 || self.broken > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, Stream};

    #[test]
    fn an_attempt_does_not_count_releases_and_lost_leases() {
        let attempt = Attempt {
            claim: Claim { job_id: JobId::new(0), token: 5, stream: Stream::all_of("m".parse().unwrap())[1] },
            released: 2,
            lost: 1,
            broken: 0,
            age: Duration::ZERO,
            time_left: None,
            request_id: None,
            traceparent: None,
        };
        assert_eq!(attempt.number(), 2);
    }
}
