//! How jobs come in. Submissions that are made at the same time share a script call, since a call by itself costs Redis a
//! third of what a job in it does. Nobody waits for others to come: what is ready to be submitted now goes at once.

use std::{
    io, mem,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::join_all;
use redis::{Cmd, RedisError};
use tokio::sync::oneshot;

use super::{JobStore, millis, stream_number};
use crate::{
    job::{JobId, LARGE_BYTES, NewJob, Priority},
    queue::{
        error::StoreError,
        link::Answered,
        scripts::{SUBMIT, Submitted},
    },
};

/// Most jobs of a call: its own cost hardly counts any more, and Redis is held up for a fraction of a millisecond.
const MOST_JOBS: usize = 16;
/// Bytes of input after which a call has enough.
const ENOUGH_BYTES: usize = 1 << 20;
/// Arguments of a usual job, and their bytes, so that a command grows in place.
const USUAL_ARGUMENTS: usize = 12;
const USUAL_BYTES: usize = 512;

type Outcome = Result<Submitted, StoreError>;

/// A job that is on its way into the queue.
#[derive(Debug)]
struct Submission {
    id: JobId,
    job: Arc<NewJob>,
    /// Nobody listens any more when its client has gone away.
    told: oneshot::Sender<Outcome>,
}

impl Submission {
    fn new(id: JobId, job: Arc<NewJob>) -> (Self, oneshot::Receiver<Outcome>) {
        let (told, outcome) = oneshot::channel();
        (Self { id, job, told }, outcome)
    }
}

/// Submissions that no call has yet. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered(Arc<Mutex<Vec<Submission>>>);

/// What has to be done when a submission has come.
enum Added {
    /// It is the first: send what there is once all who are ready have added theirs.
    First,
    /// Somebody else sends it.
    Further,
    /// These are enough for a call: send them.
    Enough(Vec<Submission>),
}

impl Gathered {
    fn add(&self, submission: Submission) -> Added {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.push(submission);
        match gathered.len() {
            MOST_JOBS.. => Added::Enough(mem::take(&mut *gathered)),
            1 => Added::First,
            _ => Added::Further,
        }
    }

    fn take(&self) -> Vec<Submission> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl JobStore {
    /// Accepts the job under `id`. Repeating it with the same id is safe.
    ///
    /// # Errors
    /// Any [`StoreError`]; after `Ambiguous` the job may or may not have been accepted.
    pub async fn submit(&self, id: JobId, job: impl Into<Arc<NewJob>>) -> Outcome {
        let (submission, outcome) = Submission::new(id, job.into());
        match self.gathered.add(submission) {
            Added::First => drop(tokio::spawn(self.clone().send_gathered())),
            Added::Further => {}
            Added::Enough(submissions) => drop(tokio::spawn(self.clone().send_all(submissions))),
        }
        outcome.await.unwrap_or_else(|_| Err(interrupted()))
    }

    /// Accepts the jobs, each by itself, to wait in this order; one outcome for each. Repeating it with the same ids is safe.
    ///
    /// # Errors
    /// When Redis answered for none of them: after `Ambiguous` any of the jobs may have been accepted.
    pub async fn submit_all(&self, jobs: &[(JobId, Arc<NewJob>)]) -> Result<Vec<Outcome>, StoreError> {
        let (submissions, outcomes): (Vec<_>, Vec<_>) =
            jobs.iter().map(|(id, job)| Submission::new(*id, Arc::clone(job))).unzip();
        // Only a connection that is up, to a Redis that knows the script, keeps the order of calls that are made at once.
        let mut calls = calls(submissions).into_iter();
        if let Some(first) = calls.next() {
            self.send(first).await;
        }
        join_all(calls.map(|further| self.send(further))).await;
        let outcomes = join_all(outcomes).await;
        let outcomes: Vec<_> =
            outcomes.into_iter().map(|told| told.unwrap_or_else(|_| Err(interrupted()))).collect();
        let unanswered =
            || outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).filter(|e| e.is_retryable());
        let ambiguous = unanswered().find(|error| matches!(error, StoreError::Ambiguous(_)));
        match ambiguous.or_else(|| unanswered().next()) {
            Some(error) if unanswered().count() == outcomes.len() => Err(error.clone()),
            _ => Ok(outcomes),
        }
    }

    async fn send_gathered(self) {
        // Whoever is ready to run now may have a job to submit: they run first.
        tokio::task::yield_now().await;
        let submissions = self.gathered.take();
        self.send_all(submissions).await;
    }

    async fn send_all(self, submissions: Vec<Submission>) {
        join_all(calls(submissions).into_iter().map(|submissions| self.send(submissions))).await;
    }

    async fn send(&self, submissions: Vec<Submission>) {
        let (jobs, mut told): (Vec<_>, Vec<_>) = submissions
            .into_iter()
            .map(|submission| ((submission.id, submission.job), submission.told))
            .unzip();
        let outcomes = tokio::select! {
            biased;
            outcomes = self.submitted(&jobs) => outcomes,
            // Clients that went away while Redis hangs must not fill the memory with their jobs.
            _ = join_all(told.iter_mut().map(oneshot::Sender::closed)) => return,
        };
        for (told, outcome) in told.into_iter().zip(outcomes) {
            let _ = told.send(outcome);
        }
    }

    /// One outcome for each, in order.
    async fn submitted(&self, jobs: &[(JobId, Arc<NewJob>)]) -> Vec<Outcome> {
        match self.call(jobs).await {
            Ok(outcomes) => outcomes,
            // What is wrong with the keys of one is not the others' trouble.
            Err(StoreError::Refused(_) | StoreError::Forbidden(_)) if jobs.len() > 1 => {
                let alone = jobs.chunks(1).map(async |one| {
                    self.call(one).await.unwrap_or_else(|error| vec![Err(after_shared_call(error))])
                });
                join_all(alone).await.into_iter().flatten().collect()
            }
            Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Submits jobs of one partition in one script call; one outcome for each, in order.
    async fn call(&self, jobs: &[(JobId, Arc<NewJob>)]) -> Result<Vec<Outcome>, StoreError> {
        let Answered { generation, value, earlier } = self.run_submission(&self.submit_call(jobs)).await?;
        let mut outcomes = Submitted::parse_all(value, jobs.len())?;
        if let Some(error) = earlier {
            // The earlier sending may find room.
            let is_full = |outcome: &&mut Outcome| {
                matches!(outcome, Ok(Submitted::Full { .. } | Submitted::OverQuota { .. }))
            };
            outcomes.iter_mut().filter(is_full).for_each(|outcome| *outcome = Err(error.clone()));
        }
        let is_stored = |outcome: &Outcome| outcome.as_ref().is_ok_and(Submitted::is_stored);
        if outcomes.iter().any(is_stored)
            && let Err(error) = self.confirmed(generation).await
        {
            for outcome in outcomes.iter_mut().filter(|outcome| is_stored(outcome)) {
                *outcome = Err(error.clone());
            }
        }
        let accepted =
            jobs.iter().zip(&outcomes).filter(|(_, outcome)| matches!(outcome, Ok(Submitted::Accepted)));
        self.acknowledged.add(accepted.map(|((id, _), _)| *id), generation);
        Ok(outcomes)
    }

    fn submit_call(&self, jobs: &[(JobId, Arc<NewJob>)]) -> Cmd {
        let partition = jobs.first().map_or(0, |(id, _)| id.partition());
        let mut keys = Vec::with_capacity(4 + 2 * jobs.len());
        keys.extend(self.keys.streams(partition));
        keys.push(self.keys.log(partition));
        for (id, job) in jobs {
            keys.push(self.keys.job(*id));
            keys.extend(job.idempotency.as_ref().map(|key| self.keys.idempotency(partition, &key.key_hash)));
        }
        let bytes: usize = jobs.iter().map(|(_, job)| USUAL_BYTES + job.input.len()).sum();
        let mut command = SUBMIT.call_with_room(&keys, USUAL_ARGUMENTS * jobs.len(), bytes);
        let most_kept = jobs.iter().find_map(|(_, job)| Some(job.charge.as_ref()?.most_bytes));
        command.arg(self.policy.max_queue_depth).arg(most_kept.unwrap_or(0));
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

/// The fields that a new job has beside those that every job has; before them, how many arguments they are.
fn add_fields(command: &mut Cmd, job: &NewJob) {
    let priority = (job.priority != Priority::default()).then(|| job.priority.as_str());
    let timeout = job.timeout.map(|timeout| millis(timeout).to_string());
    let charged = job.charge.as_ref().map(|charge| charged(&charge.payer, job.input.len()));
    let fields = [
        ("input", Some(job.input.as_str())),
        ("priority", priority),
        ("timeout_ms", timeout.as_deref()),
        ("request_id", job.request_id.as_deref()),
        ("traceparent", job.traceparent.as_deref()),
        // The script looks for it in the last place.
        ("charged", charged.as_deref()),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    command.arg(2 * fields.clone().count());
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
}

/// What a job is charged with, as `lua/quota.lua` reads it.
fn charged(payer: &str, input_bytes: usize) -> String {
    let bytes = if input_bytes > LARGE_BYTES { input_bytes } else { 0 };
    format!("{bytes} {payer}")
}

/// Divides submissions into calls, each for one partition and in the order of their coming.
fn calls(mut submissions: Vec<Submission>) -> Vec<Vec<Submission>> {
    submissions.sort_by_key(|submission| submission.id.partition());
    let (mut calls, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for submission in submissions {
        let has_room = |call: &&mut Vec<Submission>| {
            let is_same = |other: &Submission| other.id.partition() == submission.id.partition();
            call.len() < MOST_JOBS && bytes < ENOUGH_BYTES && call.last().is_some_and(is_same)
        };
        let size = submission.job.input.len();
        match calls.last_mut().filter(has_room) {
            Some(call) => {
                call.push(submission);
                bytes += size;
            }
            None => {
                calls.push(vec![submission]);
                bytes = size;
            }
        }
    }
    calls
}

/// What a job's own call failed with, after a shared one that failed in the middle and may have stored the job: only a fault
/// of its own, which is found before anything is written, tells that it is not there.
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

/// For a submission whose call ended without an outcome, as when the runtime stops.
fn interrupted() -> StoreError {
    StoreError::Ambiguous(RedisError::from(io::Error::other("the call was stopped before its answer")))
}
