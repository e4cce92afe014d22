//! Fails the waiting jobs of removed models, if `REMOVED_MODEL_JOBS` says so. Never touches the jobs of a model that a live worker
//! serves, or is about to serve.

use std::{collections::BTreeSet, str::FromStr, sync::Arc, time::Instant};

use tepal_shared::{
    job::{Delivery, ModelName, Stream},
    queue::{
        error::StoreError,
        heartbeat::{WorkerRecord, WorkerState},
        work::{Granted, Settled, Settlement, TakeRequest, Work},
    },
};
use tracing::warn;

use crate::metrics;

/// Jobs of one claim.
const CHUNK: usize = 100;
/// Bytes of their inputs.
const MOST_BYTES: usize = 16 << 20;

/// What happens to jobs that wait for a model that was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedModelJobs {
    /// They wait until the model is served again.
    Wait,
    /// They fail as `model_not_found`.
    Fail,
}

impl FromStr for RemovedModelJobs {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "wait" => Ok(Self::Wait),
            "fail" => Ok(Self::Fail),
            _ => Err("must be wait or fail"),
        }
    }
}

/// Fails these jobs.
pub(super) struct RemovedModels {
    work: Work,
    consumer: Arc<str>,
}

impl RemovedModels {
    pub(super) fn new(work: Work, consumer: Arc<str>) -> Self {
        Self { work, consumer }
    }

    /// Fails the waiting jobs of all removed models.
    pub(super) async fn fail_jobs(&self, workers: &[WorkerRecord]) -> Result<(), StoreError> {
        let removed = self.work.removed_models().await?;
        if removed.is_empty() {
            return Ok(());
        }
        let Some(kept) = kept(workers) else { return Ok(()) };
        for model in removed.into_iter().filter(|model| !kept.contains(model.as_str())) {
            for partition in self.work.queue().partitions() {
                self.fail_jobs_of(model, partition).await?;
            }
        }
        Ok(())
    }

    async fn fail_jobs_of(&self, model: ModelName, partition: u8) -> Result<(), StoreError> {
        let streams = Stream::all_of(model);
        let request = TakeRequest {
            partition,
            consumer: &self.consumer,
            streams: &streams,
            limit: CHUNK,
            max_bytes: MOST_BYTES,
            due_from: Some(&[const { String::new() }; 3]),
        };
        loop {
            let began = Instant::now();
            let granted = self.work.take(&request).await?;
            metrics::granted(&granted);
            let Granted { deliveries, ended, stale, .. } = granted;
            if deliveries.is_empty() && ended.is_empty() && stale == 0 {
                return Ok(());
            }
            self.fail(&deliveries, began).await?;
        }
    }

    async fn fail(&self, deliveries: &[Delivery], began: Instant) -> Result<(), StoreError> {
        let settlements: Vec<_> =
            deliveries.iter().map(|delivery| (delivery.attempt.claim, removed(delivery))).collect();
        for ((claim, settlement), settled) in settlements.iter().zip(self.work.settle(&settlements).await?) {
            // A job that cannot be settled now comes back when its lease lapses.
            let settled = settled?;
            let (job_id, model) = (claim.job_id, claim.stream.model);
            metrics::settled(model, "failed", settlement, settled, began.elapsed());
            if matches!(settled, Settled::Done { .. }) {
                warn!(action = "prediction_failed", %job_id, model = model.as_str(), code = CODE);
            }
        }
        Ok(())
    }
}

const CODE: &str = "model_not_found";

fn removed(delivery: &Delivery) -> Settlement {
    let model = delivery.attempt.claim.stream.model;
    Settlement::Fail { code: CODE.to_owned(), error: format!("The model `{model}` was removed") }
}

/// The models that a live worker serves or is about to serve; `None` if a worker, perhaps of another version, reports something
/// else: it may serve any.
fn kept(workers: &[WorkerRecord]) -> Option<BTreeSet<String>> {
    let mut kept = BTreeSet::new();
    for WorkerRecord { id, state, .. } in workers {
        match serde_json::from_str::<WorkerState>(state) {
            Ok(state) => {
                kept.extend(
                    state.models.into_keys().chain(state.failed_models).chain(state.undescribed_models),
                );
            }
            Err(error) => {
                warn!(action = "heartbeat_unreadable", worker = id, %error);
                return None;
            }
        }
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn while_a_worker_cannot_be_understood_every_model_is_kept() {
        let record = |state: &str| WorkerRecord {
            id: "w".to_owned(),
            state: state.to_owned(),
            silence: Duration::ZERO,
        };
        assert_eq!(kept(&[]), Some(BTreeSet::new()));
        assert_eq!(kept(&[record("{\"of\": \"another version\"}")]), None);
    }
}
