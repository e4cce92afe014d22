//! The state of the arrivals, and how it changes. Nothing here waits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tepal_shared::job::{Delivery, ModelName};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::fetch::quarantine::Turn;

/// How long a lane may be away before it is busy, and how long jobs are kept for it. A released job is found again by a search, up to
/// `RECLAIM_INTERVAL_MS` later. A kept one is delayed by at most this.
const GRACE: Duration = Duration::from_millis(3);
/// Jobs for a lane.
#[derive(Debug)]
pub struct Arrived {
    /// The claimed jobs.
    pub deliveries: Vec<Delivery>,
    /// The right to hold them.
    pub turn: Arc<Turn>,
}

/// Everything that the lanes and the reader share.
#[derive(Debug)]
pub(super) struct State {
    lanes: HashMap<ModelName, LaneState>,
    partitions: Vec<PartitionState>,
}

#[derive(Debug, Default)]
struct LaneState {
    /// The lane waits for jobs.
    waiting: Option<Waiting>,
    /// Until then the lane is away, not busy.
    away_until: Option<Instant>,
    /// Jobs that arrived while it did not wait, and until when they are kept.
    kept: Vec<(Instant, Arrived)>,
}

#[derive(Debug)]
struct Waiting {
    arrived: oneshot::Sender<Arrived>,
    searches_itself: bool,
}

/// A partition.
#[derive(Debug, Default)]
pub(super) struct PartitionState {
    /// The models whose streams a blocking read covers now.
    read: Option<Vec<ModelName>>,
    /// The models whose streams the reader searched last, and after which tick.
    pub(super) searched: (u32, Vec<ModelName>),
    /// The last call failed or is late. No lane takes from the partition.
    pub(super) is_suspended: bool,
    /// Notified when its read may begin or must end.
    wake: Arc<Notify>,
}

impl PartitionState {
    pub(super) fn is_read(&self, model: ModelName) -> bool {
        self.read.as_ref().is_some_and(|read| read.contains(&model))
    }

    pub(super) fn is_searched(&self, model: ModelName, tick: u32) -> bool {
        self.searched.0 == tick && self.searched.1.contains(&model)
    }

    pub(super) fn end_read(&mut self) {
        self.read = None;
    }

    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }
}

impl LaneState {
    fn is_busy(&self) -> bool {
        self.waiting.is_none() && self.away_until.is_none()
    }

    fn leaves(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.take()?;
        self.away_until = Some(Instant::now() + GRACE);
        Some(waiting)
    }

    fn take_kept(&mut self) -> Vec<Arrived> {
        self.kept.drain(..).map(|(_, arrived)| arrived).collect()
    }

    fn give(&mut self, arrived: Arrived) {
        let refused = match self.leaves() {
            // A lane that has panicked refuses them.
            Some(waiting) => waiting.arrived.send(arrived).err(),
            None => Some(arrived),
        };
        self.kept.extend(refused.map(|arrived| (Instant::now() + GRACE, arrived)));
    }
}

impl State {
    pub(super) fn new(partitions: u16) -> Self {
        let partitions = (0..partitions).map(|_| PartitionState::default()).collect();
        Self { lanes: HashMap::new(), partitions }
    }

    pub(super) fn partition(&self, partition: u8) -> &PartitionState {
        &self.partitions[usize::from(partition)]
    }

    pub(super) fn partition_mut(&mut self, partition: u8) -> &mut PartitionState {
        &mut self.partitions[usize::from(partition)]
    }

    pub(super) fn are_several_partitions(&self) -> bool {
        self.partitions.len() > 1
    }

    pub(super) fn are_any_suspended(&self) -> bool {
        self.partitions.iter().any(|partition| partition.is_suspended)
    }

    /// The models of the waiting lanes that do not search themselves.
    pub(super) fn searched_models(&self) -> Vec<ModelName> {
        self.models(|lane| lane.waiting.as_ref().is_some_and(|wait| !wait.searches_itself))
    }

    pub(super) fn all_models(&self) -> Vec<ModelName> {
        self.models(|_| true)
    }

    /// A read of the partition begins for all lanes that are not busy.
    pub(super) fn begin(&mut self, partition: u8) -> Vec<ModelName> {
        let models = self.models(|lane| !lane.is_busy());
        self.partition_mut(partition).read = Some(models.clone());
        models
    }

    /// Passes jobs to the lane if it waits, or keeps them for it.
    pub(super) fn give(&mut self, model: ModelName, arrived: Arrived) {
        self.lanes.entry(model).or_default().give(arrived);
    }

    /// Takes the jobs that are kept for a lane.
    pub(super) fn kept(&mut self, model: ModelName) -> Vec<Arrived> {
        self.lanes.get_mut(&model).map(LaneState::take_kept).unwrap_or_default()
    }

    pub(super) fn all_kept(&mut self) -> Vec<Arrived> {
        self.lanes.values_mut().flat_map(LaneState::take_kept).collect()
    }

    fn models(&self, is_meant: impl Fn(&LaneState) -> bool) -> Vec<ModelName> {
        self.lanes.iter().filter(|(_, lane)| is_meant(lane)).map(|(model, _)| *model).collect()
    }

