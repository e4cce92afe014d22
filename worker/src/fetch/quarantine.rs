//! The quarantine of suspects.
//!
//! A suspect is a job that a worker held when it died, or whose model call broke off. It may be what kills workers or model
//! servers, and other jobs must not fail with it as `worker_lost` or `model_lost`. So each lane claims suspects one at a
//! time, and no suspect waits in a process for its turn. If a suspect would fail with the next lost worker, or if its lone
//! call broke off, it runs while the process holds no other job, of any model.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tepal_shared::job::{Attempt, Delivery};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

/// After a suspect was seen, more are expected for this long, whatever a search finds: a search does not find the suspects
/// that another consumer is about to release.
const EXPECTED_FOR: Duration = Duration::from_secs(1);

/// The quarantine of a lane. Clones share it.
#[derive(Clone, Debug)]
pub struct Quarantine {
    max_lost: u64,
    expectation: Arc<Mutex<Expectation>>,
    /// The turns of all lanes of the process.
    turns: Arc<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    lock: Arc<RwLock<()>>,
    /// Number of lanes that wait for a turn alone.
    alone_wanted: watch::Sender<usize>,
}

/// A lane that waits for a turn alone.
struct AloneWanted<'a>(&'a Turns);

#[derive(Debug)]
struct Expectation {
    are_expected: bool,
    seen_at: Option<Instant>,
}

/// The right to hold jobs.
#[derive(Debug)]
pub enum Turn {
    /// Together with other lanes of the process.
    Shared(OwnedRwLockReadGuard<()>),
    /// While no other lane of the process holds jobs.
    Alone(OwnedRwLockWriteGuard<()>),
}

/// The decision about claimed jobs.
#[derive(Debug, Default)]
pub struct Sorted {
    /// Jobs to run now.
    pub run: Vec<Delivery>,
    /// Jobs to release, to be claimed one at a time.
    pub release: Vec<Attempt>,
    /// Whether the released jobs must run alone in the process.
    pub is_last_chance: bool,
}

impl Quarantine {
    /// Expects suspects, because one may have killed the previous process. A job fails when it has lost `max_lost`
    /// workers.
    #[must_use]
    pub fn new(max_lost: u32) -> Self {
        let expectation = Arc::new(Mutex::new(Expectation { are_expected: true, seen_at: None }));
        Self { max_lost: u64::from(max_lost), expectation, turns: Arc::default() }
    }

    /// The quarantine of another lane of the same process.
    #[must_use]
    pub fn of_another_lane(&self) -> Self {
        Self { turns: Arc::clone(&self.turns), ..Self::new(u32::try_from(self.max_lost).unwrap_or(u32::MAX)) }
    }

    /// Waits until a lane of the process waits for a turn alone.
    pub async fn lone_turn_wanted(&self) {
        let mut wanted = self.turns.alone_wanted.subscribe();
        // The sender lives as long as `self`.
        let _ = wanted.wait_for(|wanted| *wanted > 0).await;
    }

    /// Whether suspects are expected, so that jobs must be claimed one at a time.
    #[must_use]
    pub fn expects_suspects(&self) -> bool {
        self.expectation().are_expected
    }

    /// A full search found no suspect.
    pub fn found_none(&self) {
        let mut expectation = self.expectation();
        if expectation.seen_at.is_none_or(|at| at.elapsed() >= EXPECTED_FOR) {
            expectation.are_expected = false;
        }
    }

    fn seen(&self) {
        *self.expectation() = Expectation { are_expected: true, seen_at: Some(Instant::now()) };
    }

    fn expectation(&self) -> MutexGuard<'_, Expectation> {
        self.expectation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to hold jobs, `alone` or with others.
    pub async fn turn(&self, alone: bool) -> Turn {
        let lock = Arc::clone(&self.turns.lock);
        if !alone {
            return Turn::Shared(lock.read_owned().await);
        }
        self.turns.alone_wanted.send_modify(|wanted| *wanted += 1);
        let _wanted = AloneWanted(&self.turns);
        Turn::Alone(lock.write_owned().await)
    }

