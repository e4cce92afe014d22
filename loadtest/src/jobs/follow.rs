//! Follows accepted jobs to their end with a fixed number of followers, oldest job first. A follower long-polls. If the
//! server does not support that, it polls with growing pauses; it never loops without a pause.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;
use tokio::task::JoinSet;

use super::table::{Job, Jobs};
use crate::http::api::{Api, JobRecord};
use crate::http::failure::Failure;
use crate::measure::recorder::Recorder;

/// The first pause between two polls of one job.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After this many answers "not found" in a row, the job is unknown to the server.
const UNKNOWN_AFTER: u32 = 5;

/// How a follower waits for the end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// `Prefer: wait=N`; polls if the server ignores it.
    Wait,
    /// Plain reads with growing pauses.
    Poll,
}

/// One of several equal followers.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    pub(crate) api: Api,
    pub(crate) jobs: Jobs,
    pub(crate) recorder: Recorder,
    pub(crate) mode: Mode,
    /// How long to stay with one job before turning to the next.
    pub(crate) turn: Duration,
}

/// How a turn ended.
enum TurnEnd {
    Ended(JobRecord),
    Unknown,
    NotYet,
}

/// The state of one turn.
struct Turn {
    ends: Instant,
    pause: Duration,
    not_found: u32,
}

impl Follower {
    /// Starts `count` followers; they end when the set is dropped.
    pub(crate) fn start(self, count: usize) -> JoinSet<()> {
        let mut followers = JoinSet::new();
        (0..count).for_each(|_| drop(followers.spawn(self.clone().run())));
        followers
    }

    async fn run(self) {
        while let Some(job) = self.jobs.next().await {
            match self.take_turn(&job).await {
                TurnEnd::Ended(record) => {
                    self.recorder.end_job(&record, job.intended.elapsed());
                    self.jobs.end(job, &record.body, record.max_age);
                }
                TurnEnd::Unknown => {
                    self.recorder.lose_job();
                    self.jobs.lose(job);
                }
                TurnEnd::NotYet => self.jobs.requeue(job),
            }
        }
    }

    async fn take_turn(&self, job: &Job) -> TurnEnd {
        let mut turn = Turn::new(self.turn);
        if self.mode == Mode::Poll {
            turn.sleep(None).await;
        }
        while !turn.left().is_zero() {
            let sent = Instant::now();
            let wait = (self.mode == Mode::Wait).then(|| turn.whole_seconds_left());
            match self.read(job, wait).await {
                Ok(record) if record.status.is_terminal() => return TurnEnd::Ended(record),
                Ok(_) if waited(sent, wait) => {}
                Ok(_) => turn.sleep(None).await,
                Err(failure) if turn.is_unknown(failure) => return TurnEnd::Unknown,
                Err(failure) => turn.sleep(Some(failure)).await,
            }
        }
        TurnEnd::NotYet
    }

    async fn read(&self, job: &Job, wait: Option<Duration>) -> Result<JobRecord, Failure> {
        let sent = Instant::now();
        let answer = self.api.job(&job.id, wait).await;
        let outcome = answer.as_ref().map(|_| ()).map_err(|failure| *failure);
        self.recorder.follow(sent.elapsed(), outcome);
        answer
    }
}

/// Whether the server held the answer for most of the wait. Only then is the next request sent without a pause.
fn waited(sent: Instant, wait: Option<Duration>) -> bool {
    wait.is_some_and(|wait| sent.elapsed() >= wait.mul_f64(0.8))
}

impl Turn {
    fn new(length: Duration) -> Self {
        Self { ends: Instant::now() + length, pause: FIRST_PAUSE, not_found: 0 }
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// `Prefer: wait` has no fractions, and 0 would mean no wait.
    fn whole_seconds_left(&self) -> Duration {
        Duration::from_secs(self.left().as_secs().max(1))
    }

    /// Pauses longer than the last time, and at least as long as a refusal asks.
    async fn sleep(&mut self, failure: Option<Failure>) {
        let requested = failure.filter(Failure::is_refusal).map_or(Duration::ZERO, |refusal| refusal.pause());
        tokio::time::sleep(self.pause.max(requested)).await;
        self.pause = self.pause.mul_f64(1.5).min(LONGEST_PAUSE);
    }

    fn is_unknown(&mut self, failure: Failure) -> bool {
        self.not_found = if failure.is_not_found() { self.not_found + 1 } else { 0 };
        self.not_found >= UNKNOWN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::failure::FailureKind;

    #[test]
    fn only_several_not_found_in_a_row_make_a_job_unknown() {
        let mut turn = Turn::new(Duration::from_secs(1));
        let mut answer = |kind: FailureKind| turn.is_unknown(kind.into());
        for _ in 0..UNKNOWN_AFTER - 1 {
            assert!(!answer(FailureKind::Status(404)));
        }
        assert!(!answer(FailureKind::Status(503)));
        assert!(!answer(FailureKind::Status(404)));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_obey_retry_after() {
        let mut turn = Turn::new(Duration::from_secs(1));
        let start = tokio::time::Instant::now();
        turn.sleep(None).await;
        turn.sleep(None).await;
        assert_eq!(start.elapsed(), Duration::from_millis(50));
        let refusal = Failure { kind: FailureKind::Status(429), retry_after: Some(Duration::from_secs(2)) };
        turn.sleep(Some(refusal)).await;
        assert!(start.elapsed() >= Duration::from_secs(2));
    }

    #[test]
    fn a_server_that_ignores_the_wait_is_not_polled_without_a_pause() {
        assert!(!waited(Instant::now(), Some(Duration::from_secs(5))));
        assert!(!waited(Instant::now(), None));
    }
}