    /// The lane waits. If jobs are kept for it, they arrive at once.
    pub(super) fn wait(&mut self, model: ModelName, searches_itself: bool) -> oneshot::Receiver<Arrived> {
        let (arrived, arrival) = oneshot::channel();
        let lane = self.lanes.entry(model).or_default();
        (lane.waiting, lane.away_until) = (Some(Waiting { arrived, searches_itself }), None);
        if let Some((_, kept)) = lane.kept.pop() {
            lane.give(kept);
        } else {
            self.wake(|read| !read.contains(&model));
        }
        arrival
    }

    pub(super) fn leave(&mut self, model: ModelName) {
        if let Some(lane) = self.lanes.get_mut(&model) {
            lane.leaves();
        }
    }

    /// Wakes the partitions without a read, and those with such a read.
    fn wake(&self, is_meant: impl Fn(&[ModelName]) -> bool) {
        let meant =
            self.partitions.iter().filter(|partition| partition.read.as_deref().is_none_or(&is_meant));
        meant.for_each(|partition| partition.wake.notify_one());
    }

    pub(super) fn is_readable(&self, served: &[ModelName]) -> bool {
        let is_away = |model| self.lanes.get(model).is_some_and(|lane| lane.away_until.is_some());
        self.lanes.values().any(|lane| lane.waiting.is_some()) && !served.iter().any(is_away)
    }

    pub(super) fn is_outdated(&self, partition: u8) -> bool {
        let Some(read) = &self.partitions[usize::from(partition)].read else { return true };
        self.lanes.iter().any(|(model, lane)| match read.contains(model) {
            true => lane.is_busy(),
            false => lane.waiting.is_some(),
        })
    }

    /// Takes the jobs that were kept for long enough. Returns when to look again.
    pub(super) fn expire(&mut self) -> (Vec<Arrived>, Option<Instant>) {
        let (now, mut expired, mut busy) = (Instant::now(), Vec::new(), Vec::new());
        for (model, lane) in &mut self.lanes {
            expired.extend(lane.kept.extract_if(.., |(until, _)| *until <= now).map(|(_, arrived)| arrived));
            if lane.away_until.is_some_and(|until| until <= now) {
                lane.away_until = None;
                busy.push(*model);
            }
        }
        if !busy.is_empty() {
            self.wake(|read| busy.iter().any(|model| read.contains(model)));
        }
        let kept = |lane: &LaneState| lane.kept.iter().map(|(until, _)| *until).min();
        let next = self.lanes.values().flat_map(|lane| [lane.away_until, kept(lane)]).flatten().min();
        (expired, next)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;
    use crate::{fetch::quarantine::Quarantine, testing::delivery};

    fn model(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    fn jobs() -> Arrived {
        let turn = Quarantine::new(3).turn(false).now_or_never().unwrap();
        Arrived { deliveries: vec![delivery(1)], turn: Arc::new(turn) }
    }

    fn is_woken(state: &State, partition: u8) -> bool {
        state.partition(partition).wake().notified().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_for_a_lane_that_is_away_wait_for_it_but_not_for_long() {
        let (mut state, iris) = (State::new(1), model("iris"));
        let mut first = state.wait(iris, false);
        state.give(iris, jobs());
        assert!(first.try_recv().is_ok());

        state.give(iris, jobs());
        assert!(state.expire().0.is_empty());
        assert!(state.wait(iris, false).try_recv().is_ok(), "they arrive as soon as it waits again");
        state.give(iris, jobs());
        assert_eq!(state.kept(iris).len(), 1, "it may also ask for them");

        state.give(iris, jobs());
        advance(GRACE).await;
        assert_eq!(state.expire().0.len(), 1);
        assert!(state.kept(iris).is_empty() && state.all_kept().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_ends_when_it_covers_a_busy_lane_or_not_all_that_wait() {
        let (mut state, iris, other) = (State::new(2), model("iris"), model("other"));
        let _arrival = state.wait(iris, false);
        assert!(is_woken(&state, 0) && is_woken(&state, 1));
        assert_eq!(state.begin(0), [iris]);
        assert!(!state.is_outdated(0));

        state.give(iris, jobs());
        assert!(!state.is_outdated(0), "the lane is away, not busy");
        let _arrival = state.wait(iris, false);
        assert!(!state.is_outdated(0) && !is_woken(&state, 0));

        let _other = state.wait(other, false);
        assert!(state.is_outdated(0) && is_woken(&state, 0));
        state.partition_mut(0).end_read();
        assert_eq!(state.begin(0).len(), 2);

        state.give(iris, jobs());
        advance(GRACE).await;
        let (_, next) = state.expire();
        assert!(state.is_outdated(0) && is_woken(&state, 0), "the lane is busy");
        assert_eq!(next, None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_read_waits_for_the_lanes_that_the_last_one_served() {
        let (mut state, iris, other) = (State::new(1), model("iris"), model("other"));
        assert!(!state.is_readable(&[]), "no lane waits");
        let (_iris, _other) = (state.wait(iris, false), state.wait(other, true));
        assert!(state.is_readable(&[]));
        assert_eq!(state.searched_models(), [iris], "the other one searches itself");

        state.give(iris, jobs());
        assert!(state.is_readable(&[]) && !state.is_readable(&[iris]));
        advance(GRACE).await;
        state.expire();
        assert!(state.is_readable(&[iris]), "it is busy");
        assert_eq!(state.begin(0), [other]);
    }
}
