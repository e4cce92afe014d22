//! Requeues: submits the input of a failed or cancelled job again.

use std::time::Duration;

use redis::{Cmd, Value};

use crate::{
    job::{Charge, JobId, JobStatus, ModelName, NotAModelName, owner::View},
    queue::{
        error::StoreError,
        intake::{depths::Room, handle::Intake, submitted::room_in},
        link::{Answered, Written},
        scripts::{REQUEUE, reply::Reply},
    },
};

/// The caller of a requeue.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The jobs that the caller sees.
    pub view: View<'a>,
    /// Payer of a large job without an owner, and the quota of payers; `None` = nothing is charged.
    pub charge: Option<&'a Charge>,
    /// Id of the HTTP request, for the logs.
    pub request_id: Option<&'a str>,
    /// W3C Trace Context header of the HTTP request.
    pub traceparent: Option<&'a str>,
}

/// The outcome of a requeue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// The new job waits in the queue.
    Accepted,
    /// The old job has not failed and was not cancelled.
    NotRepeatable(JobStatus),
    /// The old job failed or was cancelled, but its input has expired.
    InputExpired(JobStatus),
    /// No such job, or the caller does not see it.
    Missing,
    /// The queue is at its limit.
    Full {
        /// Jobs that have not ended.
        outstanding: u64,
    },
    /// The model is at its limit.
    ModelFull {
        /// Jobs of the model that have not ended.
        outstanding: u64,
    },
    /// The payer is at its quota.
    OverQuota {
        /// As of a submission.
        room_in: Option<Duration>,
    },
}

impl Requeued {
    pub(crate) fn parse(value: Value) -> Result<Self, StoreError> {
        let mut reply = Reply::new(&REQUEUE, value)?;
        match reply.word()?.as_str() {
            "accepted" => Ok(Self::Accepted),
            "expired" => Ok(Self::InputExpired(reply.parsed("a status")?)),
            "unfinished" => Ok(Self::NotRepeatable(reply.parsed("a status")?)),
            "missing" => Ok(Self::Missing),
            "full" => Ok(Self::Full { outstanding: reply.count("the queue's length")? }),
            "model_full" => Ok(Self::ModelFull { outstanding: reply.count("the queue's length")? }),
            "over_quota" => Ok(Self::OverQuota { room_in: room_in(&mut reply)? }),
            word => reply.unknown(word),
        }
    }
}

impl Intake {
    /// Submits the input of the failed or cancelled job `old` again as `id`, if the caller sees the old job. `id` must be in the same
    /// partition. Both jobs have the same owner.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn requeue(&self, old: JobId, id: JobId, origin: Origin<'_>) -> Result<Requeued, StoreError> {
        // A job never changes its model.
        match self.model_of(old).await? {
            Some(model) => self.requeue_of(model, old, id, origin).await,
            None => Ok(Requeued::Missing),
        }
    }

    /// As [`requeue`](Self::requeue), for a job of a known model.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn requeue_of(
        &self,
        model: ModelName,
        old: JobId,
        id: JobId,
        origin: Origin<'_>,
    ) -> Result<Requeued, StoreError> {
        let partition = old.partition();
        let Room { others, most_of_model } = self.depths.room(partition, model);
        let [high, normal, low] = self.queue.keys.streams(partition, model);
        let [log, old_job, input] =
            [self.queue.keys.log(partition), self.queue.keys.job(old), self.queue.keys.input(old)];
        let mut command = REQUEUE.call(&[self.queue.keys.job(id), high, normal, low, log, old_job, input]);
        command
            .arg(id.to_string())
            .arg(old.to_string())
            .arg(self.queue.policy.max_queue_depth)
            .arg(&id.as_bytes()[..])
            .arg(origin.view.as_argument())
            .arg(origin.charge.map_or(0, |charge| charge.most_bytes))
            .arg(origin.charge.map_or("", |charge| &charge.payer))
            .arg(model.as_str())
            .arg(others)
            .arg(most_of_model);
        add_origin(&mut command, origin.request_id, origin.traceparent);
        let answered = self.run_change(partition, &command).await?;
        let on = Written::of(&answered);
        let Answered { value, earlier, .. } = answered;
        let requeued = Requeued::parse(value)?;
        match (requeued, earlier) {
            (Requeued::Accepted, _) => {
                self.confirmed(&on).await?;
                self.acknowledged.add([id].into_iter(), on.generation());
            }
            // The earlier sending may have found room.
            (
                Requeued::Full { .. } | Requeued::ModelFull { .. } | Requeued::OverQuota { .. },
                Some(error),
            ) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(requeued)
    }

    /// The model of a job; `None` if there is no such job.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn model_of(&self, id: JobId) -> Result<Option<ModelName>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.queue.keys.job(id)).arg("m");
        let name: Option<String> =
            redis::from_redis_value(self.queue.primary(id.partition()).run(&command).await?)
                .map_err(StoreError::unread)?;
        name.map(|name| name.parse().map_err(StoreError::unread::<NotAModelName>)).transpose()
    }
}

fn add_origin(command: &mut Cmd, request_id: Option<&str>, traceparent: Option<&str>) {
    for (field, value) in [("request_id", request_id), ("traceparent", traceparent)] {
        if let Some(value) = value {
            command.arg(field).arg(value);
        }
    }
}
