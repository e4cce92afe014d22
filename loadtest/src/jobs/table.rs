//! The accepted jobs: those to follow, recent ones to read, and a sample of ended ones. Apart from a few bytes for each id,
//! memory is bounded by the backlog.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use hyper::body::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::ids::Ids;
use super::sample::{Ended, Sample};

/// Plain reads choose from this many ids.
const RECENT: usize = 1_024;
/// Reports name this many lost jobs.
const EXAMPLES: usize = 20;

/// One accepted job that has not ended.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: Arc<str>,
    /// The scheduled time of its submission.
    pub(crate) intended: Instant,
    /// In the closed loop: allows the next submission when the job has ended.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// A cheap handle to the jobs of one run.
#[derive(Clone, Debug)]
pub(crate) struct Jobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    /// One permit for each job in `Table::queue`.
    queued: Semaphore,
    emptied: Notify,
}

#[derive(Debug)]
struct Table {
    ids: Ids,
    outstanding: HashSet<Arc<str>>,
    queue: VecDeque<Job>,
    recent: Vec<Arc<str>>,
    accepted: usize,
    sample: Sample,
    not_found: Vec<Arc<str>>,
    rng: Rng,
}

impl Jobs {
    /// No jobs yet. A sample of `sample` ended jobs will be kept.
    pub(crate) fn new(sample: usize, rng: Rng) -> Self {
        let table = Table {
            ids: Ids::new(),
            outstanding: HashSet::new(),
            queue: VecDeque::new(),
            recent: Vec::new(),
            accepted: 0,
            sample: Sample::new(sample),
            not_found: Vec::new(),
            rng,
        };
        let (queued, emptied) = (Semaphore::new(0), Notify::new());
        Self(Arc::new(Inner { table: Mutex::new(table), queued, emptied }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a new job. Returns false if an earlier job of the run has the same id; only the earlier one is followed. The server
    /// must not issue an id twice, because no submission has an `Idempotency-Key`.
    pub(crate) fn accept(&self, job: Job) -> bool {
        let mut table = self.lock();
        if !table.ids.insert(&job.id) {
            return false;
        }
        table.outstanding.insert(Arc::clone(&job.id));
        table.remember(Arc::clone(&job.id));
        table.queue.push_back(job);
        self.0.queued.add_permits(1);
        true
    }

    /// Waits for a job and returns the one that has waited longest for a follower.
    pub(crate) async fn next(&self) -> Option<Job> {
        self.0.queued.acquire().await.ok()?.forget();
        self.lock().queue.pop_front()
    }

    /// Adds a job that has not ended at the end of the queue.
    pub(crate) fn requeue(&self, job: Job) {
        self.lock().queue.push_back(job);
        self.0.queued.add_permits(1);
    }

    /// Removes an ended job. Its record is `body`, which the service keeps for `max_age`.
    pub(crate) fn end(&self, job: Job, body: &Bytes, max_age: Option<Duration>) {
        self.lock().offer(&job.id, body, max_age);
        self.remove(job);
    }

    /// Removes a job that the server no longer knows.
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
        // From here on the closed loop may submit the next job.
        drop(job.permit);
    }

    /// Waits until no job is outstanding.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            if self.outstanding() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// The number of jobs that have not ended.
    pub(crate) fn outstanding(&self) -> usize {
        self.lock().outstanding.len()
    }

    /// The id of a recently accepted job, chosen at random; `None` before the first.
    pub(crate) fn any_recent(&self) -> Option<Arc<str>> {
        let table = &mut *self.lock();
        table.rng.choice(&table.recent).cloned()
    }

    /// The sample of ended jobs.
    pub(crate) fn sample(&self) -> Vec<Ended> {
        self.lock().sample.kept()
    }

    /// Some ids of lost jobs: first those unknown to the server, then those that have not ended.
    pub(crate) fn lost_examples(&self) -> Vec<String> {
        let table = self.lock();
        table.not_found.iter().chain(&table.outstanding).take(EXAMPLES).map(ToString::to_string).collect()
    }
}

impl Table {
    fn offer(&mut self, id: &Arc<str>, body: &Bytes, max_age: Option<Duration>) {
        self.sample.offer(id, body, max_age, &mut self.rng);
    }

    /// The newest id replaces the oldest.
    fn remember(&mut self, id: Arc<str>) {
        let slot = self.accepted % RECENT;
        self.accepted += 1;
        match self.recent.get_mut(slot) {
            Some(oldest) => *oldest = id,
            None => self.recent.push(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: usize) -> Job {
        Job { id: id.to_string().into(), intended: Instant::now(), permit: None }
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
    fn an_id_issued_twice_is_detected_even_after_its_job_has_ended() {
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
    async fn a_requeued_job_waits_behind_the_others() {
        let jobs = Jobs::new(0, Rng::with_seed(1));
        jobs.accept(job(1));
        jobs.accept(job(2));
        let first = jobs.next().await.unwrap();
        jobs.requeue(first);
        assert_eq!(&*jobs.next().await.unwrap().id, "2");
        assert_eq!(&*jobs.next().await.unwrap().id, "1");
        assert_eq!(jobs.outstanding(), 2);
    }
}
