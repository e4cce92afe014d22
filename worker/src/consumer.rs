//! Runs jobs when there is a place for them: takes some, turns them into batches, and starts each batch as soon as one
//! more may run. What it holds without running it is given back when the backend goes away or the shutdown begins.

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tepal_shared::{
    error::StoreError,
    job::Attempt,
    retry::Backoff,
    shutdown::Shutdown,
    store::{JobStore, Settlement},
    telemetry,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tracing::warn;

use crate::{
    attempt::Runner,
    batch::{MicroBatch, Plan},
    concurrency::Slot,
    config::Config,
    lease::Leases,
    liveness::{Pulse, Step},
    suspects::{Suspects, Turn},
    taker::Taker,
};

/// After SIGTERM, how long giving back the rest may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// One consumer of the group: a loop and the batches that it has running.
pub struct Consumer {
    name: String,
    store: JobStore,
    taker: Taker,
    runner: Arc<Runner>,
    suspects: Suspects,
    pulse: Pulse,
    places: Arc<Semaphore>,
    drain_timeout: Duration,
    /// The next job must run alone in the process.
    alone_next: bool,
    /// Batches in hand that do not run yet.
    waiting: VecDeque<(MicroBatch, Arc<Turn>)>,
    tasks: JoinSet<()>,
    /// Told when one of those has panicked.
    panicked: Arc<Notify>,
}

/// What a consumer holds. When the consumer has ended, however it did, others run it.
struct Held {
    leases: Leases,
    consumer: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.abandon(&self.consumer);
    }
}

/// All that it needs to run a batch.
struct Place {
    slot: Slot,
    _permit: OwnedSemaphorePermit,
}

impl Consumer {
    /// A consumer of that name.
    fn new(name: String, config: &Config, runner: Arc<Runner>, suspects: Suspects, pulse: Pulse) -> Self {
        let store = runner.store.clone();
        Self {
            taker: Taker::new(name.clone(), config, store.clone(), suspects.clone()),
            name,
            store,
            runner,
            suspects,
            pulse,
            places: Arc::new(Semaphore::new(config.max_in_flight)),
            drain_timeout: config.drain_timeout,
            alone_next: false,
            waiting: VecDeque::new(),
            tasks: JoinSet::new(),
            panicked: Arc::default(),
        }
    }

    /// Runs a consumer of that name until `shutdown` begins. One that panics, or whose batch does, ends early and leaves its
    /// jobs to others, as if its process had died: a bug must not keep a job for ever.
    pub async fn run_or_fail(
        name: String,
        config: Arc<Config>,
        runner: Arc<Runner>,
        suspects: Suspects,
        pulse: Pulse,
        shutdown: Shutdown,
    ) {
        let _held = Held { leases: runner.leases.clone(), consumer: name.clone() };
        let consumer = Self::new(name, &config, runner, suspects, pulse);
        let panicked = Arc::clone(&consumer.panicked);
        // Whatever the loop waits for. It may be cancelled here as a process may die anywhere.
        tokio::select! {
            () = panicked.notified() => {}
            () = consumer.run(shutdown) => {}
        }
    }

