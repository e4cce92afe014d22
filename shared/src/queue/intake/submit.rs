//! Submits jobs. Submissions that are made at the same time share a script call, since a call by itself costs Redis a third of
//! what a job in it does. No submission waits for more to come: what is ready to be submitted now goes at once.

use std::{io, sync::Arc};

use futures_util::future::join_all;
use redis::{Cmd, RedisError};
use tokio::sync::oneshot;

use crate::{
    job::{JobId, LARGE_BYTES, ModelName, NewJob, Priority},
    queue::{
        error::StoreError,
        intake::{
            depths::Room,
            gathered::{Added, PendingSubmission, SubmitResult, calls, is_large},
            handle::Intake,
            submitted::Submitted,
        },
        link::{Answered, Written},
        scripts::{
            SUBMIT,
            argument::{millis, stream_number},
        },
    },
};

/// Arguments of a usual job, and their bytes. A command reserves this much.
const USUAL_ARGUMENTS: usize = 12;
const USUAL_BYTES: usize = 512;

impl Intake {
    /// Submits a job under `id`. It is safe to repeat with the same id.
    ///
    /// # Errors
    /// Any [`StoreError`]; after `Ambiguous` the job may or may not have been accepted.
    pub async fn submit(&self, id: JobId, job: impl Into<Arc<NewJob>>) -> SubmitResult {
        let (submission, outcome) = PendingSubmission::new(id, job.into());
        match self.gathered.add(submission) {
            Added::First => self.queue.redis().spawn(self.clone().send_gathered()),
            Added::Further => {}
            Added::Enough(submissions) => self.queue.redis().spawn(self.clone().send_all(submissions)),
        }
        outcome.await.unwrap_or_else(|_| Err(interrupted()))
    }

    /// Submits jobs, each by itself. They wait in this order. Returns one outcome for each. It is safe to repeat with the same ids.
    ///
    /// # Errors
    /// When no job has an outcome. After `Ambiguous`, any of the jobs may have been accepted.
    pub async fn submit_all(&self, jobs: &[(JobId, Arc<NewJob>)]) -> Result<Vec<SubmitResult>, StoreError> {
        let (submissions, outcomes): (Vec<_>, Vec<_>) =
            jobs.iter().map(|(id, job)| PendingSubmission::new(*id, Arc::clone(job))).unzip();
        // Concurrent calls keep their order only on a connection that is up, to a Redis that knows the script. So one goes first.
        let mut calls = calls(submissions).into_iter();
        // Small jobs of a batch take turns with its large ones, because they would overtake them.
        let in_turn = jobs.iter().any(|(_, job)| is_large(job));
        if let Some(first) = calls.next() {
            self.send(first, in_turn).await;
        }
        join_all(calls.map(|further| self.send(further, in_turn))).await;
        let outcomes = join_all(outcomes).await;
        let outcomes: Vec<_> =
            outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|_| Err(interrupted()))).collect();
        let unanswered =
            || outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).filter(|e| e.is_retryable());
        let ambiguous = unanswered().find(|error| matches!(error, StoreError::Ambiguous(_)));
        match ambiguous.or_else(|| unanswered().next()) {
            Some(error) if unanswered().count() == outcomes.len() => Err(error.clone()),
            _ => Ok(outcomes),
        }
    }

    async fn send_gathered(self) {
        // Tasks that are ready to run may submit jobs, too: they run first.
        tokio::task::yield_now().await;
        let submissions = self.gathered.take();
        self.send_all(submissions).await;
    }

    async fn send_all(self, submissions: Vec<PendingSubmission>) {
        let send = |submissions: Vec<PendingSubmission>| {
            let in_turn = submissions.first().is_some_and(PendingSubmission::is_large);
            self.send(submissions, in_turn)
        };
        join_all(calls(submissions).into_iter().map(send)).await;
    }

    /// Makes a call. `in_turn`: waits for the turn of a large call.
    async fn send(&self, submissions: Vec<PendingSubmission>, in_turn: bool) {
        let (jobs, mut waiting): (Vec<_>, Vec<_>) = submissions
            .into_iter()
            .map(|submission| ((submission.id, submission.job), submission.outcome))
            .unzip();
        let outcomes = tokio::select! {
            biased;
            outcomes = self.submitted(&jobs, in_turn) => outcomes,
            // While Redis hangs, jobs of clients that went away must not fill the memory.
            _ = join_all(waiting.iter_mut().map(oneshot::Sender::closed)) => return,
        };
        for (sender, outcome) in waiting.into_iter().zip(outcomes) {
            let _ = sender.send(outcome);
        }
    }

    /// Submits jobs of one partition and model. Returns one outcome for each, in order.
    async fn submitted(&self, jobs: &[(JobId, Arc<NewJob>)], in_turn: bool) -> Vec<SubmitResult> {
        match self.call(jobs, in_turn).await {
            Ok(outcomes) => outcomes,
            // If Redis rejects the keys of one job, the other jobs must not fail with it.
            Err(StoreError::Refused(_) | StoreError::Forbidden(_)) if jobs.len() > 1 => {
                let alone = jobs.chunks(1).map(async |one| {
                    self.call(one, in_turn).await.unwrap_or_else(|error| vec![Err(after_shared_call(error))])
                });
                join_all(alone).await.into_iter().flatten().collect()
            }
            Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Submits jobs of one partition and model in one script call. Returns one outcome for each, in order.
    async fn call(
        &self,
        jobs: &[(JobId, Arc<NewJob>)],
        in_turn: bool,
    ) -> Result<Vec<SubmitResult>, StoreError> {
        let Some((id, job)) = jobs.first() else { return Ok(Vec::new()) };
        // While it waits, its inputs are in memory only once.
        let turn = if in_turn { Some(self.turn_of_large_call().await?) } else { None };
        let call = self.submit_call(id.partition(), job.model, jobs);
        let answered = self.run_change(id.partition(), &call).await?;
        drop(turn);
        let on = Written::of(&answered);
        let Answered { value, earlier, .. } = answered;
        let mut outcomes = Submitted::parse_all(value, jobs.len())?;
        if let Some(error) = earlier {
            // The earlier sending may have found room.
            let is_full = |outcome: &&mut SubmitResult| {
                matches!(
                    outcome,
                    Ok(Submitted::Full { .. } | Submitted::ModelFull { .. } | Submitted::OverQuota { .. })
                )
            };
            outcomes.iter_mut().filter(is_full).for_each(|outcome| *outcome = Err(error.clone()));
        }
        let is_stored = |outcome: &SubmitResult| outcome.as_ref().is_ok_and(Submitted::is_stored);
        if outcomes.iter().any(is_stored)
            && let Err(error) = self.confirmed(&on).await
        {
            for outcome in outcomes.iter_mut().filter(|outcome| is_stored(outcome)) {
                *outcome = Err(error.clone());
            }
        }
        let accepted =
            jobs.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Ok(Submitted::Accepted)));
        self.acknowledged.add(accepted.map(|((id, _), _)| *id), on.generation());
        Ok(outcomes)
    }

    fn submit_call(&self, partition: u8, model: ModelName, jobs: &[(JobId, Arc<NewJob>)]) -> Cmd {
        let mut keys = Vec::with_capacity(4 + 2 * jobs.len());
        keys.extend(self.queue.keys.streams(partition, model));
        keys.push(self.queue.keys.log(partition));
        for (id, job) in jobs {
            keys.push(self.queue.keys.job(*id));
            keys.extend(
                job.idempotency.as_ref().map(|key| self.queue.keys.idempotency(partition, &key.key_hash)),
            );
        }
        let bytes: usize = jobs.iter().map(|(_, job)| USUAL_BYTES + job.input.len()).sum();
        let mut command = SUBMIT.call_with_room(&keys, USUAL_ARGUMENTS * jobs.len(), bytes);
        let most_kept = jobs.iter().find_map(|(_, job)| Some(job.charge.as_ref()?.most_bytes));
        let Room { others, most_of_model } = self.depths.room(partition, model);
        command.arg(self.queue.policy.max_queue_depth).arg(others).arg(most_of_model);
        command.arg(most_kept.unwrap_or(0)).arg(model.as_str());
        for (id, job) in jobs {
            command
                .arg(id.to_string())
                .arg(&id.as_bytes()[..])
                .arg(stream_number(job.priority))
                .arg(job.max_queue.map_or(0, millis))
                .arg(job.owner.as_deref().unwrap_or_default())
                .arg(job.idempotency.as_ref().map_or("", |key| key.fingerprint.as_str()));
            add_fields(&mut command, job);
        }
        command
    }
}

