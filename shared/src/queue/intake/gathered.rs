//! Submissions that wait for a script call, and how they are divided into calls.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    job::{JobId, NewJob},
    queue::{error::StoreError, intake::submitted::Submitted},
};

/// Largest number of jobs in a call. The cost of the call itself is then negligible, and Redis is busy for a fraction of a
/// millisecond.
const MOST_JOBS: usize = 16;
/// A call with this many bytes of input takes no further job.
const ENOUGH_BYTES: usize = 1 << 20;
/// Bytes of input beyond which Redis needs a quarter of a millisecond or more for a job. Others do not wait in the same call.
const LARGE: usize = 64 << 10;

/// The outcome of one submission.
pub(super) type SubmitResult = Result<Submitted, StoreError>;

/// A job that is being submitted.
#[derive(Debug)]
pub(super) struct PendingSubmission {
    pub(super) id: JobId,
    pub(super) job: Arc<NewJob>,
    /// The receiver is gone if the client has gone away.
    pub(super) outcome: oneshot::Sender<SubmitResult>,
}

impl PendingSubmission {
    pub(super) fn new(id: JobId, job: Arc<NewJob>) -> (Self, oneshot::Receiver<SubmitResult>) {
        let (sender, receiver) = oneshot::channel();
        (Self { id, job, outcome: sender }, receiver)
    }

    pub(super) fn is_large(&self) -> bool {
        is_large(&self.job)
    }
}

/// Whether Redis is busy with the job for so long that it should not delay others.
pub(super) fn is_large(job: &NewJob) -> bool {
    job.input.len() > LARGE
}

/// Submissions that wait for a call. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered(Arc<Mutex<Vec<PendingSubmission>>>);

/// What the caller must do after it added a submission.
pub(super) enum Added {
    /// It is the first. Send all that wait, after other tasks that are ready have added theirs.
    First,
    /// Another task sends it.
    Further,
    /// Send these: they fill a call.
    Enough(Vec<PendingSubmission>),
}

impl Gathered {
    pub(super) fn add(&self, submission: PendingSubmission) -> Added {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.push(submission);
        match gathered.len() {
            MOST_JOBS.. => Added::Enough(mem::take(&mut *gathered)),
            1 => Added::First,
            _ => Added::Further,
        }
    }

    pub(super) fn take(&self) -> Vec<PendingSubmission> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Divides submissions into calls, each for one partition and model and for small or large jobs, in the order of submission.
pub(super) fn calls(mut submissions: Vec<PendingSubmission>) -> Vec<Vec<PendingSubmission>> {
    let streams_of = |submission: &PendingSubmission| (submission.id.partition(), submission.job.model);
    submissions.sort_by_key(streams_of);
    let (mut calls, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for submission in submissions {
        let has_room = |call: &&mut Vec<PendingSubmission>| {
            let is_same = |other: &PendingSubmission| {
                streams_of(other) == streams_of(&submission) && other.is_large() == submission.is_large()
            };
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
