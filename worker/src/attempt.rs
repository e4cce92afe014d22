//! One batch from its start to its recorded outcome.
//!
//! The model is called with the rows of all jobs; then each job is ended or given back in one round trip. A failure
//! is read by its verdict alone: the backend is gone (give back, open the breaker), trying again may help (retry with
//! backoff until the retries are used up), or it cannot help (split the batch until the job to blame is alone).

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tepal_shared::{
    job::Attempt,
    model::{InputError, Model},
    retry::{Backoff, retry_delay},
    scripts::Settled,
    store::{JobStore, Settlement},
    telemetry,
    tensor::Tensor,
};
use tracing::{error, info, warn};

use crate::{
    backend::{Backend, BackendError, Verdict},
    batch::{Limits, MicroBatch},
    breaker::Breaker,
    concurrency::{Concurrency, Epoch},
    config::Retry,
    lease::Leases,
    metrics, spans,
};

/// Runs batches; shared by all consumers of the process.
pub struct Runner {
    /// What the model takes and answers.
    pub model: Model,
    /// What runs it.
    pub backend: Arc<dyn Backend>,
    /// Where outcomes are recorded.
    pub store: JobStore,
    /// Told when the backend is gone.
    pub breaker: Breaker,
    /// Told when the backend is overloaded.
    pub concurrency: Concurrency,
    /// The jobs that run.
    pub leases: Leases,
    /// When to try again and when to give up.
    pub retry: Retry,
    /// When a call has enough jobs.
    pub limits: Limits,
}

/// What a model call came to.
enum Called {
    Answered(Tensor),
    Failed(BackendError),
    /// No job of the batch is wanted any more.
    Abandoned,
}

impl Called {
    fn error(&self) -> Option<&BackendError> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Answered(_) | Self::Abandoned => None,
        }
    }
}

/// A job, how it goes on, and what the log says of it.
struct Outcome<'a> {
    attempt: &'a Attempt,
    settlement: Settlement,
    class_name: Option<String>,
    /// The model call that it came of, when traces are on.
    call: Option<spans::Call>,
}

impl Runner {
    /// Gives jobs back that are not to be run now.
    pub async fn give_back(&self, attempts: &[Attempt]) {
        self.settle(attempts.iter().map(|attempt| Outcome::of(attempt, Settlement::Release)).collect()).await;
    }

    /// Fails jobs whose input does not fit the model.
    pub async fn refuse(&self, unfit: &[(Attempt, InputError)]) {
        let outcomes = unfit.iter().map(|(attempt, error)| {
            let error = format!("The input does not fit the model: {error}");
            Outcome::of(attempt, Settlement::Fail { code: "invalid_input".to_owned(), error })
        });
        self.settle(outcomes.collect()).await;
    }

