//! Follows accepted jobs to their end with a bounded number of followers, oldest job first. A follower long-polls
//! where the server supports it and polls with growing pauses where not; it never busy-loops.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::api::{Api, JobRecord};
use crate::failure::Failure;
use crate::jobs::{Job, Jobs};
use crate::recorder::Recorder;
use crate::traffic;

/// The first pause between two polls of one job.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// So many answers "not found" in a row mean that the server has forgotten the job.
const FORGOTTEN_AFTER: u32 = 5;

/// How a follower learns that a job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// `Prefer: wait=N`; polls if the server ignores that.
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
    /// How long to stay with one job before the next one gets its turn.
    pub(crate) turn: Duration,
}

/// How a turn ended.
enum Seen {
    Terminal(JobRecord),
    Forgotten,
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
                Seen::Terminal(record) => {
                    self.recorder.end_job(&record, job.intended.elapsed());
                    self.jobs.end(job, &record.body, record.max_age);
                }
                Seen::Forgotten => {
                    self.recorder.lose_job();
                    self.jobs.lose(job);
                }
                Seen::NotYet => self.jobs.put_back(job),
            }
        }
    }

    async fn take_turn(&self, job: &Job) -> Seen {
        let mut turn = Turn::new(self.turn);
        if self.mode == Mode::Poll {
            turn.sleep(None).await;
        }
        while !turn.left().is_zero() {
            let asked = Instant::now();
            let wait = (self.mode == Mode::Wait).then(|| turn.whole_seconds_left());
            match self.read(job, wait).await {
                Ok(record) if record.status.is_terminal() => return Seen::Terminal(record),
                Ok(_) if waited(asked, wait) => {}
                Ok(_) => turn.sleep(None).await,
                Err(failure) if turn.is_forgotten(failure) => return Seen::Forgotten,
                Err(failure) => turn.sleep(Some(failure)).await,
            }
        }
        Seen::NotYet
    }

    async fn read(&self, job: &Job, wait: Option<Duration>) -> Result<JobRecord, Failure> {
        let asked = Instant::now();
        let answer = self.api.job(&job.id, wait).await;
        let outcome = answer.as_ref().map(|_| ()).map_err(|failure| *failure);
        self.recorder.follow(asked.elapsed(), outcome);
        answer
    }
}

/// Did the server use up most of the time that it was given? Only then may it be asked again at once.
fn waited(asked: Instant, wait: Option<Duration>) -> bool {
    wait.is_some_and(|wait| asked.elapsed() >= wait.mul_f64(0.8))
}

impl Turn {
    fn new(length: Duration) -> Self {
        Self { ends: Instant::now() + length, pause: FIRST_PAUSE, not_found: 0 }
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// `Prefer: wait` has no fractions; asking for none would be asking for no wait.
    fn whole_seconds_left(&self) -> Duration {
        Duration::from_secs(self.left().as_secs().max(1))
    }

    /// Pauses a little longer than last time, or as long as a refusal asks.
    async fn sleep(&mut self, failure: Option<Failure>) {
        let asked = failure.filter(Failure::is_refusal).map_or(Duration::ZERO, traffic::pause);
        tokio::time::sleep(self.pause.max(asked)).await;
        self.pause = self.pause.mul_f64(1.5).min(LONGEST_PAUSE);
    }

    fn is_forgotten(&mut self, failure: Failure) -> bool {
        self.not_found = if failure.is_not_found() { self.not_found + 1 } else { 0 };
        self.not_found >= FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    #[test]
    fn only_several_not_found_in_a_row_mean_a_forgotten_job() {
        let mut turn = Turn::new(Duration::from_secs(1));
        let mut answer = |kind: FailureKind| turn.is_forgotten(kind.into());
        for _ in 0..FORGOTTEN_AFTER - 1 {
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
    fn a_server_that_ignores_the_wish_to_wait_is_not_asked_again_at_once() {
        assert!(!waited(Instant::now(), Some(Duration::from_secs(5))));
        assert!(!waited(Instant::now(), None));
    }
}
