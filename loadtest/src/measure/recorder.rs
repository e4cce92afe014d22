//! The counters of a run, behind one short lock. Memory does not grow with the length of the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::CreationError;

use super::latency::Latency;
use super::summary::{JobSummary, PhaseSummary, Rates, SecondReads, Summary};
use super::timeline::{Timeline, Window};
use super::totals::{Operation, Phase, Requests, counts_as_latency, per_second};
use crate::http::api::{JobRecord, Status};
use crate::http::failure::{Failure, FailureKind};

/// A cheap handle to the counters of one run.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Mutex<Counters>>);

#[derive(Debug)]
struct Counters {
    started: Instant,
    sending_ended: Option<Instant>,
    busy: Option<f64>,
    last_end: Option<Instant>,
    requests: [Requests; 4],
    phases: Vec<Phase>,
    complete: Latency,
    turnaround: Latency,
    lag: Latency,
    jobs: JobSummary,
    failures: BTreeMap<(Operation, FailureKind), u64>,
    live: Live,
    timeline: Timeline,
}

/// The current second.
#[derive(Debug)]
struct Live {
    since: Instant,
    window: Window,
    submit: Latency,
    get: Latency,
    health: Latency,
    complete: Latency,
}

impl Recorder {
    /// Starts the clock.
    ///
    /// # Errors
    /// Those of [`Latency::precise`].
    pub(crate) fn new() -> Result<Self, CreationError> {
        let started = Instant::now();
        Ok(Self(Arc::new(Mutex::new(Counters {
            started,
            sending_ended: None,
            busy: None,
            last_end: None,
            requests: [Requests::new()?, Requests::new()?, Requests::new()?, Requests::new()?],
            phases: Vec::new(),
            complete: Latency::precise()?,
            turnaround: Latency::precise()?,
            lag: Latency::precise()?,
            jobs: JobSummary::default(),
            failures: BTreeMap::new(),
            live: Live::new(started)?,
            timeline: Timeline::default(),
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a phase of `rate` submissions per second and returns its number.
    ///
    /// # Errors
    /// Those of [`Latency::precise`].
    pub(crate) fn begin_phase(&self, rate: f64) -> Result<usize, CreationError> {
        let phase = Phase::new(rate)?;
        let mut counters = self.lock();
        counters.phases.push(phase);
        Ok(counters.phases.len() - 1)
    }

    /// Records how long a phase lasted and how busy the generator was. Later answers still count for the phase.
    pub(crate) fn end_phase(&self, phase: usize, length: Duration, busy: Option<f64>) {
        if let Some(phase) = self.lock().phases.get_mut(phase) {
            phase.end(length, busy);
        }
    }

    /// Records why a step of a ramp failed.
    pub(crate) fn violate_phase(&self, phase: usize, reason: String) {
        if let Some(phase) = self.lock().phases.get_mut(phase) {
            phase.violate(reason);
        }
    }

    /// The numbers of one phase so far.
    pub(crate) fn phase(&self, phase: usize) -> PhaseSummary {
        self.lock().phases.get(phase).map(Phase::summary).unwrap_or_default()
    }

    /// Counts a scheduled request.
    pub(crate) fn intend(&self, operation: Operation, phase: usize) {
        let mut counters = self.lock();
        counters.live.window.intended += u64::from(operation == Operation::Submit);
        counters.each(operation, phase, Requests::intend);
    }

    /// Records the outcome of an intended request, `latency` after its scheduled time.
    pub(crate) fn settle(
        &self,
        operation: Operation,
        phase: usize,
        latency: Duration,
        outcome: Result<(), Failure>,
    ) {
        let mut counters = self.lock();
        counters.each(operation, phase, |requests| requests.settle(latency, outcome));
        if let Err(failure) = outcome {
            counters.fail(operation, failure);
        }
        if counts_as_latency(outcome) {
            counters.live.record(operation, latency);
        }
    }

    /// Records a follow request and its outcome. It belongs to no phase.
    pub(crate) fn follow(&self, latency: Duration, outcome: Result<(), Failure>) {
        self.intend(Operation::Follow, usize::MAX);
        self.settle(Operation::Follow, usize::MAX, latency, outcome);
    }

    /// Records how late the generator sent a request.
    pub(crate) fn lag(&self, late: Duration) {
        self.lock().lag.record(late);
    }

    /// Counts a submission that was answered 202.
    pub(crate) fn accept(&self) {
        let mut counters = self.lock();
        counters.jobs.accepted += 1;
        counters.live.window.accepted += 1;
    }

    /// Counts an answer with the id of an earlier job of the run.
    pub(crate) fn duplicate(&self) {
        self.lock().jobs.duplicated += 1;
    }

    /// Records an ended job, `elapsed` after the scheduled time of its submission.
    pub(crate) fn end_job(&self, record: &JobRecord, elapsed: Duration) {
        let mut counters = self.lock();
        match record.status {
            Status::Failed => counters.jobs.failed += 1,
            Status::Cancelled => counters.jobs.cancelled += 1,
            _ => counters.jobs.completed += 1,
        }
        counters.last_end = Some(Instant::now());
        counters.live.window.ended += 1;
        counters.complete.record(elapsed);
        counters.live.complete.record(elapsed);
        if let Some(turnaround) = record.turnaround {
            counters.turnaround.record(turnaround);
        }
    }

    /// Counts an accepted job that the server no longer knows.
    pub(crate) fn lose_job(&self) {
        self.lock().jobs.not_found += 1;
    }

    /// Counts `jobs` that had not ended: as lost, or as abandoned if the run was interrupted.
    pub(crate) fn leave_jobs(&self, jobs: usize, interrupted: bool) {
        let mut counters = self.lock();
        let left = if interrupted { &mut counters.jobs.abandoned } else { &mut counters.jobs.unfinished };
        *left = jobs as u64;
    }

    /// Records the second reads.
    pub(crate) fn verify(&self, reads: SecondReads) {
        let SecondReads { verified, changed, unverified, expired } = reads;
        let jobs = &mut self.lock().jobs;
        (jobs.verified, jobs.changed, jobs.unverified, jobs.expired) =
            (verified, changed, unverified, expired);
    }

    /// Records the end of the sending, and the share of the time in which the generator was busy.
    pub(crate) fn end_sending(&self, busy: Option<f64>) {
        let mut counters = self.lock();
        counters.sending_ended = Some(Instant::now());
        counters.busy = busy;
    }

    /// Ends the current second and returns its numbers.
    pub(crate) fn close_window(&self) -> Window {
        self.lock().close_window()
    }

    /// The numbers of the run so far.
    pub(crate) fn summary(&self) -> Summary {
        self.lock().summary()
    }

    /// The numbers of every phase so far.
    pub(crate) fn phases(&self) -> Vec<PhaseSummary> {
        self.lock().phases.iter().map(Phase::summary).collect()
    }

    /// The run over time.
    pub(crate) fn timeline(&self) -> Vec<Window> {
        self.lock().timeline.points().to_vec()
    }

    /// The number of failures for each kind of request and failure.
    pub(crate) fn failures(&self) -> Vec<(Operation, FailureKind, u64)> {
        self.lock().failures.iter().map(|((operation, kind), count)| (*operation, *kind, *count)).collect()
    }
}

impl Counters {
    /// Changes the counters of the run and of the phase.
    fn each(&mut self, operation: Operation, phase: usize, change: impl Fn(&mut Requests)) {
        change(&mut self.requests[operation as usize]);
        if let Some(requests) = self.phases.get_mut(phase).and_then(|phase| phase.requests(operation)) {
            change(requests);
        }
    }

    fn fail(&mut self, operation: Operation, failure: Failure) {
        *self.failures.entry((operation, failure.kind)).or_default() += 1;
        self.live.window.errors += 1;
        self.live.window.dropped += u64::from(failure.kind == FailureKind::Dropped);
        self.jobs.mixed_up += u64::from(failure.kind == FailureKind::OtherJob);
    }

    fn backlog(&self) -> u64 {
        let jobs = &self.jobs;
        let gone = jobs.completed + jobs.failed + jobs.cancelled + jobs.not_found + jobs.duplicated;
        jobs.accepted.saturating_sub(gone)
    }

    fn close_window(&mut self) -> Window {
        let window = self.live.close(self.started, self.backlog());
        self.timeline.push(window.clone());
        window
    }

    fn summary(&self) -> Summary {
        let [submit, get, health, follow] = &self.requests;
        let jobs = JobSummary { lost: self.jobs.not_found + self.jobs.unfinished, ..self.jobs.clone() };
        Summary {
            submit: submit.summary(),
            get: get.summary(),
            health: health.summary(),
            follow: follow.summary(),
            complete: self.complete.summary(),
            turnaround: self.turnaround.summary(),
            lag: self.lag.summary(),
            rates: self.rates(),
            jobs,
            knee_rps: None,
        }
    }

    fn rates(&self) -> Rates {
        let since_start = |end: Instant| (end - self.started).as_secs_f64();
        let sending_seconds = since_start(self.sending_ended.unwrap_or_else(Instant::now));
        let total_seconds = self.last_end.map_or(sending_seconds, since_start).max(sending_seconds);
        Rates {
            sending_seconds,
            total_seconds,
            intended_rps: per_second(
                self.requests[Operation::Submit as usize].summary().intended,
                sending_seconds,
            ),
            submit_rps: per_second(self.jobs.accepted, sending_seconds),
            complete_rps: per_second(self.jobs.completed, total_seconds),
            generator_busy: self.busy,
        }
    }
}

impl Live {
    fn new(since: Instant) -> Result<Self, CreationError> {
        let window = Window::default();
        let (submit, get) = (Latency::coarse()?, Latency::coarse()?);
        Ok(Self { since, window, submit, get, health: Latency::coarse()?, complete: Latency::coarse()? })
    }

    fn record(&mut self, operation: Operation, latency: Duration) {
        match operation {
            Operation::Submit => self.submit.record(latency),
            Operation::Get => self.get.record(latency),
            Operation::Health => self.health.record(latency),
            Operation::Follow => {}
        }
    }

    fn close(&mut self, started: Instant, backlog: u64) -> Window {
        let now = Instant::now();
        let counted = std::mem::take(&mut self.window);
        let window = Window {
            start: (self.since - started).as_secs_f64(),
            seconds: (now - self.since).as_secs_f64(),
            backlog,
            submit: self.submit.take_percentiles(),
            get: self.get.take_percentiles(),
            health: self.health.take_percentiles(),
            complete: self.complete.take_percentiles(),
            ..counted
        };
        self.since = now;
        window
    }
}