    /// Runs a batch to the outcomes of its jobs.
    pub async fn run(&self, batch: MicroBatch) {
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            if let Some((first, second)) = self.run_batch(batch).await {
                waiting.extend([second, first]);
            }
        }
    }

    /// Runs one call and records what came of it, or gives two halves that are to be run instead.
    async fn run_batch(&self, batch: MicroBatch) -> Option<(MicroBatch, MicroBatch)> {
        let epoch = self.concurrency.pause().await;
        let began = SystemTime::now();
        let called = self.call(&batch).await;
        let call = spans::Call::ended(&batch, self.backend.name(), began, called.error());
        let mut outcomes = match called {
            Called::Answered(answer) => {
                self.concurrency.succeeded();
                self.breaker.succeeded();
                self.results(&batch, &answer)
            }
            Called::Failed(error) => {
                self.note(&error, epoch);
                if error.verdict == Verdict::Reject && batch.items.len() > 1 {
                    return batch.bisect();
                }
                batch.items.iter().map(|item| self.after_failure(&item.attempt, &error)).collect()
            }
            Called::Abandoned => return None,
        };
        outcomes.iter_mut().for_each(|outcome| outcome.call.clone_from(&call));
        self.settle(outcomes).await;
        None
    }

    async fn call(&self, batch: &MicroBatch) -> Called {
        let watch = self.leases.watch(batch.items.iter().map(|item| &item.attempt));
        let (limit, too_late) = self.time_limit(batch);
        if limit.is_zero() {
            return Called::Failed(too_late());
        }
        metrics::batch(batch.items.len(), batch.rows());
        let started = Instant::now();
        let call = self.backend.predict(batch.concatenate(&self.model));
        let called = tokio::select! {
            biased;
            () = watch.abandoned() => return Called::Abandoned,
            answer = tokio::time::timeout(limit, call) => match answer {
                Ok(answer) => answer.and_then(|answer| self.checked(batch, answer)),
                Err(_) => Err(too_late()),
            },
        };
        metrics::inference(started.elapsed(), called.is_ok());
        called.map_or_else(Called::Failed, Called::Answered)
    }

    /// How long the call may take, and what it means when it takes longer. A job with its own time limit is alone in its
    /// batch, and may have waited here for its turn.
    fn time_limit(&self, batch: &MicroBatch) -> (Duration, fn() -> BackendError) {
        let left = |attempt: &Attempt| {
            let left = attempt.time_left?;
            Some(left.saturating_sub(self.leases.held_for(attempt).unwrap_or_default()))
        };
        match batch.items.iter().filter_map(|item| left(&item.attempt)).min() {
            Some(own) if own < self.retry.inference_timeout => (own, out_of_time),
            _ => (self.retry.inference_timeout, BackendError::timeout),
        }
    }

    fn checked(&self, batch: &MicroBatch, answer: Tensor) -> Result<Tensor, BackendError> {
        self.model.check_output(batch.rows(), &answer).map_err(BackendError::bad_answer)?;
        Ok(answer)
    }

    fn note(&self, error: &BackendError, began: Epoch) {
        warn!(action = "inference_failed", code = error.code, %error);
        match error.verdict {
            Verdict::Unavailable | Verdict::Broken => self.breaker.open(error),
            Verdict::Overloaded => self.concurrency.shrink(began),
            Verdict::Retry | Verdict::Reject => {}
        }
    }

    /// Cuts the answer into the jobs' results. A job whose rows hold NaN fails alone.
    fn results<'a>(&self, batch: &'a MicroBatch, answer: &Tensor) -> Vec<Outcome<'a>> {
        let outcomes =
            batch.split().map(|(item, from)| match self.model.render(answer, from, item.rows.rows) {
                Ok(result) => Outcome {
                    attempt: &item.attempt,
                    settlement: Settlement::Complete(result.json),
                    class_name: result.class_name,
                    call: None,
                },
                Err(error) => self.after_failure(&item.attempt, &BackendError::bad_answer(error)),
            });
        outcomes.collect()
    }

    fn after_failure<'a>(&self, attempt: &'a Attempt, error: &BackendError) -> Outcome<'a> {
        let may_retry = attempt.number() <= self.retry.max_retries;
        let settlement = match error.verdict {
            Verdict::Unavailable => Settlement::Release,
            Verdict::Broken => self.after_break(attempt),
            Verdict::Retry | Verdict::Overloaded if may_retry => {
                let lease = self.store.policy().lease;
                Settlement::Retry(retry_delay(self.retry.base, attempt.number(), lease))
            }
            _ => Settlement::Fail { code: error.code.to_owned(), error: error.message.clone() },
        };
        Outcome::of(attempt, settlement)
    }

    /// The first call that broke off may have had other jobs; each later one was the job's alone, see [`crate::suspects`].
    fn after_break(&self, attempt: &Attempt) -> Settlement {
        if attempt.broken < u64::from(self.store.policy().max_lost) {
            return Settlement::Broken;
        }
        let error = format!("The model server was lost {} times while it ran the job", attempt.broken + 1);
        Settlement::Fail { code: "model_lost".to_owned(), error }
    }

    /// Records the outcomes, however long Redis is away: a result that took a model call is not thrown away. Should
    /// the leases lapse meanwhile, the scripts refuse what is late.
    async fn settle(&self, outcomes: Vec<Outcome<'_>>) {
        let mut outcomes = outcomes;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while !outcomes.is_empty() {
            outcomes = self.settle_once(outcomes).await;
            if !outcomes.is_empty() {
                metrics::settle_repeated();
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }

    /// Gives back the outcomes that have to be recorded again.
    async fn settle_once<'a>(&self, outcomes: Vec<Outcome<'a>>) -> Vec<Outcome<'a>> {
        self.leases.settling(outcomes.iter().map(|outcome| outcome.attempt));
        let settlements: Vec<_> =
            outcomes.iter().map(|outcome| (outcome.attempt, outcome.settlement.clone())).collect();
        let settled = match self.store.settle(&settlements).await {
            Ok(settled) => settled,
            Err(error) => {
                warn!(action = "settle_failed", jobs = outcomes.len(), error = telemetry::chain(&error));
                return outcomes;
            }
        };
        let mut again = Vec::new();
        for (outcome, settled) in outcomes.into_iter().zip(settled) {
            match settled {
                Ok(settled) => self.finished(&outcome, settled),
                Err(error) if is_passing(&error) => again.push(outcome),
                Err(error) => {
                    // Its lease returns the job; nothing else can be done here.
                    self.leases.let_go(outcome.attempt);
                    let job_id = tracing::field::display(outcome.attempt.job_id);
                    error!(action = "settle_failed", job_id, error = telemetry::chain(&error));
                }
            }
        }
        again
    }

    fn finished(&self, outcome: &Outcome<'_>, settled: Settled) {
        let hold = self.leases.let_go(outcome.attempt);
        let took = hold.map(|hold| hold.took);
        outcome.log(settled, took);
        let granted_at = hold.map(|hold| hold.granted_at);
        spans::attempt(outcome.attempt, granted_at, outcome.call.as_ref(), outcome.word(settled));
        // An attempt that is not held any more was counted when it was lost.
        if let Some(took) = took {
            metrics::settled(&outcome.settlement, settled, took);
        }
    }
}

