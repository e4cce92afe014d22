//! The queue, as a proxy uses it.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use tepal_shared::{
    job::{Job, JobId},
    queue::{
        Queue, RedisError,
        error::StoreError,
        intake::{Expired, Intake},
        link::{Redis, ReplicationSettings},
        views::Views,
    },
    settings::Base,
};

use crate::edge::access::Visibility;

/// The roles of a proxy in the queue. Clones share everything.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) intake: Intake,
    pub(crate) views: Views,
}

impl Store {
    /// Starts to connect to Redis.
    pub(crate) fn open(common: &Base, replication: Option<ReplicationSettings>) -> Result<Self, RedisError> {
        let redis = Redis::open(common.redis.clone())?;
        let mut intake = Intake::new(Queue::new(redis, common.keys.clone(), common.policy.clone()));
        if let Some(replication) = replication {
            intake = intake.with_replication(common.redis.clone(), replication)?;
        }
        Ok(Self { views: Views::new(intake.queue().clone()), intake })
    }

    pub(crate) fn queue(&self) -> &Queue {
        self.intake.queue()
    }

    /// Reads a job as it is now, if the caller sees it.
    pub(crate) async fn current(&self, sees: Visibility<'_>, id: JobId) -> Result<Option<Job>, StoreError> {
        match self.views.job(id).await? {
            Some(job) if sees.shows(&job) => self.up_to_date(job).await,
            _ => Ok(None),
        }
    }

    /// Whether the job may be one of a model that the caller sees. Scripts check only the owner. A job never changes its model, so it
    /// is read before, and only for a caller that is limited to models.
    pub(crate) async fn shows_model_of(&self, sees: Visibility<'_>, id: JobId) -> Result<bool, StoreError> {
        if sees.models.is_none() {
            return Ok(true);
        }
        Ok(self.intake.model_of(id).await?.is_some_and(|model| sees.shows_model(model.as_str())))
    }

    /// Fails the job and reads it again, if its deadline has passed: no worker may be running. While Redis refuses changes, the
    /// job stays as it was read.
    pub(crate) async fn up_to_date(&self, job: Job) -> Result<Option<Job>, StoreError> {
        if !is_overdue(&job) {
            return Ok(Some(job));
        }
        // The clock of this machine only decides whether to ask Redis, which uses its own.
        match self.intake.expire(job.id).await {
            Ok(Expired::Kept(status)) if status == job.status => Ok(Some(job)),
            Err(StoreError::CannotPersist(_) | StoreError::NotReady(_)) => Ok(Some(job)),
            Ok(_) => self.views.job(job.id).await,
            Err(error) => Err(error),
        }
    }

    /// Fails all overdue jobs at once, and reads them again.
    pub(crate) async fn bring_up_to_date(&self, jobs: &mut [Option<Job>]) -> Result<(), StoreError> {
        let overdue = jobs.iter_mut().filter(|job| job.as_ref().is_some_and(is_overdue));
        let ending = overdue.map(async |job| {
            let Some(read) = job.clone() else { return Ok(()) };
            self.up_to_date(read).await.map(|now| *job = now)
        });
        try_join_all(ending).await.map(drop)
    }
}

fn is_overdue(job: &Job) -> bool {
    !job.status.is_terminal() && job.deadline_ms.is_some_and(|deadline_ms| deadline_ms < now_ms())
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
