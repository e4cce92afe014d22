//! A job's own time limit. Whatever its batch waits for in this process counts.

use std::time::Duration;

use tepal_shared::job::Attempt;

use super::{Runner, outcome::Outcome};
use crate::{
    backend::{BackendError, Verdict},
    run::batch::MicroBatch,
};

impl Runner {
    /// How long the call may take, and what it means when it takes longer.
    pub(super) fn time_limit(&self, batch: &MicroBatch) -> (Duration, fn() -> BackendError) {
        match self.own_time_left(batch) {
            Some(own) if own < self.settings.inference_timeout => (own, out_of_time),
            _ => (self.settings.inference_timeout, BackendError::timeout),
        }
    }

    /// What is left of the job's own time limit. A job that has one is alone in its batch, and may have waited here for its
    /// turn.
    pub(crate) fn own_time_left(&self, batch: &MicroBatch) -> Option<Duration> {
        let left = |attempt: &Attempt| {
            let left = attempt.time_left?;
            Some(left.saturating_sub(self.leases.held_for(attempt.claim).unwrap_or_default()))
        };
        batch.items.iter().filter_map(|item| left(&item.attempt)).min()
    }

    /// Waits for as long as the job's own time limit allows; `None` when that is over.
    pub(super) async fn in_time<T>(&self, batch: &MicroBatch, wait: impl Future<Output = T>) -> Option<T> {
        match self.own_time_left(batch) {
            Some(left) => tokio::time::timeout(left, wait).await.ok(),
            None => Some(wait.await),
        }
    }

    /// Fails a job whose own time limit ended while it waited for a call.
    pub(crate) async fn too_late(&self, batch: &MicroBatch) {
        let outcomes = batch.items.iter().map(|item| Outcome::of(&item.attempt, out_of_time().settlement()));
        self.settle(outcomes.collect()).await;
    }
}

fn out_of_time() -> BackendError {
    BackendError::new(Verdict::Expired, "timeout", "The job ran longer than its timeout")
}
