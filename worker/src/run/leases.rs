//! The claims that this process holds, and the batches that run them. Stops a batch whose jobs are all lost or cancelled.
//! [`LeaseKeeper`](crate::upkeep::lease_keeper::LeaseKeeper) renews their leases.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tepal_shared::{
    job::{Claim, JobId, ModelName},
    queue::{
        loss::LookedUp,
        work::{Fence, Work},
    },
};
use tokio::sync::Notify;
use tracing::{debug, info};

use crate::{
    metrics::{self, HeldJob, HeldJobs},
    run::missing::Missing,
};

/// All claims of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    held: Arc<Mutex<HashMap<JobId, Held>>>,
    missing: Missing,
}

#[derive(Debug)]
struct Held {
    claim: Claim,
    since: Instant,
    granted_at: SystemTime,
    /// The batch that runs the job, once it is in one.
    batch: Option<Arc<BatchWatch>>,
    /// Whether its outcome is being recorded. Only the answer to that counts: a renewal that Redis runs later finds a job
    /// that has ended.
    is_settling: bool,
    _counted: HeldJob,
}

/// How long a claim was held.
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
    /// Waits until every job of the batch is lost or cancelled.
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
    /// Adds claims. A process can claim a job again that it still runs, after the lease lapsed. Then the earlier
    /// claim is over.
    pub fn hold(&self, claims: impl Iterator<Item = Claim>) {
        let (since, granted_at) = (Instant::now(), SystemTime::now());
        let mut held = self.lock();
        let mut counted = None;
        for claim in claims {
            let model = claim.stream.model;
            // The claims of a call are mostly of one model.
            let of_model = counted.take().filter(|held: &HeldJobs| held.model == model);
            let of_model = counted.insert(of_model.unwrap_or_else(|| HeldJobs::of(model)));
            let (job_id, attempt) = (tracing::field::display(claim.job_id), claim.token);
            debug!(action = "attempt_started", job_id, attempt, model = model.as_str());
            let _counted = of_model.one();
            let job = Held { claim, since, granted_at, batch: None, is_settling: false, _counted };
            if let Some(earlier) = held.insert(claim.job_id, job) {
                earlier.end(Fence::Lost);
            }
        }
    }

    /// Starts to watch a batch of these claims. Claims that were lost meanwhile do not count for it.
    pub fn watch(&self, claims: impl Iterator<Item = Claim>) -> Arc<BatchWatch> {
        let watch = Arc::new(BatchWatch::default());
        let mut held = self.lock();
        for claim in claims {
            if let Some(job) = find(&mut held, claim) {
                job.batch = Some(Arc::clone(&watch));
                watch.wanted.fetch_add(1, Ordering::AcqRel);
            }
        }
        watch
    }

    /// How long the claim has been held; `None` if it no longer is.
    #[must_use]
    pub fn held_for(&self, claim: Claim) -> Option<Duration> {
        find(&mut self.lock(), claim).map(|job| job.since.elapsed())
    }

    /// The outcomes of the claims are about to be recorded. Their leases are renewed until then.
    pub fn settling(&self, claims: impl Iterator<Item = Claim>) {
        let mut held = self.lock();
        for claim in claims {
            if let Some(job) = find(&mut held, claim) {
                job.is_settling = true;
            }
        }
    }

    /// Removes a claim that has an outcome. Returns how long it was held. A later claim of the same job stays.
    pub fn remove(&self, claim: Claim) -> Option<Hold> {
        remove(&mut self.lock(), claim).map(|job| job.hold())
    }

    /// Removes a claim that a renewal found to be over, unless its outcome is being recorded.
    pub fn lose(&self, claim: Claim, why: Fence) -> Option<Hold> {
        let mut held = self.lock();
        if find(&mut held, claim)?.is_settling {
            return None;
        }
        let job = remove(&mut held, claim)?;
        let hold = job.hold();
        job.end(why);
        Some(hold)
    }

    /// Redis does not have a job that was held. Unless it can have expired meanwhile, Redis lost it.
    pub fn note_missing(&self, work: &Work, id: JobId, hold: Hold) {
        if work.queue().policy().must_exist(id, hold.since) {
            self.missing.add(id);
        }
    }

    /// The lost jobs found since the last call.
    #[must_use]
    pub fn take_missing(&self) -> LookedUp {
        self.missing.take(self.len())
    }

    /// Removes all claims of a model's jobs, so that their leases lapse and the jobs run again, here or elsewhere.
    pub fn abandon(&self, model: ModelName) {
        let mut held = self.lock();
        for (_, job) in held.extract_if(|_, job| job.claim.stream.model == model) {
            job.end(Fence::Lost);
        }
    }

    /// Number of claims.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no claim is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The claims of a model's jobs.
    #[must_use]
    pub fn of_model(&self, model: ModelName) -> Vec<Claim> {
        self.claims(|claim| claim.stream.model == model)
    }

    /// The claims of a partition's jobs.
    #[must_use]
    pub fn of_partition(&self, partition: u8) -> Vec<Claim> {
        self.claims(|claim| claim.job_id.partition() == partition)
    }

    fn claims(&self, are_wanted: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        self.lock().values().map(|job| job.claim).filter(are_wanted).collect()
    }

    /// Each critical section leaves the map consistent, so a panic elsewhere does not break it.
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(held: &mut HashMap<JobId, Held>, claim: Claim) -> Option<&mut Held> {
    held.get_mut(&claim.job_id).filter(|job| job.claim.token == claim.token)
}

