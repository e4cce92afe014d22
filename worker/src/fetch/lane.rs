//! A lane: claims the jobs of one model, makes batches of them, and starts each batch as soon as a batch slot is free. When the
//! backend becomes unreachable or the shutdown begins, it releases the jobs that do not run yet.

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tepal_shared::{
    job::{Attempt, ModelName},
    process::telemetry,
    queue::work::Settlement,
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    fetch::{
        arrivals::{Arrivals, Arrived},
        fetcher::{Fetcher, Memory},
        quarantine::{Quarantine, Turn},
        settings::FetchSettings,
    },
    run::{
        batch::{MicroBatch, Plan},
        leases::Leases,
        limiter::Slot,
        runner::Runner,
    },
    upkeep::liveness::{Activity, Pulse},
};

/// After the drain, how long the release of the other jobs may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// The lane of one model. Clones start it again.
#[derive(Clone)]
pub struct Lane {
    /// Its model.
    pub model: ModelName,
    /// The consumer of the process.
    pub consumer: Arc<str>,
    /// Its settings.
    pub settings: FetchSettings,
    /// Runs its batches.
    pub runner: Arc<Runner>,
    /// Its quarantine.
    pub quarantine: Quarantine,
    /// Where it waits for jobs.
    pub arrivals: Arrivals,
    /// The sign of life of its loop.
    pub pulse: Pulse,
}

/// The loop of a lane, and its running batches.
struct ClaimLoop {
    lane: Lane,
    fetcher: Fetcher,
    /// The next job must run alone in the process.
    alone_next: bool,
    /// Batches that do not run yet.
    waiting: VecDeque<WaitingBatch>,
    tasks: JoinSet<()>,
    /// Notified when one of them has panicked.
    panicked: Arc<Notify>,
}

/// A batch with what runs it.
struct WaitingBatch {
    runner: Arc<Runner>,
    batch: MicroBatch,
    turn: Arc<Turn>,
}

/// The jobs of a lane. When the lane has ended for any reason, they run elsewhere.
struct Held {
    leases: Leases,
    model: ModelName,
}

impl WaitingBatch {
    fn own_time_left(&self) -> Option<Duration> {
        self.runner.own_time_left(&self.batch)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.abandon(self.model);
    }
}

impl Lane {
    /// Claims and runs jobs until `shutdown` begins. If the loop or one of its batches panics, the lane ends early and its
    /// leases lapse, as if its process had died: a bug must not hold a job for ever.
    pub async fn run(self, shutdown: CancellationToken) {
        let _held = Held { leases: self.runner.leases.clone(), model: self.model };
        let claim_loop = ClaimLoop::new(self);
        let panicked = Arc::clone(&claim_loop.panicked);
        // The loop may be cancelled at any wait, as a process may die at any point.
        tokio::select! {
            () = panicked.notified() => {}
            () = claim_loop.run(shutdown) => {}
        }
    }
}

impl ClaimLoop {
    fn new(lane: Lane) -> Self {
        let fetcher = Fetcher {
            consumer: Arc::clone(&lane.consumer),
            model: lane.model,
            work: lane.runner.work.clone(),
            arrivals: lane.arrivals.clone(),
            quarantine: lane.quarantine.clone(),
            breaker: lane.runner.breaker.clone(),
            limiter: lane.runner.limiter.clone(),
            settings: lane.settings,
            limits: lane.runner.settings.limits,
            memory: Memory::new(lane.runner.work.queue().policy().partitions),
        };
        Self {
            fetcher,
            alone_next: false,
            waiting: VecDeque::new(),
            tasks: JoinSet::new(),
            panicked: Arc::default(),
            lane,
        }
    }

    /// Claims jobs until `shutdown` begins. Then lets running batches finish, and releases the other jobs.
    async fn run(mut self, shutdown: CancellationToken) {
        while let Some((slot, turn)) = shutdown.run_until_cancelled(self.free_slot()).await {
            self.lane.pulse.set(Activity::Work);
            let slot = match turn {
                Some(turn) => self.claim(turn, slot, &shutdown).await,
                None => Some(slot),
            };
            // Without a slot, the first batch waits for one like the others.
            if let Some(slot) = slot
                && let Some(batch) = self.waiting.pop_front()
            {
                self.start(batch, slot);
            }
            if self.fetcher.has_waited() {
                // A lone job comes first: its batch runs on this thread, and its result is sent before the next take. With a
                // backlog, the take is sent first, so that Redis works on it meanwhile.
                tokio::task::yield_now().await;
            }
            while self.tasks.try_join_next().is_some() {}
        }
        self.drain().await;
    }

    /// Waits until the backend answers and a batch slot is free; and, if no batch waits, for the turn to claim jobs.
    ///
    /// The order is turn, slot. A lane that waits for a turn holds nothing that the holder of one needs. Batches that wait or run here
    /// already have a turn. So every holder of a slot finishes.
    async fn free_slot(&mut self) -> (Slot, Option<Arc<Turn>>) {
        loop {
            if !self.lane.runner.breaker.is_closed() {
                self.release_waiting();
                self.lane.pulse.set(Activity::WaitForBackend);
                self.lane.runner.breaker.closed().await;
            }
            if self.waiting.is_empty() {
                // A lane that waits to call its backend claims no jobs and needs no turn.
                self.lane.pulse.set(Activity::WaitForBackend);
                self.lane.runner.limiter.pause().await;
            }
            self.lane.pulse.set(Activity::WaitForSlot);
            let turn = match self.waiting.is_empty() {
                true => Some(Arc::new(self.lane.quarantine.turn(self.alone_next).await)),
                false => None,
            };
            let slot = tokio::select! {
                biased;
                slot = self.lane.runner.limiter.slot() => slot,
                () = self.first_timeout() => {
                    self.fail_late();
                    continue;
                }
            };
            // The backend may have become unreachable during the wait for a slot.
            if self.lane.runner.breaker.is_closed() {
                return (slot, turn);
            }
        }
    }

