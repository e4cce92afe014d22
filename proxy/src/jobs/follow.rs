//! How a job is read: as it stands now, or as soon as it has ended. All who follow a job share each read.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt as _, future::try_join_all};
use tepal_shared::{
    job::{Job, JobId, owner::View},
    queue::{error::StoreError, scripts::Expired, store::JobStore, views::Watch},
};
use tokio::time::{Instant, sleep_until};

use crate::{
    jobs::single_flight::{Flight, SingleFlight},
    state::App,
};

/// Between two reads of a job that are made for another reason than news of it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Reads the job if the caller sees it; one that has missed its own deadline is ended first, since no worker may come by
/// to do it.
pub(crate) async fn current(store: &JobStore, view: View<'_>, id: JobId) -> Result<Option<Job>, StoreError> {
    match store.job(id).await? {
        Some(job) if view.shows(job.owner.as_deref()) => up_to_date(store, job).await,
        _ => Ok(None),
    }
}

/// The job, read again if it had to be ended. While Redis takes no changes it stays as it was read.
pub(crate) async fn up_to_date(store: &JobStore, job: Job) -> Result<Option<Job>, StoreError> {
    if !is_overdue(&job) {
        return Ok(Some(job));
    }
    // This machine's clock only decides whether to ask; Redis decides with its own.
    match store.expire(job.id).await {
        Ok(Expired::Kept(status)) if status == job.status => Ok(Some(job)),
        Err(StoreError::CannotPersist(_) | StoreError::NotReady(_)) => Ok(Some(job)),
        Ok(_) => store.job(job.id).await,
        Err(error) => Err(error),
    }
}

/// Brings those of `jobs` up to date that are overdue, all at once.
pub(crate) async fn bring_up_to_date(store: &JobStore, jobs: &mut [Option<Job>]) -> Result<(), StoreError> {
    let overdue = jobs.iter_mut().filter(|job| job.as_ref().is_some_and(is_overdue));
    let ending = overdue.map(async |job| {
        let Some(read) = job.clone() else { return Ok(()) };
        up_to_date(store, read).await.map(|now| *job = now)
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
) -> Result<Option<Arc<Job>>, StoreError> {
    let give_up = Instant::now() + wait;
    let first = current(&app.store, view, id).await?.map(Arc::new);
    let is_wanted = |job: &&Arc<Job>| !job.status.is_terminal() && !wait.is_zero();
    let Some(job) = first.as_ref().filter(is_wanted) else { return Ok(first) };
    let mut follower = Follower::new(app, job);
    loop {
        let news = tokio::select! {
            biased;
            () = app.shutdown.begun() => None,
            () = sleep_until(give_up) => None,
            heard = follower.news() => Some(heard),
        };
        match follower.look(app, news.unwrap_or_else(Instant::now)).await {
            Ok(Some(job)) if !job.status.is_terminal() && news.is_some() => {}
            // Redis may be back before the wait is over.
            Err(error) if error.is_retryable() && news.is_some() => {}
            outcome => return outcome,
        }
    }
}

/// The reads of followed jobs.
#[derive(Default)]
pub(crate) struct Looks(SingleFlight<Look>);

/// How a job stood, the same for all who look at it together.
#[derive(Clone)]
struct Look {
    job: Result<Option<Arc<Job>>, StoreError>,
    /// When to look again although nothing was heard.
    again_at: Option<Instant>,
}

/// Follows one job's changes.
pub(crate) struct Follower {
    id: JobId,
    watch: Watch,
    /// When to look although nothing was heard.
    look_at: Option<Instant>,
    /// Kept for those who hear of the same change later.
    last: Option<Arc<Flight<Look>>>,
}

impl Follower {
    /// Begins to follow a job that has not ended.
    pub(crate) fn new(app: &App, job: &Job) -> Self {
        Self { id: job.id, watch: app.watchers.watch(job.id), look_at: next_look(job), last: None }
    }

    /// Waits until the job may have changed, and gives the moment of the change.
    pub(crate) async fn news(&mut self) -> Instant {
        match self.look_at {
            Some(at) => tokio::select! {
                heard = self.watch.changed() => heard,
                () = sleep_until(at) => at,
            },
            None => self.watch.changed().await,
        }
    }

    /// The job as it stood at the moment `since`, or later. After a failure the next news is that it can be tried again.
    pub(crate) async fn look(&mut self, app: &App, since: Instant) -> Result<Option<Arc<Job>>, StoreError> {
        let begin = || look(app.store.clone(), self.id).boxed();
        let flight = app.looks.0.join(self.id, |flight| flight.begun() >= since, begin);
        let Look { job, again_at } = flight.outcome().await;
        self.last = Some(flight);
        self.look_at = again_at;
        job
    }

    /// Makes it the next news that so much time has passed since the last look.
    pub(crate) fn look_again_after(&mut self, pause: Duration) {
        // Of the look, not of now: so all who had it have the next one together.
        self.look_at = self.last.as_ref().map(|flight| flight.begun() + pause);
    }
}

async fn look(store: JobStore, id: JobId) -> Look {
    // Whoever follows the job has seen it, and its owner never changes.
    let job = current(&store, View::All, id).await.map(|job| job.map(Arc::new));
    let again_at = match &job {
        Ok(job) => job.as_ref().and_then(|job| next_look(job)),
        Err(_) => Some(Instant::now() + SHORTEST_PAUSE),
    };
    Look { job, again_at }
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
