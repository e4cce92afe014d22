//! A call: a request that submits a job and waits for its end, whatever its transport. A job whose client gives up is cancelled,
//! since nobody would read its result.

pub(crate) mod settings;

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, request::Parts};
use tepal_shared::{
    job::{Job, JobId, JobStatus},
    process::telemetry,
    queue::intake::Cancelled,
};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{accept::accept, idempotency};
use crate::{
    edge::{access::Caller, request_id},
    error::{ApiError, CallError},
    http::{budget::Share, prefer},
    jobs::{refused::Refused, submission::Submission},
    state::App,
};

/// A call.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) caller: Caller,
    /// The head of its request.
    pub(crate) head: Parts,
    pub(crate) submission: Submission,
    /// The memory of its body. It is released when the job is stored.
    pub(crate) memory: Option<Share>,
    pub(crate) wait_policy: WaitPolicy,
}

/// How long a call waits for the end of its job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitPolicy {
    /// At most this long. Then the job goes on.
    pub(crate) wait: Duration,
    /// The client waits no longer than this. Then the job is cancelled.
    pub(crate) deadline: Option<Duration>,
    /// Whether the job goes on in any case: the client can ask for its result later.
    pub(crate) is_detached: bool,
}

impl WaitPolicy {
    /// That of a request with these headers. `deadline`: how long its client waits.
    pub(crate) fn asked(headers: &HeaderMap, longest: Duration, deadline: Option<Duration>) -> Self {
        let is_async = prefer::is_async(headers);
        let wait = if is_async { prefer::wait(headers).unwrap_or_default() } else { longest };
        Self { wait, deadline, is_detached: is_async || idempotency::is_given(headers) }
    }
}

/// An accepted job, and what became of it while the call waited.
pub(crate) struct Answered {
    pub(crate) id: JobId,
    pub(crate) outcome: Outcome,
}

/// What became of a job.
pub(crate) enum Outcome {
    /// It completed.
    Completed(Arc<Job>),
    /// It has not ended, and goes on.
    Running(JobStatus),
    /// It has no result, or the result cannot be read.
    Failed(ApiError),
}

impl Call {
    /// Submits the job and waits. If this future is dropped, the job is cancelled, from a task that goes on.
    pub(crate) async fn run(self) -> Result<Answered, Refused> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(self.answer(sender));
        receiver.await.unwrap_or_else(|_| Err(ApiError::Panicked.into()))
    }

    async fn answer(self, mut to: oneshot::Sender<Result<Answered, Refused>>) {
        let Self { app, caller, head, submission, memory, wait_policy } = self;
        let accepted = accept(&app, &caller, &head, submission).await;
        drop(memory);
        let id = match accepted {
            Ok((id, _)) => id,
            Err(refused) => {
                // A client that has gone away needs no answer.
                let _ = to.send(Err(refused));
                return;
            }
        };
        let job = Awaited { app: &app, caller: &caller, head: &head, id, wait_policy };
        let outcome = tokio::select! {
            biased;
            outcome = job.outcome() => Some(outcome),
            () = to.closed() => None,
        };
        let is_running = outcome.as_ref().is_none_or(|outcome| matches!(outcome, Outcome::Running(_)));
        let is_answered = outcome.is_some_and(|outcome| to.send(Ok(Answered { id, outcome })).is_ok());
        if is_running && !is_answered {
            job.give_up("client_gone").await;
        }
    }
}

/// A job that a call waits for.
struct Awaited<'a> {
    app: &'a App,
    caller: &'a Caller,
    head: &'a Parts,
    id: JobId,
    wait_policy: WaitPolicy,
}

impl Awaited<'_> {
    async fn outcome(&self) -> Outcome {
        let WaitPolicy { wait, deadline, .. } = self.wait_policy;
        let until = deadline.map_or(wait, |deadline| deadline.min(wait));
        let job = match self.app.following.ended(self.caller.sees(), self.id, until).await {
            Ok(Some(job)) => job,
            Ok(None) => return Outcome::Failed(CallError::Removed.into()),
            Err(error) => return Outcome::Failed(ApiError::from(error).after_accepted()),
        };
        match job.status {
            JobStatus::Completed => Outcome::Completed(job),
            JobStatus::Failed => Outcome::Failed(CallError::of_failed(&job).into()),
            JobStatus::Cancelled => Outcome::Failed(CallError::Cancelled.into()),
            JobStatus::Pending | JobStatus::Processing => self.unfinished(job.status).await,
        }
    }

    /// Why the job was not waited for any longer.
    async fn unfinished(&self, status: JobStatus) -> Outcome {
        let WaitPolicy { wait, deadline, is_detached } = self.wait_policy;
        if is_detached {
            return Outcome::Running(status);
        }
        if self.app.shutdown.is_cancelled() {
            self.give_up("proxy_stops").await;
            return Outcome::Failed(ApiError::NotReady);
        }
        if deadline.is_some_and(|deadline| deadline <= wait) {
            self.give_up("deadline").await;
            return Outcome::Failed(CallError::DeadlineExceeded.into());
        }
        Outcome::Running(status)
    }

    /// Cancels the job, unless the client can ask for its result later.
    async fn give_up(&self, reason: &str) {
        if self.wait_policy.is_detached {
            return;
        }
        let (request_id, key_id) = (request_id::of(&self.head.headers), self.caller.key_id());
        let job_id = self.id;
        match self.app.store.intake.cancel(job_id, self.caller.sees().view).await {
            Ok(Cancelled::Done(model)) => {
                self.app.metrics.cancelled(model);
                info!(action = "job_cancelled", %job_id, request_id, key_id, reason);
            }
            // It has ended meanwhile.
            Ok(Cancelled::Ended(_) | Cancelled::Missing) => {}
            Err(error) => {
                let error = telemetry::chain(&error);
                warn!(action = "cancel_failed", %job_id, request_id, key_id, reason, error);
            }
        }
    }
}
