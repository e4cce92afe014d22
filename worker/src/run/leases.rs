//! The jobs that this process holds. The lease keeper renews their leases at a third of the lease, and stops a batch whose
//! jobs are all lost or cancelled.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tepal_shared::{
    job::{Attempt, JobId, Priority},
    process::{shutdown::Shutdown, telemetry},
    queue::{
        scripts::Fence,
        store::{JobStore, LookedUp},
    },
};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::{
    metrics,
    run::missing::Missing,
    upkeep::liveness::{Pulse, Step},
};

/// Jobs renewed in one call: keeps the script short.
const CHUNK: usize = 256;

/// All held jobs of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    held: Arc<Mutex<HashMap<JobId, Held>>>,
    missing: Missing,
}

#[derive(Debug)]
struct Held {
    consumer: String,
    attempt: Attempt,
    since: Instant,
    granted_at: SystemTime,
    /// The batch that runs the job, once it is in one.
    batch: Option<Arc<BatchWatch>>,
    /// Whether its outcome is being recorded. Only the answer to that counts: a renewal that Redis runs later finds a job
    /// that has ended.
    is_settling: bool,
}

/// How long an attempt was held.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    since: Instant,
    /// When it was granted.
    pub granted_at: SystemTime,
    /// The time from then to its outcome.
    pub took: Duration,
}

/// Signals to a batch that all its jobs are lost or cancelled.
#[derive(Debug, Default)]
pub struct BatchWatch {
    wanted: AtomicUsize,
    abandoned: Notify,
}

impl BatchWatch {
    /// Waits until every job of the batch was lost or cancelled.
    pub async fn abandoned(&self) {
        let abandoned = self.abandoned.notified();
        if self.wanted.load(Ordering::Acquire) > 0 {
            abandoned.await;
        }
    }

    fn one_less(&self) {
        if self.wanted.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.abandoned.notify_waiters();
        }
    }
}

impl Leases {
    /// Starts to renew the leases of the jobs for `consumer`. A process can claim a job again that it still runs, after the
    /// lease lapsed. Then the earlier attempt is over.
    pub fn hold(&self, consumer: &str, attempts: &[Attempt]) {
        let (since, granted_at) = (Instant::now(), SystemTime::now());
        let mut held = self.lock();
        for attempt in attempts {
            debug!(action = "attempt_started", job_id = %attempt.job_id, attempt = attempt.token, consumer);
            let (consumer, attempt) = (consumer.to_owned(), attempt.without_input());
            let job = Held { consumer, attempt, since, granted_at, batch: None, is_settling: false };
            if let Some(earlier) = held.insert(job.attempt.job_id, job) {
                earlier.end(Fence::Lost);
            }
        }
        metrics::jobs_held(held.len());
    }

    /// The jobs start to run as one batch. Jobs that were lost meanwhile do not count for it.
    pub fn watch<'a>(&self, attempts: impl Iterator<Item = &'a Attempt>) -> Arc<BatchWatch> {
        let watch = Arc::new(BatchWatch::default());
        let mut held = self.lock();
        for attempt in attempts {
            if let Some(job) = held.get_mut(&attempt.job_id).filter(|job| job.attempt.token == attempt.token)
            {
                job.batch = Some(Arc::clone(&watch));
                watch.wanted.fetch_add(1, Ordering::AcqRel);
            }
        }
        watch
    }

    /// How long the attempt has been held; `None` if it no longer is.
    #[must_use]
    pub fn held_for(&self, attempt: &Attempt) -> Option<Duration> {
        let held = self.lock();
        let job = held.get(&attempt.job_id).filter(|job| job.attempt.token == attempt.token)?;
        Some(job.since.elapsed())
    }

    /// The outcomes of the attempts will be recorded now. Their leases are renewed until then.
    pub fn settling<'a>(&self, attempts: impl Iterator<Item = &'a Attempt>) {
        let mut held = self.lock();
        for attempt in attempts {
            if let Some(job) = held.get_mut(&attempt.job_id).filter(|job| job.attempt.token == attempt.token)
            {
                job.is_settling = true;
            }
        }
    }

    /// The attempt has an outcome. Returns how long it was held. A later attempt at the same job stays held.
    pub fn let_go(&self, attempt: &Attempt) -> Option<Hold> {
        let mut held = self.lock();
        let job = remove(&mut held, attempt.job_id, attempt.token)?;
        Some(job.hold())
    }

    /// Redis does not have a job that was held. Unless it can have expired meanwhile, Redis lost it.
    pub fn note_missing(&self, store: &JobStore, id: JobId, hold: Hold) {
        if store.must_exist(id, hold.since) {
            self.missing.add(id);
        }
    }

    /// The lost jobs found since the last call.
    #[must_use]
    pub fn take_missing(&self) -> LookedUp {
        self.missing.take(self.len())
    }

    /// Stops to renew the leases of `consumer`, so that they lapse and other consumers run its jobs.
    pub fn abandon(&self, consumer: &str) {
        let mut held = self.lock();
        for (_, job) in held.extract_if(|_, job| job.consumer == consumer) {
            job.end(Fence::Lost);
        }
        metrics::jobs_held(held.len());
    }

    /// Number of jobs held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no job is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The jobs that `consumer` holds.
    #[must_use]
    pub fn of(&self, consumer: &str) -> Vec<Attempt> {
        let held = self.lock();
        held.values().filter(|job| job.consumer == consumer).map(|job| job.attempt.clone()).collect()
    }

    /// Renews the leases of `consumer` until `shutdown` begins.
    pub async fn keep(self, store: JobStore, consumer: String, pulse: Pulse, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(keep_interval(&store));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.or(ticks.tick()).await.is_some() {
            pulse.step(Step::Work);
            for partition in store.partitions() {
                let mut jobs = self.of(&consumer);
                jobs.retain(|attempt| attempt.job_id.partition() == partition);
                for chunk in jobs.chunks(CHUNK) {
                    pulse.step(Step::Work);
                    self.renew(&store, partition, &consumer, chunk).await;
                }
            }
        }
        pulse.end();
    }

    async fn renew(&self, store: &JobStore, partition: u8, consumer: &str, jobs: &[Attempt]) {
        let held: Vec<_> = jobs.iter().map(|job| (job.job_id, job.token, job.priority)).collect();
        match store.renew(partition, consumer, &held).await {
            Ok(gone) => {
                for (id, why) in gone {
                    let hold = self.lose(id, &held, why);
                    if let (Some(hold), Fence::Missing) = (hold, why) {
                        self.note_missing(store, id, hold);
                    }
                }
            }
            // The next tick tries again; two may fail before a lease lapses.
            Err(error) => {
                warn!(action = "renew_failed", consumer, jobs = jobs.len(), error = telemetry::chain(&error));
            }
        }
    }

    fn lose(&self, id: JobId, renewed: &[(JobId, u64, Priority)], why: Fence) -> Option<Hold> {
        // The job may have ended, or this process may have claimed it again, during the call.
        let token = renewed.iter().find(|(renewed, ..)| *renewed == id).map(|(_, token, _)| *token);
        let mut held = self.lock();
        if held.get(&id).is_some_and(|job| job.is_settling) {
            return None;
        }
        let job = token.and_then(|token| remove(&mut held, id, token))?;
        let hold = job.hold();
        job.end(why);
        Some(hold)
    }

    /// Each critical section leaves the map consistent, so a panic elsewhere does not break it.
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often leases are renewed.
#[must_use]
pub fn keep_interval(store: &JobStore) -> Duration {
    store.policy().lease / 3
}

