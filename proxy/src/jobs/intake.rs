//! Accepts jobs: makes them from submissions, submits them, and counts and logs the outcomes.

use std::{sync::Arc, time::Instant};

use tepal_shared::{
    job::{JobId, JobStatus, NewJob},
    process::{telemetry, trace::Submit},
    queue::{error::StoreError, intake::Submitted},
};
use tokio::sync::watch;
use tracing::info;

use super::{idempotency::IdempotencyKey, placement::Placement, quota, submission::Submission};
use crate::{error::ApiError, jobs::store::Store, metrics::Metrics, snapshot::Snapshot};

/// `Retry-After` of a full queue while its drain rate is unknown, s.
pub(crate) const UNKNOWN_RETRY_AFTER: u64 = 5;

/// Who submits a job, for its record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sender<'a> {
    pub(crate) owner: Option<&'a str>,
    /// The name of the sender's key, for logs.
    pub(crate) key_id: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) traceparent: Option<String>,
}

/// A job that can be stored, with its id, and the span of its submission.
pub(crate) struct Prepared {
    pub(crate) job: (JobId, Arc<NewJob>),
    pub(crate) span: Submit,
}

/// The job that a submission led to: a new one, or the one with the same idempotency key.
pub(crate) type Accepted = (JobId, JobStatus);

/// Accepts jobs.
pub(crate) struct Intake {
    store: Store,
    metrics: Arc<Metrics>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    placement: Placement,
}

impl Intake {
    pub(crate) fn new(store: Store, metrics: Arc<Metrics>, snapshot: watch::Receiver<Arc<Snapshot>>) -> Self {
        let placement = Placement::new(store.queue().clone());
        Self { store, metrics, snapshot, placement }
    }

    /// Makes a job of a submission.
    pub(crate) fn prepare(
        &self,
        sender: &Sender<'_>,
        key: Option<IdempotencyKey>,
        submission: Submission,
    ) -> Prepared {
        let id = match &key {
            Some(key) => JobId::new(key.partition(self.store.queue().policy().partitions)),
            None => self.placement.new_id(),
        };
        let span = Submit::begin(sender.traceparent.clone());
        let job = NewJob {
            model: submission.model.name,
            idempotency: key.map(|key| key.of(&submission)),
            owner: sender.owner.map(str::to_owned),
            request_id: sender.request_id.map(str::to_owned),
            traceparent: span.traceparent().map(str::to_owned),
            input: submission.input,
            priority: submission.priority,
            max_queue: submission.max_queue,
            timeout: submission.timeout,
            charge: submission.charge,
        };
        Prepared { job: (id, Arc::new(job)), span }
    }

    /// Submits one job. `started`: when its request arrived.
    pub(crate) async fn submit(
        &self,
        sender: &Sender<'_>,
        prepared: Prepared,
        started: Instant,
    ) -> Result<Accepted, ApiError> {
        let Prepared { mut job, span } = prepared;
        let mut outcome = self.store.intake.submit(job.0, Arc::clone(&job.1)).await;
        if let Some(id) = self.placement.elsewhere(&job, &outcome) {
            job.0 = id;
            outcome = self.store.intake.submit(id, Arc::clone(&job.1)).await;
        }
        self.note(sender, &job, span, outcome, started)
    }

    /// Submits many jobs in one round trip. Returns one outcome for each, in their order.
    pub(crate) async fn submit_all(
        &self,
        sender: &Sender<'_>,
        prepared: Vec<Prepared>,
        started: Instant,
    ) -> Result<Vec<Result<Accepted, ApiError>>, ApiError> {
        let (mut jobs, spans): (Vec<_>, Vec<_>) =
            prepared.into_iter().map(|Prepared { job, span }| (job, span)).unzip();
        let outcomes = self.submit_anywhere(&mut jobs).await.map_err(ApiError::of_change)?;
        let all = jobs.iter().zip(spans).zip(outcomes);
        Ok(all.map(|((job, span), outcome)| self.note(sender, job, span, outcome, started)).collect())
    }

    /// Submits jobs. Those whose partition cannot be written go to another one.
    async fn submit_anywhere(
        &self,
        jobs: &mut [(JobId, Arc<NewJob>)],
    ) -> Result<Vec<Result<Submitted, StoreError>>, StoreError> {
        let mut outcomes = match self.store.intake.submit_all(jobs).await {
            Ok(outcomes) => outcomes,
            Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut moved = Vec::new();
        for (number, (job, outcome)) in jobs.iter_mut().zip(&outcomes).enumerate() {
            if let Some(id) = self.placement.elsewhere(job, outcome) {
                job.0 = id;
                moved.push((number, job.clone()));
            }
        }
        if !moved.is_empty() {
            let (numbers, again): (Vec<_>, Vec<_>) = moved.into_iter().unzip();
            for (number, outcome) in numbers.into_iter().zip(self.store.intake.submit_all(&again).await?) {
                outcomes[number] = outcome;
            }
        }
        let failures = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        match failures.clone().find(|error| error.is_retryable()) {
            Some(error) if failures.filter(|error| error.is_retryable()).count() == outcomes.len() => {
                Err(error.clone())
            }
            _ => Ok(outcomes),
        }
    }

    /// The error of a full queue.
    pub(crate) fn queue_full(&self) -> ApiError {
        ApiError::QueueFull(self.full_retry_after())
    }

    /// The error of a model whose queue is full.
    pub(crate) fn model_queue_full(&self) -> ApiError {
        ApiError::ModelQueueFull(self.full_retry_after())
    }

    fn full_retry_after(&self) -> u64 {
        self.snapshot.borrow().full_retry_after.unwrap_or(UNKNOWN_RETRY_AFTER)
    }

    /// Counts and logs an outcome, and ends the span.
    fn note(
        &self,
        sender: &Sender<'_>,
        (id, job): &(JobId, Arc<NewJob>),
        span: Submit,
        outcome: Result<Submitted, StoreError>,
        started: Instant,
    ) -> Result<Accepted, ApiError> {
        let (id, submitted) = (*id, outcome.map_err(ApiError::of_change)?);
        end(span, id, &submitted);
        match submitted {
            Submitted::Accepted => {
                self.metrics.submitted(job.model, job.priority);
                let duration_ms = telemetry::millis(started.elapsed());
                let (request_id, key_id) = (job.request_id.as_deref(), sender.key_id);
                info!(action = "job_accepted", job_id = %id, request_id, key_id, duration_ms);
                Ok((id, JobStatus::Pending))
            }
            Submitted::Duplicate { job_id, status } => {
                self.metrics.repeated(job.model);
                Ok((job_id, status))
            }
            Submitted::Conflict => Err(ApiError::IdempotencyConflict),
            Submitted::Full { .. } => Err(self.queue_full()),
            Submitted::ModelFull { .. } => Err(self.model_queue_full()),
            Submitted::OverQuota { room_in } => Err(ApiError::StorageQuota(quota::retry_after(room_in))),
        }
    }
}

/// Ends the span of a submission.
fn end(mut span: Submit, id: JobId, submitted: &Submitted) {
    match submitted {
        Submitted::Accepted => span.note(Some(id), "accepted"),
        Submitted::Duplicate { job_id, .. } => span.note(Some(*job_id), "duplicate"),
        Submitted::Conflict => span.note(None, "conflict"),
        Submitted::Full { .. } => span.note(None, "full"),
        Submitted::ModelFull { .. } => span.note(None, "model_full"),
        Submitted::OverQuota { .. } => span.note(None, "over_quota"),
    }
}