    /// Waits until the own time limit of a job ends whose batch does not run yet.
    async fn first_timeout(&self) {
        let left = self.waiting.iter().filter_map(WaitingBatch::own_time_left).min();
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    }

    fn fail_late(&mut self) {
        let is_late = |waiting: &WaitingBatch| waiting.own_time_left().is_some_and(|left| left.is_zero());
        let (late, waiting) = self.waiting.drain(..).partition(is_late);
        let late: VecDeque<_> = late;
        self.waiting = waiting;
        self.spawn(async move {
            for WaitingBatch { runner, batch, turn } in late {
                runner.too_late(&batch).await;
                drop(turn);
            }
        });
    }

    /// Claims jobs and makes batches of them; waits until there are jobs. Returns a slot for the first batch, if one is free. Never
    /// cancelled: see [`Fetcher::wait`].
    async fn claim(&mut self, turn: Arc<Turn>, slot: Slot, shutdown: &CancellationToken) -> Option<Slot> {
        let is_alone = matches!(*turn, Turn::Alone(_));
        let deliveries = match is_alone {
            true => self.fetcher.take_alone(&turn).await,
            false => self.fetcher.take(&turn).await,
        };
        if !deliveries.is_empty() {
            self.plan(Arrived { deliveries, turn }).await;
            return Some(slot);
        }
        // An idle lane holds no slot: batches that wait for one again, or other models, need it. Nor does it hold a turn: the reader
        // has one as long as jobs may arrive.
        drop((slot, turn));
        if is_alone {
            // Another worker runs the suspect. The other lanes must not wait longer.
            self.alone_next = false;
            return None;
        }
        self.lane.pulse.set(Activity::WaitForJobs);
        let arrived = self.fetcher.wait(shutdown).await;
        self.lane.pulse.set(Activity::Work);
        if let Some(arrived) = arrived {
            self.plan(arrived).await;
        }
        self.lane.runner.limiter.slot().now_or_never()
    }

    /// Makes batches of claimed jobs.
    async fn plan(&mut self, Arrived { mut deliveries, turn }: Arrived) {
        self.fetcher.fill(&mut deliveries, &turn).await;
        let sorted = self.lane.quarantine.sort(deliveries, &turn);
        let runner = Arc::clone(&self.lane.runner);
        let run = sorted.run.iter().map(|delivery| delivery.attempt.claim);
        let release = sorted.release.iter().map(|attempt| attempt.claim);
        runner.leases.hold(run.chain(release));
        self.alone_next = sorted.is_last_chance;

        let (mut jobs, mut rows, mut unfit) = (0, 0, Vec::new());
        for (runner, deliveries) in runner.by_version(sorted.run) {
            let plan = Plan::new(&runner.model, deliveries, runner.limits());
            unfit.extend(plan.unfit);
            for batch in plan.batches {
                (jobs, rows) = (jobs + batch.items.len(), rows + batch.rows());
                let (runner, turn) = (Arc::clone(&runner), Arc::clone(&turn));
                self.waiting.push_back(WaitingBatch { runner, batch, turn });
            }
        }
        self.fetcher.note_rows(jobs, rows);
        if !unfit.is_empty() || !sorted.release.is_empty() {
            self.spawn(async move {
                runner.release(&sorted.release).await;
                runner.refuse(&unfit).await;
                drop(turn);
            });
        }
    }

    fn start(&mut self, waiting: WaitingBatch, mut slot: Slot) {
        slot.run();
        let WaitingBatch { runner, batch, turn } = waiting;
        self.spawn(async move {
            runner.run(batch, &mut slot).await;
            drop(turn);
            slot.end().await;
        });
    }

    /// Runs the future beside the loop.
    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let (panicked, running) = (Arc::clone(&self.panicked), self.lane.pulse.batch());
        self.tasks.spawn(async move {
            let _running = running;
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                panicked.notify_one();
            }
        });
    }

    fn release_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let released = self.waiting.drain(..).map(|waiting| (waiting.batch, waiting.turn));
        let (batches, turns): (Vec<_>, Vec<_>) = released.unzip();
        let items = batches.into_iter().flat_map(|batch| batch.items);
        let attempts: Vec<Attempt> = items.map(|item| item.attempt).collect();
        let runner = Arc::clone(&self.lane.runner);
        self.spawn(async move {
            runner.release(&attempts).await;
            drop(turns);
        });
    }

    async fn drain(&mut self) {
        self.lane.pulse.end();
        self.release_waiting();
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.lane.settings.drain_timeout, finished).await.is_ok() {
            return;
        }
        self.tasks.shutdown().await;
        let model = self.lane.model.as_str();
        let rest = self.lane.runner.leases.of_model(self.lane.model);
        warn!(action = "drain_timed_out", model, released = rest.len());
        let settlements: Vec<_> = rest.iter().map(|claim| (*claim, Settlement::Release)).collect();
        match tokio::time::timeout(RELEASE_TIMEOUT, self.lane.runner.work.settle(&settlements)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(action = "release_failed", model, error = telemetry::chain(&error));
            }
            Err(_) => warn!(action = "release_failed", model, error = "Redis did not answer in time"),
        }
        for claim in rest {
            self.lane.runner.leases.remove(claim);
        }
    }
}
