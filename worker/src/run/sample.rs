//! The sample of the model's description. When the backend refuses a job, the sample shows whether the backend or the job's
//! input is to blame. A sample that the backend has never answered shows nothing: it may be wrong
//! itself.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tepal_shared::{
    model::{Model, Rendered},
    process::telemetry,
};
use tokio::time::Instant;
use tracing::error;

use crate::{
    backend::{Backend, BackendError, ModelCall},
    run::vitals::Vitals,
};

/// How long a refused sample that may be wrong keeps jobs from the model. Longer than a version of a model is swapped.
const TRIAL_INTERVAL: Duration = Duration::from_secs(10);

/// Calls a model with its sample. Clones share the backend, and what is known of the sample.
#[derive(Clone)]
pub struct Sample {
    backend: Arc<dyn Backend>,
    model: Arc<Model>,
    time_limit: Duration,
    record: Arc<Mutex<Record>>,
}

/// What became of the sample so far.
#[derive(Debug, Default)]
struct Record {
    was_answered: bool,
    /// When it was first refused, if it was never answered.
    refused_since: Option<Instant>,
    /// When jobs were last allowed to show whether the backend serves them.
    tried_at: Option<Instant>,
    is_reported: bool,
    /// Whether a derived sample was asked without need.
    was_tried: bool,
}

impl Sample {
    /// The sample of this model; a call may take as long as `time_limit`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, model: Model, time_limit: Duration) -> Self {
        Self { backend, model: Arc::new(model), time_limit, record: Arc::default() }
    }

    /// Whether there is a sample. An opaque model may have none.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.model.is_opaque || self.model.has_written_sample()
    }

    /// Calls the model with the sample and returns the result.
    ///
    /// # Errors
    /// When the call fails, and when the answer is no result; the message names the sample. The description was checked: its
    /// sample is valid input.
    pub async fn ask(&self) -> Result<Rendered, BackendError> {
        let asked = self.call().await;
        self.record().note(asked.as_ref().err());
        asked.map_err(|error| {
            let sample = if self.model.has_written_sample() {
                "the sample of its description, model.toml"
            } else {
                "the sample derived from its description; write one into model.toml"
            };
            let message = format!("The model does not answer {sample}: {}", error.message);
            BackendError { message, ..error }
        })
    }

    /// Asks a derived sample, once. If the model refuses it, jobs that succeed later show that the sample is wrong.
    pub async fn try_derived(&self) {
        if !self.exists()
            || self.model.has_written_sample()
            || std::mem::replace(&mut self.record().was_tried, true)
        {
            return;
        }
        // The record keeps the answer. An outage is for the probes to find.
        let _ = self.ask().await;
    }

    /// Whether jobs succeeded although the sample has been refused from the first: then it is wrong. That is logged once.
    #[must_use]
    pub fn is_to_blame(&self, refusal: &BackendError, vitals: &Vitals) -> bool {
        let mut record = self.record();
        let is_wrong = record.refused_since.is_some_and(|since| vitals.has_succeeded_since(since));
        if is_wrong && !std::mem::replace(&mut record.is_reported, true) {
            let (model, code) = (&self.model.name, refusal.code);
            error!(action = "sample_wrong", model, code, error = telemetry::chain(refusal));
        }
        is_wrong
    }

    /// Whether jobs are tried although the sample, which was never answered, is refused.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.record().tried_at.is_some()
    }

    /// Whether jobs should be tried although the sample is refused. True once in a while as long as it may be wrong.
    #[must_use]
    pub fn is_trial_due(&self) -> bool {
        let mut record = self.record();
        let since = record.tried_at.or(record.refused_since);
        let is_due = record.refused_since.is_some() && since.is_some_and(|at| at.elapsed() >= TRIAL_INTERVAL);
        if is_due {
            record.tried_at = Some(Instant::now());
        }
        is_due
    }

    async fn call(&self) -> Result<Rendered, BackendError> {
        let Some(sample) = self.model.sample_input() else {
            return Err(BackendError::bad_answer("The model has no sample"));
        };
        let batch = self.model.concatenate(std::iter::once(&sample));
        let call = self.backend.predict(ModelCall::of_sample(batch, self.time_limit));
        let answer = tokio::time::timeout(self.time_limit, call)
            .await
            .unwrap_or_else(|_| Err(BackendError::timeout()))?;
        let rendered = self
            .model
            .check_outputs(sample.rows, answer)
            .and_then(|answer| self.model.render(&answer, 0..sample.rows, usize::MAX));
        rendered.map_err(|error| BackendError::bad_answer(&error).because(error))
    }

    /// Each critical section leaves the record whole, so a panic elsewhere does not spoil it.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn note(&mut self, error: Option<&BackendError>) {
        match error {
            None => (self.was_answered, self.refused_since, self.tried_at) = (true, None, None),
            Some(error) if error.verdict.is_answer() && !error.verdict.is_load() && !self.was_answered => {
                self.refused_since.get_or_insert_with(Instant::now);
            }
            Some(_) => {}
        }
    }
}
