//! One batch from its start to its settled outcomes.
//!
//! Calls the model with the rows of all jobs, then ends or releases all jobs in one round trip. After a failed call, its
//! [`Verdict`] alone decides what to do. Only a lone job is ever charged with a failure.

mod examine;
mod outcome;
mod settling;
mod time_limit;
mod versions;

use std::{
    ops::Range,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tepal_shared::{
    content::Content,
    job::{Attempt, ModelName, input::ResultForm},
    model::{Answer, Model, OutputError, StoredMismatch},
    process::{retry::retry_delay, telemetry},
    queue::work::{Settlement, Work},
    tensor::Tensor,
};
use tracing::warn;

use crate::{
    backend::{Backend, BackendError, Step, Verdict},
    metrics,
    run::{
        batch::{Limits, MicroBatch},
        batch_limit::BatchLimit,
        breaker::Breaker,
        leases::Leases,
        limiter::{Epoch, Limiter, Slot},
        parts::{Part, Parts},
        runner::outcome::Outcome,
        sample::Sample,
        settings::RunSettings,
        spans,
    },
};

/// Runs the batches of one model.
pub struct Runner {
    /// The name of the model.
    pub name: ModelName,
    /// The description of the model.
    pub model: Model,
    /// Runs the model.
    pub backend: Arc<dyn Backend>,
    /// Where outcomes are recorded.
    pub work: Work,
    /// Shows whether the backend or an input is to blame.
    pub sample: Sample,
    /// Stops claiming while the backend is unreachable.
    pub breaker: Breaker,
    /// Lowers the number of calls at a time when the backend is overloaded.
    pub limiter: Limiter,
    /// Lowers the number of rows of a call when the backend fails calls because of their size.
    pub batch_limit: BatchLimit,
    /// The held jobs.
    pub leases: Leases,
    /// Its settings.
    pub settings: RunSettings,
    /// Run the batches of other versions. They share the breaker, the limiter and the sample, so that a broken version stops no other.
    pub other_versions: Vec<Arc<Self>>,
}

/// The end of a model call.
enum Called {
    Answered(Answer),
    Failed(BackendError),
    /// All jobs of the batch are lost or cancelled.
    Abandoned,
}

/// A failure, and the outcome for the jobs of the call.
struct Failure {
    error: BackendError,
    step: Step,
}

impl Called {
    fn error(&self) -> Option<&BackendError> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Answered(_) | Self::Abandoned => None,
        }
    }
}