    /// Takes jobs until `shutdown` begins, then lets what runs finish, and gives back what does not.
    async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        while let Some((place, turn)) = shutdown.or(self.place()).await {
            self.pulse.step(Step::Work);
            let taken = match turn {
                Some(turn) => self.take(turn).await,
                None => Ok(()),
            };
            match self.waiting.pop_front() {
                Some((batch, turn)) => self.start(batch, turn, place),
                None => drop(place),
            }
            if self.taker.has_waited() {
                // A lone job comes first: the batch runs on this thread, and its result is sent ahead of the next take. With
                // a backlog the take is sent first, so that Redis works on it meanwhile.
                tokio::task::yield_now().await;
            }
            match taken {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let pause = backoff.next_pause();
                    // The connection itself logs a wrong topology, once.
                    if !matches!(error, StoreError::WrongTopology(_)) {
                        let retry_ms = pause.as_millis() as u64;
                        let error = telemetry::chain(&error);
                        warn!(action = "take_failed", consumer = self.name, error, retry_ms);
                    }
                    shutdown.or(tokio::time::sleep(pause)).await;
                }
            }
            while self.tasks.try_join_next().is_some() {}
        }
        self.drain().await;
    }

    /// Waits until the backend is there and one more batch may run; and, if no batch waits, for the turn to take jobs.
    ///
    /// The turn comes first, then the permit, then the slot: whoever waits for a turn holds nothing that a holder of one
    /// lacks, and batches that wait or run here already have theirs, so every holder of a slot comes to its end.
    async fn place(&mut self) -> (Place, Option<Turn>) {
        loop {
            if !self.runner.breaker.is_closed() {
                self.give_back_waiting();
                self.pulse.step(Step::WaitForBackend);
                self.runner.breaker.closed().await;
            }
            self.pulse.step(Step::WaitForPlace);
            let turn = match self.waiting.is_empty() {
                true => Some(self.suspects.turn(self.alone_next).await),
                false => None,
            };
            let place = tokio::select! {
                biased;
                place = self.free_place() => place,
                () = self.first_timeout() => {
                    self.fail_late();
                    continue;
                }
            };
            // The backend may have gone while we waited for the place.
            if let Some(place) = place.filter(|_| self.runner.breaker.is_closed()) {
                return (place, turn);
            }
        }
    }

    async fn free_place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(Place { slot: self.runner.concurrency.slot().await, _permit: permit })
    }

    /// Waits until the own time limit of a job ends whose batch does not run yet.
    async fn first_timeout(&self) {
        let left = self.waiting.iter().filter_map(|(batch, _)| self.runner.own_time_left(batch)).min();
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    }

    fn fail_late(&mut self) {
        let runner = Arc::clone(&self.runner);
        let is_late = |batch: &MicroBatch| runner.own_time_left(batch).is_some_and(|left| left.is_zero());
        let (late, waiting) = self.waiting.drain(..).partition(|(batch, _)| is_late(batch));
        let late: VecDeque<_> = late;
        self.waiting = waiting;
        self.spawn(async move {
            for (batch, turn) in late {
                runner.too_late(&batch).await;
                drop(turn);
            }
        });
    }

    /// Takes jobs and makes batches of them. Never cancelled: see [`Taker::next`].
    async fn take(&mut self, turn: Turn) -> Result<(), StoreError> {
        let attempts = self.taker.next().await?;
        let sorted = self.suspects.sort(attempts, &turn);
        let (runner, turn) = (Arc::clone(&self.runner), Arc::new(turn));
        runner.leases.hold(&self.name, &sorted.run);
        runner.leases.hold(&self.name, &sorted.give_back);
        self.alone_next = sorted.is_last_chance;

        let plan = Plan::new(&runner.model, sorted.run, runner.limits());
        let jobs = plan.batches.iter().map(|batch| batch.items.len()).sum();
        self.taker.note_rows(jobs, plan.batches.iter().map(MicroBatch::rows).sum());
        self.waiting.extend(plan.batches.into_iter().map(|batch| (batch, Arc::clone(&turn))));
        if !plan.unfit.is_empty() || !sorted.give_back.is_empty() {
            self.spawn(async move {
                runner.give_back(&sorted.give_back).await;
                runner.refuse(&plan.unfit).await;
                drop(turn);
            });
        }
        Ok(())
    }

    fn start(&mut self, batch: MicroBatch, turn: Arc<Turn>, mut place: Place) {
        place.slot.run();
        let runner = Arc::clone(&self.runner);
        self.spawn(async move {
            runner.run(batch, &mut place.slot).await;
            drop((turn, place));
        });
    }

    /// Runs it beside the loop.
    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let (panicked, running) = (Arc::clone(&self.panicked), self.pulse.batch());
        self.tasks.spawn(async move {
            let _running = running;
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                panicked.notify_one();
            }
        });
    }

    fn give_back_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (batches, turns): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        let items = batches.into_iter().flat_map(|batch| batch.items);
        let attempts: Vec<Attempt> = items.map(|item| item.attempt).collect();
        let runner = Arc::clone(&self.runner);
        self.spawn(async move {
            runner.give_back(&attempts).await;
            drop(turns);
        });
    }

    async fn drain(&mut self) {
        self.pulse.end();
        self.give_back_waiting();
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, finished).await.is_ok() {
            return;
        }
        self.tasks.shutdown().await;
        let rest = self.runner.leases.of(&self.name);
        warn!(action = "drain_timed_out", consumer = self.name, released = rest.len());
        let settlements: Vec<_> = rest.iter().map(|attempt| (attempt, Settlement::Release)).collect();
        match tokio::time::timeout(RELEASE_TIMEOUT, self.store.settle(&settlements)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(action = "release_failed", consumer = self.name, error = telemetry::chain(&error));
            }
            Err(_) => {
                warn!(action = "release_failed", consumer = self.name, error = "Redis did not answer in time")
            }
        }
        rest.iter().for_each(|attempt| {
            self.runner.leases.let_go(attempt);
        });
    }
}
