//! The accepted jobs: those still to be followed, a few recent ones to read, and a sample of ended ones to compare
//! with a later read. Memory is bounded by the backlog, but for the few bytes a job of `seen`.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::body::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::seen::Seen;

/// Plain reads pick among this many ids.
const RECENT: usize = 1_024;
/// Reports name this many lost jobs.
const EXAMPLES: usize = 20;

/// One accepted job on its way to its end.
#[derive(Debug)]
pub(crate) struct Job {
    /// As the server named it.
    pub(crate) id: Arc<str>,
    /// When its submission was meant to be sent.
    pub(crate) intended: Instant,
    /// In the closed loop, the place that is free again when the job has ended.
    pub(crate) seat: Option<OwnedSemaphorePermit>,
}

/// `max-age` counts whole seconds, by another clock than the one that a job expires by.
const INACCURACY: Duration = Duration::from_secs(2);

/// A job as it was first seen to be terminal.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) id: Arc<str>,
    pub(crate) body: Bytes,
    /// Until then the service certainly keeps it; `None` if it says nothing about that.
    pub(crate) kept_until: Option<Instant>,
}

impl Ended {
    /// Whether the service may have forgotten the job by now.
    pub(crate) fn may_have_expired(&self) -> bool {
        self.kept_until.is_some_and(|until| Instant::now() >= until)
    }
}

/// A cheap handle to the jobs of one run.
#[derive(Clone, Debug)]
pub(crate) struct Jobs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    /// One permit for each job in `Table::queue`.
    queued: Semaphore,
    emptied: Notify,
}

#[derive(Debug)]
struct Table {
    seen: Seen,
    outstanding: HashSet<Arc<str>>,
    queue: VecDeque<Job>,
    recent: Vec<Arc<str>>,
    accepted: usize,
    sample: Sample,
    not_found: Vec<Arc<str>>,
    rng: Rng,
}

/// A uniform sample of a stream of unknown length (Vitter's algorithm R).
#[derive(Debug)]
struct Sample {
    size: usize,
    seen: usize,
    kept: Vec<Ended>,
}