fn remove(held: &mut HashMap<JobId, Held>, id: JobId, token: u64) -> Option<Held> {
    if held.get(&id).is_none_or(|job| job.attempt.token != token) {
        return None;
    }
    let job = held.remove(&id);
    metrics::jobs_held(held.len());
    job
}

impl Held {
    fn hold(&self) -> Hold {
        Hold { since: self.since, granted_at: self.granted_at, took: self.since.elapsed() }
    }

    /// The attempt is over without an outcome from this worker. Its batch may be over, too.
    fn end(self, why: Fence) {
        let (job_id, attempt) = (tracing::field::display(self.attempt.job_id), self.attempt.token);
        info!(action = "job_gone", job_id, reason = why.word(), attempt);
        metrics::fenced(why);
        if let Some(batch) = self.batch {
            batch.one_less();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::run::batch::tests::attempt;

    fn again(earlier: &Attempt) -> Attempt {
        Attempt { token: earlier.token + 1, ..earlier.clone() }
    }

    #[test]
    fn a_batch_is_abandoned_when_its_last_job_is_lost() {
        let (leases, jobs) = (Leases::default(), [attempt(1), attempt(1)]);
        leases.hold("us", &jobs);
        let watch = leases.watch(jobs.iter());
        let renewed = jobs.each_ref().map(|job| (job.job_id, job.token, job.priority));

        leases.lose(jobs[0].job_id, &renewed, Fence::Lost);
        assert!(watch.abandoned().now_or_never().is_none());
        leases.lose(jobs[1].job_id, &renewed, Fence::Cancelled);
        assert!(watch.abandoned().now_or_never().is_some());
        assert!(leases.is_empty());
    }

    #[test]
    fn a_job_granted_to_us_again_ends_its_earlier_attempt_and_keeps_the_new_one() {
        let (leases, first) = (Leases::default(), attempt(1));
        leases.hold("us", std::slice::from_ref(&first));
        let watch = leases.watch(std::iter::once(&first));

        let second = again(&first);
        leases.hold("us", std::slice::from_ref(&second));

        assert!(watch.abandoned().now_or_never().is_some(), "the first call goes on");
        assert!(leases.let_go(&first).is_none());
        assert_eq!(leases.of("us")[0].token, second.token);
    }

    #[test]
    fn what_a_consumer_leaves_behind_is_not_renewed_and_the_others_jobs_are() {
        let (leases, [ours, theirs]) = (Leases::default(), [attempt(1), attempt(1)]);
        leases.hold("us", std::slice::from_ref(&ours));
        leases.hold("them", std::slice::from_ref(&theirs));

        leases.abandon("us");

        assert!(leases.of("us").is_empty());
        assert_eq!(leases.of("them")[0].job_id, theirs.job_id);
        assert!(leases.let_go(&ours).is_none());
    }

    #[test]
    fn a_job_whose_outcome_is_being_recorded_is_not_lost_to_a_renewal_that_comes_behind() {
        let (leases, job) = (Leases::default(), attempt(1));
        leases.hold("us", std::slice::from_ref(&job));
        leases.settling(std::iter::once(&job));

        leases.lose(job.job_id, &[(job.job_id, job.token, job.priority)], Fence::Lost);

        assert_eq!(leases.of("us").len(), 1, "it is renewed no longer");
        assert!(leases.let_go(&job).is_some(), "its end is not counted");
    }

    #[test]
    fn a_late_word_about_an_earlier_attempt_does_not_end_the_new_one() {
        let (leases, first) = (Leases::default(), attempt(1));
        let second = again(&first);
        leases.hold("us", std::slice::from_ref(&second));

        leases.lose(first.job_id, &[(first.job_id, first.token, first.priority)], Fence::Lost);

        assert_eq!(leases.len(), 1);
    }
}
