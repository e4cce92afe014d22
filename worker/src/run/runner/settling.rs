//! Records the outcomes of attempts in Redis.

use std::time::Duration;

use tepal_shared::{
    process::{retry::Backoff, telemetry},
    queue::{
        error::StoreError,
        work::{Fence, Settled, Settlement},
    },
};
use tracing::{error, warn};

use super::{Runner, outcome::Outcome};
use crate::{metrics, run::spans};

impl Runner {
    /// Records the outcomes, however long Redis is unreachable, because each result cost a model call. If the leases lapse
    /// meanwhile, the scripts reject the late outcomes.
    pub(super) async fn settle(&self, mut outcomes: Vec<Outcome<'_>>) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while !outcomes.is_empty() {
            outcomes = self.settle_once(outcomes).await;
            if !outcomes.is_empty() {
                metrics::settle_repeated(self.name);
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }

    /// Records the outcomes once. Returns those that must be recorded again.
    async fn settle_once<'a>(&self, outcomes: Vec<Outcome<'a>>) -> Vec<Outcome<'a>> {
        self.leases.settling(outcomes.iter().map(|outcome| outcome.attempt.claim));
        let settlements: Vec<(_, &Settlement)> =
            outcomes.iter().map(|outcome| (outcome.attempt.claim, &outcome.settlement)).collect();
        let settled = match self.work.settle(&settlements).await {
            Ok(settled) => settled,
            Err(error) => {
                warn!(action = "settle_failed", jobs = outcomes.len(), error = telemetry::chain(&error));
                return outcomes;
            }
        };
        let (mut again, mut passing) = (Vec::new(), None);
        for (outcome, settled) in outcomes.into_iter().zip(settled) {
            match settled {
                Ok(settled) => self.finished(&outcome, settled),
                Err(error) if is_passing(&error) => {
                    again.push(outcome);
                    passing = Some(error);
                }
                Err(error) => {
                    // Nothing else can be done here. The job comes back when its lease lapses.
                    self.leases.remove(outcome.attempt.claim);
                    let job_id = tracing::field::display(outcome.attempt.claim.job_id);
                    error!(action = "settle_failed", job_id, error = telemetry::chain(&error));
                }
            }
        }
        if let Some(error) = passing {
            warn!(action = "settle_failed", jobs = again.len(), error = telemetry::chain(&error));
        }
        again
    }

    fn finished(&self, outcome: &Outcome<'_>, settled: Settled) {
        let claim = outcome.attempt.claim;
        let hold = self.leases.remove(claim);
        if let (Some(hold), Settled::Fenced(Fence::Missing)) = (hold, settled) {
            self.leases.note_missing(&self.work, claim.job_id, hold);
        }
        let took = hold.map(|hold| hold.took);
        outcome.log(settled, took);
        let granted_at = hold.map(|hold| hold.granted_at);
        let word = outcome.word(settled);
        spans::attempt(outcome.attempt, granted_at, outcome.call, word);
        // An attempt that is no longer held was counted when it was lost.
        if let Some(took) = took {
            metrics::settled(claim.stream.model, word, &outcome.settlement, settled, took);
        }
    }
}

/// Whether a later try may succeed, because Redis is unreachable or refuses writes for now. Then the outcome must be kept.
fn is_passing(error: &StoreError) -> bool {
    use StoreError::{CannotPersist, OutOfMemory, WrongTopology};
    error.is_retryable() || matches!(error, CannotPersist(_) | OutOfMemory(_) | WrongTopology(_))
}