impl Jobs {
    /// No jobs yet; `sample` of the ended ones will be kept.
    pub(crate) fn new(sample: usize, rng: Rng) -> Self {
        let table = Table {
            seen: Seen::new(),
            outstanding: HashSet::new(),
            queue: VecDeque::new(),
            recent: Vec::new(),
            accepted: 0,
            sample: Sample { size: sample, seen: 0, kept: Vec::new() },
            not_found: Vec::new(),
            rng,
        };
        let (queued, emptied) = (Semaphore::new(0), Notify::new());
        Self(Arc::new(Shared { table: Mutex::new(table), queued, emptied }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new job; false if another one had that id, outstanding or ended, which is then the only one followed.
    /// No submission asks for the answer of an earlier one (`Idempotency-Key`), so the server must not do that.
    pub(crate) fn accept(&self, job: Job) -> bool {
        let mut table = self.lock();
        if !table.seen.insert(&job.id) {
            return false;
        }
        table.outstanding.insert(Arc::clone(&job.id));
        table.remember(Arc::clone(&job.id));
        table.queue.push_back(job);
        self.0.queued.add_permits(1);
        true
    }

    /// The job that has waited longest for a follower.
    pub(crate) async fn next(&self) -> Option<Job> {
        self.0.queued.acquire().await.ok()?.forget();
        self.lock().queue.pop_front()
    }

    /// A job that has not ended goes to the back of the queue.
    pub(crate) fn put_back(&self, job: Job) {
        self.lock().queue.push_back(job);
        self.0.queued.add_permits(1);
    }

    /// The job was seen to be terminal, with this record, which may be cached for `max_age`.
    pub(crate) fn end(&self, job: Job, body: &Bytes, max_age: Option<Duration>) {
        self.lock().take_sample(&job.id, body, max_age);
        self.remove(job);
    }

    /// The server no longer knows the job.
    pub(crate) fn lose(&self, job: Job) {
        let mut table = self.lock();
        if table.not_found.len() < EXAMPLES {
            table.not_found.push(Arc::clone(&job.id));
        }
        drop(table);
        self.remove(job);
    }

    fn remove(&self, job: Job) {
        let mut table = self.lock();
        table.outstanding.remove(&job.id);
        if table.outstanding.is_empty() {
            self.0.emptied.notify_waiters();
        }
        // Only now may the closed loop submit the next job.
        drop(job.seat);
    }

    /// Returns once no job is outstanding.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            if self.outstanding() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// How many jobs have not ended.
    pub(crate) fn outstanding(&self) -> usize {
        self.lock().outstanding.len()
    }

    /// The id of a job accepted not long ago, picked at random; `None` before the first.
    pub(crate) fn any_recent(&self) -> Option<Arc<str>> {
        let table = &mut *self.lock();
        table.rng.choice(&table.recent).cloned()
    }

    /// The sample of ended jobs.
    pub(crate) fn sample(&self) -> Vec<Ended> {
        self.lock().sample.kept.clone()
    }

    /// Some ids of jobs that are lost: the unknown ones first, then those that have not ended.
    pub(crate) fn lost_examples(&self) -> Vec<String> {
        let table = self.lock();
        table.not_found.iter().chain(&table.outstanding).take(EXAMPLES).map(ToString::to_string).collect()
    }
}

impl Table {
    /// A ring: the newest id replaces the oldest.
    fn remember(&mut self, id: Arc<str>) {
        let place = self.accepted % RECENT;
        self.accepted += 1;
        match self.recent.get_mut(place) {
            Some(oldest) => *oldest = id,
            None => self.recent.push(id),
        }
    }

    fn take_sample(&mut self, id: &Arc<str>, body: &Bytes, max_age: Option<Duration>) {
        self.sample.seen += 1;
        let place = if self.sample.kept.len() < self.sample.size {
            self.sample.kept.len()
        } else {
            self.rng.usize(..self.sample.seen)
        };
        if place < self.sample.size {
            // A copy, because the body may be a slice of a much larger read buffer.
            let body = Bytes::copy_from_slice(body);
            let kept_until = max_age.map(|age| Instant::now() + age.saturating_sub(INACCURACY));
            let ended = Ended { id: Arc::clone(id), body, kept_until };
            self.sample.keep(place, ended);
        }
    }
}

impl Sample {
    fn keep(&mut self, place: usize, ended: Ended) {
        match self.kept.get_mut(place) {
            Some(kept) => *kept = ended,
            None => self.kept.push(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: usize) -> Job {
        Job { id: id.to_string().into(), intended: Instant::now(), seat: None }
    }

    #[test]
    fn an_ended_job_leaves_the_table() {
        let jobs = Jobs::new(10, Rng::with_seed(1));
        assert!(jobs.accept(job(1)) && jobs.accept(job(2)));
        jobs.end(job(1), &Bytes::from_static(b"{}"), None);
        jobs.lose(job(2));
        assert_eq!(jobs.outstanding(), 0);
        assert_eq!(jobs.sample().len(), 1);
        assert_eq!(jobs.lost_examples(), ["2"]);
    }

    #[test]
    fn an_id_given_twice_is_noticed_also_after_its_job_has_ended() {
        let jobs = Jobs::new(0, Rng::with_seed(1));
        assert!(jobs.accept(job(1)));
        assert!(!jobs.accept(job(1)));
        assert_eq!(jobs.outstanding(), 1);
        jobs.end(job(1), &Bytes::from_static(b"{}"), None);
        assert!(!jobs.accept(job(1)));
        assert_eq!(jobs.outstanding(), 0);
    }

    #[test]
    fn memory_stays_bounded_and_the_sample_covers_the_whole_run() {
        let jobs = Jobs::new(100, Rng::with_seed(1));
        for id in 0..20_000 {
            jobs.accept(job(id));
            jobs.end(job(id), &Bytes::from_static(b"{}"), None);
        }
        let sample = jobs.sample();
        let late = sample.iter().filter(|ended| ended.id.parse::<usize>().unwrap() >= 10_000).count();
        assert_eq!(sample.len(), 100);
        assert!((25..=75).contains(&late), "{late} of 100 are from the second half");
        assert_eq!(jobs.lock().recent.len(), RECENT);
        let recent: usize = jobs.any_recent().unwrap().parse().unwrap();
        assert!(recent >= 20_000 - RECENT);
    }

    #[tokio::test]
    async fn a_job_put_back_waits_behind_the_others() {
        let jobs = Jobs::new(0, Rng::with_seed(1));
        jobs.accept(job(1));
        jobs.accept(job(2));
        let first = jobs.next().await.unwrap();
        jobs.put_back(first);
        assert_eq!(&*jobs.next().await.unwrap().id, "2");
        assert_eq!(&*jobs.next().await.unwrap().id, "1");
        assert_eq!(jobs.outstanding(), 2);
    }
}