    /// Decides which of the jobs claimed in this turn run now. If suspects may run in this turn, one of them runs. Otherwise
    /// workers could release and claim them for ever.
    #[must_use]
    pub fn sort(&self, deliveries: Vec<Delivery>, turn: &Turn) -> Sorted {
        let (mut suspects, mut run): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.attempt.is_suspect());
        if suspects.is_empty() {
            return Sorted { run, ..Sorted::default() };
        }
        self.seen();
        if run.is_empty()
            && let Some(first) = suspects.iter().position(|suspect| self.may_run(&suspect.attempt, turn))
        {
            run.push(suspects.remove(first));
        }
        let release = suspects.into_iter().map(|suspect| suspect.attempt).collect();
        Sorted { is_last_chance: run.is_empty(), run, release }
    }

    fn may_run(&self, suspect: &Attempt, turn: &Turn) -> bool {
        let is_early = suspect.lost + 1 < self.max_lost && suspect.broken < 2;
        is_early || matches!(turn, Turn::Alone(_))
    }
}

impl Drop for AloneWanted<'_> {
    fn drop(&mut self) {
        self.0.alone_wanted.send_modify(|wanted| *wanted -= 1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::testing::delivery;

    fn of(lost: u64, broken: u64) -> Delivery {
        let mut delivery = delivery(1);
        (delivery.attempt.lost, delivery.attempt.broken) = (lost, broken);
        delivery
    }

    fn lost(times: &[u64]) -> Vec<Delivery> {
        times.iter().map(|lost| of(*lost, 0)).collect()
    }

    fn counts(sorted: &Sorted) -> (usize, usize, bool) {
        (sorted.run.len(), sorted.release.len(), sorted.is_last_chance)
    }

    #[tokio::test]
    async fn suspects_are_run_one_at_a_time() {
        let quarantine = Quarantine::new(3);
        let turn = quarantine.turn(false).await;
        quarantine.found_none();

        assert_eq!(counts(&quarantine.sort(lost(&[0, 0]), &turn)), (2, 0, false));
        assert!(!quarantine.expects_suspects());
        assert_eq!(counts(&quarantine.sort(lost(&[0, 1, 2]), &turn)), (1, 2, false));
        assert!(quarantine.expects_suspects());
        assert_eq!(counts(&quarantine.sort(lost(&[1]), &turn)), (1, 0, false));
        quarantine.found_none();
        assert!(quarantine.expects_suspects(), "another consumer may be about to release one");
    }

    #[tokio::test]
    async fn one_of_many_suspects_is_run_unless_all_must_be_alone() {
        let quarantine = Quarantine::new(3);
        let shared = quarantine.turn(false).await;
        assert_eq!(counts(&quarantine.sort(lost(&[2, 1, 1]), &shared)), (1, 2, false));
        assert_eq!(counts(&quarantine.sort(lost(&[2, 2]), &shared)), (0, 2, true));
        drop(shared);
        let alone = quarantine.turn(true).await;
        assert_eq!(counts(&quarantine.sort(lost(&[2, 2]), &alone)), (1, 1, false));
    }

    #[tokio::test]
    async fn a_job_whose_lone_call_broke_off_is_run_only_alone() {
        let quarantine = Quarantine::new(3);
        let broken = |times| vec![of(0, times)];
        let shared = quarantine.turn(false).await;
        assert_eq!(counts(&quarantine.sort(broken(1), &shared)), (1, 0, false));
        assert_eq!(counts(&quarantine.sort(broken(2), &shared)), (0, 1, true));
        drop(shared);
        let alone = quarantine.turn(true).await;
        assert_eq!(counts(&quarantine.sort(broken(2), &alone)), (1, 0, false));
    }

    #[tokio::test]
    async fn a_last_chance_is_run_only_alone() {
        let quarantine = Quarantine::new(3);
        let shared = quarantine.turn(false).await;
        assert_eq!(counts(&quarantine.sort(lost(&[2]), &shared)), (0, 1, true));
        assert!(quarantine.turn(true).now_or_never().is_none(), "others hold jobs");
        drop(shared);

        let alone = quarantine.turn(true).now_or_never().unwrap();
        assert_eq!(counts(&quarantine.sort(lost(&[2]), &alone)), (1, 0, false));
        assert!(quarantine.turn(false).now_or_never().is_none());
    }

    #[tokio::test]
    async fn lanes_share_their_turns_and_nothing_else() {
        let one = Quarantine::new(3);
        let other = one.of_another_lane();
        one.found_none();
        assert!(!one.expects_suspects() && other.expects_suspects());

        let shared = one.turn(false).await;
        let mut alone = Box::pin(other.turn(true));
        assert!((&mut alone).now_or_never().is_none() && one.lone_turn_wanted().now_or_never().is_some());
        drop(shared);
        let alone = alone.await;
        assert!(one.lone_turn_wanted().now_or_never().is_none(), "it has its turn");
        assert!(one.turn(false).now_or_never().is_none());
        drop(alone);
    }
}