impl Runner {
    /// The current limits of a call.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { rows: self.most_rows(), bytes: self.settings.limits.bytes }
    }

    fn most_rows(&self) -> usize {
        self.batch_limit.rows().min(self.settings.limits.rows).min(self.backend.most_rows())
    }

    /// Releases jobs that must not run now.
    pub async fn release(&self, attempts: &[Attempt]) {
        self.settle(attempts.iter().map(|attempt| Outcome::of(attempt, Settlement::Release)).collect()).await;
    }

    /// Fails jobs whose input does not fit the model.
    pub async fn refuse(&self, unfit: &[(Attempt, StoredMismatch)]) {
        let outcomes = unfit.iter().map(|(attempt, mismatch)| {
            let (code, error) = match mismatch {
                StoredMismatch::Version(version) => {
                    ("model_not_found", format!("Version `{version}` of the model `{}` was removed", self.name))
                }
                _ => (
                    "invalid_input",
                    format!(
                        "The input does not fit the description of the model, which differs from the one at submission: {mismatch}"
                    ),
                ),
            };
            Outcome::of(attempt, Settlement::Fail { code: code.to_owned(), error })
        });
        self.settle(outcomes.collect()).await;
    }

    /// Runs a batch, with as many calls as it needs, until all its jobs have outcomes.
    pub async fn run(&self, batch: MicroBatch, slot: &mut Slot) {
        let mut parts = Parts::of(batch);
        while let Some(part) = parts.next(self.most_rows()) {
            if !self.breaker.is_closed() {
                let mut rest = parts.rest();
                rest.extend(part.batch.items.into_iter().map(|item| item.attempt));
                return self.release(&rest).await;
            }
            if let Some(pause) = parts.pause() {
                self.in_time(&part.batch, tokio::time::sleep(pause)).await;
            }
            self.run_part(part, &mut parts, slot).await;
        }
        if let Some(rows) = parts.too_many_rows() {
            self.batch_limit.lower(rows);
        }
    }

    /// Makes one call, and settles its jobs unless they need more calls.
    async fn run_part(&self, mut part: Part, parts: &mut Parts, slot: &mut Slot) {
        let Some(epoch) = self.in_time(&part.batch, self.limiter.pause()).await else {
            return self.too_late(&part.batch).await;
        };
        part.called_at = Instant::now().into();
        let began = SystemTime::now();
        let called = self.call(&part.batch).await;
        let call = spans::Call::ended(&part.batch, (self.name, self.backend.name()), began, called.error());
        let (batch, failure) = match called {
            Called::Answered(answer) => {
                self.succeeded(&part, parts);
                return self.settle(with_call(call.as_ref(), self.results(&part.batch, &answer))).await;
            }
            Called::Abandoned => return,
            Called::Failed(error) => {
                self.note(&error, &part);
                parts.failed(error.verdict);
                let Some(failed) = self.after_failure(error, epoch, part, parts, slot).await else { return };
                failed
            }
        };
        let outcomes = batch.items.iter().map(|item| self.outcome(&item.attempt, &failure));
        self.settle(with_call(call.as_ref(), outcomes.collect())).await;
    }

    fn succeeded(&self, part: &Part, parts: &mut Parts) {
        self.limiter.succeeded();
        self.breaker.succeeded();
        self.batch_limit.succeeded(part.batch.rows());
        parts.succeeded();
    }

    /// Decides what follows from a failed call: more calls for its jobs, or the failure to record for them.
    async fn after_failure(
        &self,
        error: BackendError,
        began: Epoch,
        mut part: Part,
        parts: &mut Parts,
        slot: &mut Slot,
    ) -> Option<(MicroBatch, Failure)> {
        let mut step = error.step(parts.evidence(&part, self.breaker.vitals()));
        if step == Step::Examine {
            step = self.examine(&error, &mut part, parts).await;
        }
        if error.verdict.is_load() && step != Step::Stop {
            self.limiter.shrink(began);
        }
        self.limiter.hold(error.retry_after);
        match step {
            Step::Split => {
                metrics::batch_split(self.name, error.verdict.word());
                parts.split(part);
            }
            Step::Wait => {
                if self.in_time(&part.batch, slot.wait_again()).await.is_none() {
                    self.too_late(&part.batch).await;
                    return None;
                }
                parts.wait(part);
            }
            Step::Repeat | Step::Examine => parts.repeat(part),
            Step::Defer => parts.defer(part),
            Step::Stop | Step::Release | Step::Retry | Step::Fail => {
                match step {
                    Step::Stop if error.verdict == Verdict::Broken => {
                        self.breaker.broken(&error, part.called_at, self.backend.as_ref()).await;
                    }
                    Step::Stop => self.breaker.open(&error),
                    Step::Retry | Step::Fail => parts.blame_job(),
                    _ => {}
                }
                return Some((part.batch, Failure { error, step }));
            }
        }
        None
    }

    async fn call(&self, batch: &MicroBatch) -> Called {
        let watch = self.leases.watch(batch.items.iter().map(|item| item.attempt.claim));
        let (limit, too_late) = self.time_limit(batch);
        if limit.is_zero() {
            return Called::Failed(too_late());
        }
        metrics::batch(self.name, batch.items.len(), batch.rows());
        let started = Instant::now();
        let _running = (self.breaker.vitals().begin(), self.limiter.share().call());
        let call = self.backend.predict(batch.as_call(&self.model, limit));
        let called = tokio::select! {
            biased;
            () = watch.abandoned() => return Called::Abandoned,
            answer = tokio::time::timeout(limit, call) => match answer {
                Ok(answer) => answer.and_then(|answer| self.checked(batch, answer)),
                Err(_) => {
                    self.breaker.vitals().given_up(started.into(), self.settings.inference_timeout);
                    Err(too_late())
                }
            },
        };
        metrics::inference(self.name, started.elapsed(), called.is_ok());
        called.map_or_else(Called::Failed, Called::Answered)
    }

    fn checked(&self, batch: &MicroBatch, outputs: Vec<Tensor>) -> Result<Answer, BackendError> {
        let checked = self.model.check_outputs(batch.rows(), outputs);
        checked.map_err(|error| BackendError::bad_answer(&error).because(error))
    }

    /// Logs a failed call, and reports it to the signs of life and to the limit of rows.
    fn note(&self, error: &BackendError, part: &Part) {
        let verdict = error.verdict;
        let jobs = part.batch.items.len();
        let chain = telemetry::chain(error);
        let model = self.name.as_str();
        warn!(
            action = "inference_failed",
            model,
            code = error.code,
            verdict = verdict.word(),
            jobs,
            error = chain
        );
        if verdict.is_answer() {
            self.breaker.vitals().answered();
        }
        if verdict.blames_size() && part.is_shared() {
            self.batch_limit.lower(part.batch.rows());
        }
    }

    /// Splits the answer into the results of the jobs. A job with NaN in its rows, or with a too large result, fails alone.
    fn results<'a>(&self, batch: &'a MicroBatch, answer: &Answer) -> Vec<Outcome<'a>> {
        let outcomes = batch.split().map(|(item, from)| {
            let rows = from..from + item.input.rows;
            match self.result(&item.form, answer, rows) {
                Ok((settlement, class_name)) => {
                    Outcome { attempt: &item.attempt, settlement, class_name, call: None }
                }
                Err(error) => Outcome::of(&item.attempt, no_result(&error)),
            }
        });
        outcomes.collect()
    }

    /// The completion of a job with these rows, and the class of the first.
    fn result(
        &self,
        form: &ResultForm,
        answer: &Answer,
        rows: Range<usize>,
    ) -> Result<(Settlement, Option<String>), OutputError> {
        let most = self.settings.max_result_bytes;
        match form {
            _ if self.model.is_opaque => {
                let settlement = match self.model.value_of(answer, rows, most)? {
                    Content::Json(text) => Settlement::Complete(text.to_owned()),
                    bytes => Settlement::CompleteStored(bytes.stored()),
                };
                Ok((settlement, None))
            }
            ResultForm::Prediction => {
                let result = self.model.render(answer, rows, most)?;
                Ok((Settlement::Complete(result.json), result.class_name))
            }
            ResultForm::Outputs(names) => {
                let result = self.model.outputs_of(answer, rows, names, most)?;
                Ok((Settlement::CompleteStored(result.bytes), result.class_name))
            }
        }
    }

    fn outcome<'a>(&self, attempt: &'a Attempt, failure: &Failure) -> Outcome<'a> {
        let Failure { error, step } = failure;
        let may_retry = attempt.number() <= self.settings.max_retries;
        let settlement = match step {
            Step::Stop if error.verdict == Verdict::Broken => self.after_break(attempt),
            Step::Retry if may_retry => {
                let lease = self.work.queue().policy().lease;
                Settlement::Retry(retry_delay(self.settings.retry_base, attempt.number(), lease))
            }
            Step::Retry | Step::Fail => error.settlement(),
            _ => Settlement::Release,
        };
        Outcome::of(attempt, settlement)
    }

    /// The first call that broke off may have held other jobs. In each later one the job was alone.
    fn after_break(&self, attempt: &Attempt) -> Settlement {
        if attempt.broken < u64::from(self.work.queue().policy().max_lost) {
            return Settlement::Broken;
        }
        let error = format!("The model server was lost {} times while it ran the job", attempt.broken + 1);
        Settlement::Fail { code: "model_lost".to_owned(), error }
    }
}

/// The end of a job whose rows of a good answer make no result. Another attempt would get the same ones.
fn no_result(error: &OutputError) -> Settlement {
    match error {
        OutputError::TooLarge { .. } => {
            Settlement::Fail { code: "result_too_large".to_owned(), error: error.to_string() }
        }
        _ => BackendError::bad_answer(error).settlement(),
    }
}

fn with_call<'a>(call: Option<&'a spans::Call>, mut outcomes: Vec<Outcome<'a>>) -> Vec<Outcome<'a>> {
    outcomes.iter_mut().for_each(|outcome| outcome.call = call);
    outcomes
}

impl BackendError {
    fn settlement(&self) -> Settlement {
        Settlement::Fail { code: self.code.to_owned(), error: self.message.clone() }
    }
}
