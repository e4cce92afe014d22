//! How a job is read: as it stands now, or as soon as it has ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use tepal_shared::{
    error::StoreError,
    job::{Job, JobId},
    owner::View,
    scripts::Expired,
    watchers::Watch,
};
use tokio::time::{Instant, sleep_until};

use crate::state::App;

/// Between two reads of a job that are made for another reason than news of it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Reads the job if the caller sees it; one that has missed its own deadline is ended first, since no worker may come by
/// to do it.
pub(crate) async fn current(app: &App, view: View<'_>, id: JobId) -> Result<Option<Job>, StoreError> {
    match app.store.job(id).await? {
        Some(job) if view.shows(job.owner.as_deref()) => up_to_date(app, job).await,
        _ => Ok(None),
    }
}

/// The job, read again if it had to be ended. While Redis takes no changes it stays as it was read.
pub(crate) async fn up_to_date(app: &App, job: Job) -> Result<Option<Job>, StoreError> {
    if !is_overdue(&job) {
        return Ok(Some(job));
    }
    // This machine's clock only decides whether to ask; Redis decides with its own.
    match app.store.expire(job.id).await {
        Ok(Expired::Kept(status)) if status == job.status => Ok(Some(job)),
        Err(StoreError::CannotPersist(_) | StoreError::NotReady(_)) => Ok(Some(job)),
        Ok(_) => app.store.job(job.id).await,
        Err(error) => Err(error),
    }
}

/// Brings those of `jobs` up to date that are overdue, all at once.
pub(crate) async fn bring_up_to_date(app: &App, jobs: &mut [Option<Job>]) -> Result<(), StoreError> {
    let overdue = jobs.iter_mut().filter(|job| job.as_ref().is_some_and(is_overdue));
    let ending = overdue.map(async |job| {
        let Some(read) = job.clone() else { return Ok(()) };
        up_to_date(app, read).await.map(|now| *job = now)
    });
    try_join_all(ending).await.map(drop)
}

fn is_overdue(job: &Job) -> bool {
    !job.status.is_terminal() && job.deadline_ms.is_some_and(|deadline_ms| deadline_ms < now_ms())
}

/// Reads the job, if the caller sees it, when it has ended, or as it stands when `wait` is over or the service stops.
pub(crate) async fn ended(
    app: &App,
    view: View<'_>,
    id: JobId,
    wait: Duration,
) -> Result<Option<Job>, StoreError> {
    let give_up = Instant::now() + wait;
    let first = current(app, view, id).await?;
    let is_wanted = |job: &&Job| !job.status.is_terminal() && !wait.is_zero();
    let Some(job) = first.as_ref().filter(is_wanted) else { return Ok(first) };
    let mut follower = Follower::new(app, job);
    loop {
        let is_over = tokio::select! {
            biased;
            () = app.shutdown.begun() => true,
            () = sleep_until(give_up) => true,
            () = follower.news() => false,
        };
        match follower.look(app).await {
            Ok(Some(job)) if !job.status.is_terminal() && !is_over => {}
            // Redis may be back before the wait is over.
            Err(error) if error.is_retryable() && !is_over => {}
            outcome => return outcome,
        }
    }
}

/// Follows one job's changes.
pub(crate) struct Follower {
    id: JobId,
    watch: Watch,
    /// When to look although nothing was heard.
    look_at: Option<Instant>,
}

impl Follower {
    /// Begins to follow a job that has not ended.
    pub(crate) fn new(app: &App, job: &Job) -> Self {
        Self { id: job.id, watch: app.watchers.watch(job.id), look_at: next_look(job) }
    }

    /// Waits until the job may have changed.
    pub(crate) async fn news(&mut self) {
        match self.look_at {
            Some(at) => tokio::select! {
                () = self.watch.changed() => {}
                () = sleep_until(at) => {}
            },
            None => self.watch.changed().await,
        }
    }

    /// Reads the job. After a failure the next news is that it can be tried again.
    pub(crate) async fn look(&mut self, app: &App) -> Result<Option<Job>, StoreError> {
        // Whoever follows the job has seen it, and its owner never changes.
        let outcome = current(app, View::All, self.id).await;
        self.look_at = match &outcome {
            Ok(job) => job.as_ref().and_then(next_look),
            Err(_) => Some(Instant::now() + SHORTEST_PAUSE),
        };
        outcome
    }
}

/// Nobody tells of a deadline that passes: whoever looks then ends the job.
fn next_look(job: &Job) -> Option<Instant> {
    let deadline_ms = job.deadline_ms.filter(|_| !job.status.is_terminal())?;
    let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms()) + 1);
    Instant::now().checked_add(left.max(SHORTEST_PAUSE))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
