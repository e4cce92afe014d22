//! Reads of jobs: as a job stands now, or as soon as it has ended. All requests that follow a job share each read.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tepal_shared::{
    job::{Job, JobId},
    queue::{
        error::StoreError,
        views::{Notifier, Watch},
    },
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::single_flight::{Flight, SingleFlight};

use crate::{
    edge::access::Visibility,
    jobs::store::{Store, now_ms},
};

/// The shortest time between two reads of a job without news.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The reads of followed jobs.
pub(crate) struct Following {
    store: Store,
    notifier: Notifier,
    reads: SingleFlight<Read>,
    shutdown: CancellationToken,
}

/// The outcome of a read, the same for all that share it.
#[derive(Clone)]
struct Read {
    job: Result<Option<Arc<Job>>, StoreError>,
    /// When to read again without news.
    again_at: Option<Instant>,
}

impl Following {
    pub(crate) fn new(store: Store, shutdown: CancellationToken) -> Self {
        let notifier = Notifier::new(store.queue().redis().clone(), store.queue().keys().clone());
        Self { store, notifier, reads: SingleFlight::default(), shutdown }
    }

    /// Reads the job, if the caller may see it, when it has ended, or as it stands when `wait` is over or the service stops.
    pub(crate) async fn ended(
        &self,
        sees: Visibility<'_>,
        id: JobId,
        wait: Duration,
    ) -> Result<Option<Arc<Job>>, StoreError> {
        let give_up = Instant::now() + wait;
        let first = self.store.current(sees, id).await?.map(Arc::new);
        let is_wanted = |job: &&Arc<Job>| !job.status.is_terminal() && !wait.is_zero();
        let Some(job) = first.as_ref().filter(is_wanted) else { return Ok(first) };
        let mut follower = self.follow(job);
        loop {
            let news = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => None,
                () = sleep_until(give_up) => None,
                heard = follower.news() => Some(heard),
            };
            match follower.read(self, news.unwrap_or_else(Instant::now)).await {
                Ok(Some(job)) if !job.status.is_terminal() && news.is_some() => {}
                // Redis may be back before the wait is over.
                Err(error) if error.is_retryable() && news.is_some() => {}
                outcome => return outcome,
            }
        }
    }

    /// Begins to follow a job that has not ended.
    pub(crate) fn follow(&self, job: &Job) -> Follower {
        let watch = self.notifier.watch(job.id);
        Follower { id: job.id, watch, read_at: next_read(job), last: None }
    }
}

/// Follows the changes of one job.
pub(crate) struct Follower {
    id: JobId,
    watch: Watch,
    /// When to read without news.
    read_at: Option<Instant>,
    /// Kept for followers that hear of the same change later.
    last: Option<Arc<Flight<Read>>>,
}

impl Follower {
    /// Waits until the job may have changed. Returns the moment of the change.
    pub(crate) async fn news(&mut self) -> Instant {
        match self.read_at {
            Some(at) => tokio::select! {
                heard = self.watch.changed() => heard,
                () = sleep_until(at) => at,
            },
            None => self.watch.changed().await,
        }
    }

    /// The job as it stood at the moment `since`, or later. After a failure, the next news is the time of the next try.
    pub(crate) async fn read(
        &mut self,
        following: &Following,
        since: Instant,
    ) -> Result<Option<Arc<Job>>, StoreError> {
        let begin = || read(following.store.clone(), self.id).boxed();
        let flight = following.reads.join(self.id, |flight| flight.begun() >= since, begin);
        let Read { job, again_at } = flight.outcome().await;
        self.last = Some(flight);
        self.read_at = again_at;
        job
    }

    /// The next news is that this time has passed since the last read.
    pub(crate) fn read_again_after(&mut self, pause: Duration) {
        // Since the read, not from now, so that all followers that shared it share the next one.
        self.read_at = self.last.as_ref().map(|flight| flight.begun() + pause);
    }
}

async fn read(store: Store, id: JobId) -> Read {
    // A client that follows the job has seen it, and neither its owner nor its model ever changes.
    let job = store.current(Visibility::ALL, id).await.map(|job| job.map(Arc::new));
    let again_at = match &job {
        Ok(job) => job.as_ref().and_then(|job| next_read(job)),
        Err(_) => Some(Instant::now() + SHORTEST_PAUSE),
    };
    Read { job, again_at }
}

/// Redis publishes no message when a deadline passes: the next reader of the job ends it.
fn next_read(job: &Job) -> Option<Instant> {
    let deadline_ms = job.deadline_ms.filter(|_| !job.status.is_terminal())?;
    let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms()) + 1);
    Instant::now().checked_add(left.max(SHORTEST_PAUSE))
}