fn remove(held: &mut HashMap<JobId, Held>, claim: Claim) -> Option<Held> {
    find(held, claim)?;
    held.remove(&claim.job_id)
}

impl Held {
    fn hold(&self) -> Hold {
        Hold { since: self.since, granted_at: self.granted_at, took: self.since.elapsed() }
    }

    /// The claim is over without an outcome from this worker. Its batch may be over, too.
    fn end(self, why: Fence) {
        let (job_id, attempt) = (tracing::field::display(self.claim.job_id), self.claim.token);
        info!(action = "job_gone", job_id, reason = why.word(), attempt);
        metrics::fenced(self.claim.stream.model, why);
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
    use crate::testing::claim;

    fn leases_of(claims: &[Claim]) -> Leases {
        let leases = Leases::default();
        leases.hold(claims.iter().copied());
        leases
    }

    fn again(earlier: Claim) -> Claim {
        Claim { token: earlier.token + 1, ..earlier }
    }

    #[test]
    fn a_batch_is_abandoned_when_its_last_job_is_lost() {
        let jobs = [claim(), claim()];
        let leases = leases_of(&jobs);
        let watch = leases.watch(jobs.into_iter());

        leases.lose(jobs[0], Fence::Lost);
        assert!(watch.abandoned().now_or_never().is_none());
        leases.lose(jobs[1], Fence::Cancelled);
        assert!(watch.abandoned().now_or_never().is_some());
        assert!(leases.is_empty());
    }

    #[test]
    fn a_job_that_is_claimed_again_ends_its_earlier_claim_and_keeps_the_new_one() {
        let first = claim();
        let leases = leases_of(&[first]);
        let watch = leases.watch(std::iter::once(first));

        leases.hold(std::iter::once(again(first)));

        assert!(watch.abandoned().now_or_never().is_some(), "the first call goes on");
        assert!(leases.remove(first).is_none());
        assert_eq!(leases.of_partition(0), [again(first)]);
    }

    #[test]
    fn jobs_of_a_lane_that_ended_are_not_renewed_and_those_of_others_are() {
        let (ours, mut theirs) = (claim(), claim());
        theirs.stream.model = "other".parse().unwrap();
        let leases = leases_of(&[ours, theirs]);

        leases.abandon(ours.stream.model);

        assert!(leases.of_model(ours.stream.model).is_empty());
        assert_eq!(leases.of_partition(0), [theirs]);
        assert!(leases.remove(ours).is_none());
    }

    #[test]
    fn a_late_renewal_does_not_lose_a_job_whose_outcome_is_being_recorded() {
        let job = claim();
        let leases = leases_of(&[job]);
        leases.settling(std::iter::once(job));

        leases.lose(job, Fence::Lost);

        assert_eq!(leases.of_partition(0).len(), 1, "it is renewed no longer");
        assert!(leases.remove(job).is_some(), "its end is not counted");
    }

    #[test]
    fn a_late_renewal_of_an_earlier_claim_does_not_end_the_new_one() {
        let first = claim();
        let leases = leases_of(&[again(first)]);

        leases.lose(first, Fence::Lost);

        assert_eq!(leases.len(), 1);
    }
}
