//! Whether the loops of this worker still move, for /livez. A loop may wait without limit for an unreachable model server
//! or for a running batch. Every other step has a time limit. A Redis outage stops no loop: each call to Redis fails within
//! seconds, and the loop tries again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Longest time without a step. Ten times what a call to Redis may take.
const BOUND: Duration = Duration::from_secs(60);

/// All loops of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    loops: Arc<Mutex<Loops>>,
}

#[derive(Debug, Default)]
struct Loops {
    by_name: BTreeMap<String, Loop>,
    /// Number of batches that run.
    running: usize,
    /// When a batch ended last.
    last_end: Option<Instant>,
}

#[derive(Debug)]
struct Loop {
    activity: Activity,
    since: Instant,
    bound: Duration,
}

/// What a loop does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// A step that is short or has its own time limit.
    Work,
    /// It waits for a batch slot, as long as the running batches take.
    WaitForSlot,
    /// It waits for something without a time limit.
    WaitForBackend,
    /// It waits for jobs, or for lanes that wait for jobs, without a time limit.
    WaitForJobs,
}

/// The sign of life of one loop. Clones belong to the same loop.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: String,
    loops: Arc<Mutex<Loops>>,
}

/// A running batch. Dropping it ends the batch.
#[derive(Debug)]
pub struct Running {
    loops: Arc<Mutex<Loops>>,
}

impl Liveness {
    /// Watches the loop `name`, which pauses for `pause` between two steps.
    #[must_use]
    pub fn watch(&self, name: String, pause: Duration) -> Pulse {
        let watched = Loop { activity: Activity::Work, since: Instant::now(), bound: BOUND + pause };
        lock(&self.loops).by_name.insert(name.clone(), watched);
        Pulse { name, loops: Arc::clone(&self.loops) }
    }

    /// A sentence about a loop that has stopped moving.
    #[must_use]
    pub fn stalled(&self) -> Option<String> {
        let loops = lock(&self.loops);
        loops.by_name.iter().find_map(|(name, watched)| {
            let still = watched.still(&loops).filter(|still| *still > watched.bound)?;
            Some(format!("The {name} has not moved for {} s", still.as_secs()))
        })
    }
}

impl Loop {
    /// How long the loop has not moved although it could.
    fn still(&self, loops: &Loops) -> Option<Duration> {
        let since = match self.activity {
            Activity::Work => self.since,
            Activity::WaitForSlot if loops.running == 0 => {
                self.since.max(loops.last_end.unwrap_or(self.since))
            }
            Activity::WaitForSlot | Activity::WaitForBackend | Activity::WaitForJobs => return None,
        };
        Some(since.elapsed())
    }
}

impl Pulse {
    /// The loop starts a step.
    pub fn set(&self, activity: Activity) {
        if let Some(watched) = lock(&self.loops).by_name.get_mut(&self.name) {
            (watched.activity, watched.since) = (activity, Instant::now());
        }
    }

    /// The loop ends in order.
    pub fn end(&self) {
        lock(&self.loops).by_name.remove(&self.name);
    }

    /// A batch starts to run.
    #[must_use]
    pub fn batch(&self) -> Running {
        lock(&self.loops).running += 1;
        Running { loops: Arc::clone(&self.loops) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut loops = lock(&self.loops);
        loops.running = loops.running.saturating_sub(1);
        loops.last_end = Some(Instant::now());
    }
}

/// Each critical section leaves the loops consistent, so a panic elsewhere does not break them.
fn lock(loops: &Mutex<Loops>) -> MutexGuard<'_, Loops> {
    loops.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LONG: Duration = Duration::from_secs(61);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_takes_no_step_is_stalled_until_it_moves() {
        let liveness = Liveness::default();
        let pulse = liveness.watch("heartbeat".to_owned(), Duration::ZERO);
        advance(BOUND).await;
        assert_eq!(liveness.stalled(), None);
        advance(Duration::from_secs(15)).await;
        assert_eq!(liveness.stalled().unwrap(), "The heartbeat has not moved for 75 s");

        pulse.set(Activity::Work);
        assert_eq!(liveness.stalled(), None);
        advance(LONG).await;
        pulse.end();
        assert_eq!(liveness.stalled(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_between_two_steps_is_not_counted() {
        let liveness = Liveness::default();
        let _pulse = liveness.watch("lease keeper".to_owned(), LONG);
        advance(BOUND + LONG).await;
        assert_eq!(liveness.stalled(), None);
        advance(Duration::from_secs(1)).await;
        assert!(liveness.stalled().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_may_wait_for_a_backend_that_is_away() {
        let liveness = Liveness::default();
        let pulse = liveness.watch("consumer a-0".to_owned(), Duration::ZERO);
        pulse.set(Activity::WaitForBackend);
        advance(10 * LONG).await;
        assert_eq!(liveness.stalled(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_may_wait_for_a_long_batch_but_not_for_nothing() {
        let liveness = Liveness::default();
        let pulse = liveness.watch("consumer a-0".to_owned(), Duration::ZERO);
        let (long, longer) = (pulse.batch(), pulse.batch());
        pulse.set(Activity::WaitForSlot);
        advance(10 * LONG).await;
        drop(long);
        advance(LONG).await;
        assert_eq!(liveness.stalled(), None, "a batch still runs");

        drop(longer);
        advance(BOUND).await;
        assert_eq!(liveness.stalled(), None, "the batch has just ended");
        advance(Duration::from_secs(1)).await;
        assert_eq!(liveness.stalled().unwrap(), "The consumer a-0 has not moved for 61 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_runs_excuses_no_loop_that_does_not_wait_for_it() {
        let liveness = Liveness::default();
        let stuck = liveness.watch("consumer a-0".to_owned(), Duration::ZERO);
        let busy = liveness.watch("consumer a-1".to_owned(), Duration::ZERO);
        stuck.set(Activity::Work);
        busy.set(Activity::WaitForSlot);
        let _batch = busy.batch();
        advance(LONG).await;
        assert_eq!(liveness.stalled().unwrap(), "The consumer a-0 has not moved for 61 s");
    }
}