/// Adds the number of the further fields of a new job, then their names and values.
fn add_fields(command: &mut Cmd, job: &NewJob) {
    let priority = (job.priority != Priority::default()).then(|| job.priority.as_str());
    let timeout = job.timeout.map(|timeout| millis(timeout).to_string());
    let charged = job.charge.as_ref().map(|charge| charged(&charge.payer, job.input.len()));
    let fields = [
        ("input", Some(job.input.as_slice())),
        ("priority", priority.map(str::as_bytes)),
        ("timeout_ms", timeout.as_deref().map(str::as_bytes)),
        ("request_id", job.request_id.as_deref().map(str::as_bytes)),
        ("traceparent", job.traceparent.as_deref().map(str::as_bytes)),
        // The script expects it in the last place.
        ("charged", charged.as_deref().map(str::as_bytes)),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    command.arg(2 * fields.clone().count());
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
}

/// The field `charged` of a job, as `lua/quota.lua` reads it.
fn charged(payer: &str, input_bytes: usize) -> String {
    let bytes = if input_bytes > LARGE_BYTES { input_bytes } else { 0 };
    format!("{bytes} {payer}")
}

/// The failure of a job's own call, after a shared call failed part-way and may have stored the job. Unless Redis rejects the job
/// for its own sake, which it does before it writes anything, the outcome of the job is unknown.
fn after_shared_call(error: StoreError) -> StoreError {
    match error {
        StoreError::Disconnected => {
            StoreError::Ambiguous(RedisError::from(io::Error::other("Redis went away between two calls")))
        }
        StoreError::WrongTopology(topology) => {
            StoreError::Ambiguous(RedisError::from(io::Error::other(topology)))
        }
        StoreError::NotReady(error)
        | StoreError::OutOfMemory(error)
        | StoreError::CannotPersist(error)
        | StoreError::GroupMissing(error) => StoreError::Ambiguous(error),
        StoreError::Ambiguous(_)
        | StoreError::NotReplicated { .. }
        | StoreError::Forbidden(_)
        | StoreError::Refused(_)
        | StoreError::Protocol { .. }
        | StoreError::Unreadable { .. }
        | StoreError::NoRandomness(_) => error,
    }
}

/// The outcome of a submission whose call ended without one, for example because the runtime stops.
fn interrupted() -> StoreError {
    StoreError::Ambiguous(RedisError::from(io::Error::other("the call was stopped before its answer")))
}