fn out_of_time() -> BackendError {
    BackendError::new(Verdict::Reject, "timeout", "The job ran longer than timeout_seconds")
}

/// Redis refuses to write at present; what is to be recorded must not be lost.
fn is_passing(error: &tepal_shared::error::StoreError) -> bool {
    use tepal_shared::error::StoreError;
    error.is_retryable() || matches!(error, StoreError::CannotPersist(_) | StoreError::OutOfMemory(_))
}

impl<'a> Outcome<'a> {
    fn of(attempt: &'a Attempt, settlement: Settlement) -> Self {
        Self { attempt, settlement, class_name: None, call: None }
    }

    /// What became of the attempt, in one word.
    fn word(&self, settled: Settled) -> &'static str {
        match (settled, &self.settlement) {
            (Settled::Fenced(_), _) => "fenced",
            (_, Settlement::Complete(_)) => "completed",
            (_, Settlement::Fail { .. }) => "failed",
            (_, Settlement::Retry(_)) => "retried",
            (_, Settlement::Release | Settlement::Broken) => "released",
        }
    }

    /// `took` is unknown for a job that was lost, which nobody holds any more.
    fn log(&self, settled: Settled, took: Option<Duration>) {
        let job_id = tracing::field::display(self.attempt.job_id);
        let duration_ms = took.map(|took| took.as_micros() as f64 / 1000.0);
        let attempt = self.attempt.token;
        let request_id = self.attempt.request_id.as_deref();
        let traceparent = self.attempt.traceparent.as_deref();
        if let Settled::Fenced(why) = settled {
            info!(action = "attempt_fenced", job_id, reason = why.word(), duration_ms, attempt, request_id);
            return;
        }
        match &self.settlement {
            Settlement::Complete(_) => {
                let result = self.class_name.as_deref();
                info!(
                    action = "prediction_completed",
                    job_id, duration_ms, result, attempt, request_id, traceparent
                );
            }
            Settlement::Fail { code, .. } => {
                warn!(
                    action = "prediction_failed",
                    job_id, duration_ms, code, attempt, request_id, traceparent
                );
            }
            Settlement::Retry(delay) => {
                let retry_ms = delay.as_millis() as u64;
                info!(action = "attempt_retried", job_id, duration_ms, retry_ms, attempt, request_id);
            }
            Settlement::Release | Settlement::Broken => {
                info!(action = "attempt_released", job_id, duration_ms, attempt, request_id)
            }
        }
    }
}
