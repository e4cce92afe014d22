//! Ends jobs without a worker: for a client that cancels, and for a deadline that has passed.

use redis::Value;

use crate::{
    job::{JobId, JobStatus, ModelName, owner::View},
    queue::{
        error::StoreError,
        intake::handle::Intake,
        link::Written,
        scripts::{CANCEL, EXPIRE, argument::seconds, reply::Reply},
    },
};

/// The outcome of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The job is cancelled, now or earlier. Its model; `None` if its record is damaged.
    Done(Option<ModelName>),
    /// The job completed or failed before.
    Ended(JobStatus),
    /// No such job.
    Missing,
}

impl Cancelled {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&CANCEL, value)?;
        match reply.word()?.as_str() {
            "cancelled" => Ok(Self::Done(reply.text("a model")?.parse().ok())),
            "ended" => Ok(Self::Ended(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            word => reply.unknown(word),
        }
    }
}

/// The outcome of a check of a job's deadlines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expired {
    /// A deadline has passed. The job has failed with this error code.
    Failed(String),
    /// No deadline has passed, or the job has ended.
    Kept(JobStatus),
    /// No such job.
    Missing,
}

impl Expired {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&EXPIRE, value)?;
        match reply.word()?.as_str() {
            "expired" => Ok(Self::Failed(reply.text("an error code")?)),
            "kept" => Ok(Self::Kept(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            word => reply.unknown(word),
        }
    }
}

impl Intake {
    /// Cancels a job that has not ended, if the caller sees it.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn cancel(&self, id: JobId, view: View<'_>) -> Result<Cancelled, StoreError> {
        let mut command = CANCEL.call(&[self.queue.keys.job(id)]);
        command.arg(seconds(self.queue.policy.result_ttl)).arg(view.as_argument());
        command.arg(seconds(self.queue.policy.failed_input_ttl));
        command.arg(self.queue.keys.stream_prefix(id.partition()));
        let answered = self.run_change(id.partition(), &command).await?;
        let on = Written::of(&answered);
        let cancelled = Cancelled::parse(answered.value)?;
        if matches!(cancelled, Cancelled::Done(_)) {
            self.confirmed(&on).await?;
        }
        Ok(cancelled)
    }

    /// Fails a job if one of its deadlines has passed.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn expire(&self, id: JobId) -> Result<Expired, StoreError> {
        let mut command = EXPIRE.call(&[self.queue.keys.job(id)]);
        command
            .arg(id.to_string())
            .arg(seconds(self.queue.policy.result_ttl))
            .arg(self.queue.policy.max_dead_letters)
            .arg(seconds(self.queue.policy.failed_input_ttl))
            .arg(self.queue.keys.stream_prefix(id.partition()));
        Expired::parse(self.queue.primary(id.partition()).run(&command).await?)
    }
}
