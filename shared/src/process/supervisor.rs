//! Restarts background tasks that panic or end too early, and logs and counts the failures. Without its lease keeper a worker loses
//! its jobs, and without its probe a proxy reports an old state for ever.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::process::retry::Backoff;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After a run of this length, a failed task starts again with the first pause.
const STEADY: Duration = Duration::from_secs(60);

/// Number of failures of each task, by name. There is one map for the process.
static FAILURES: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Number of failures of each task of this process, by name.
#[must_use]
pub fn failures() -> BTreeMap<&'static str, u64> {
    counts().clone()
}

/// The tasks of a service. They are aborted when this is dropped.
#[derive(Debug)]
pub struct Tasks {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Tasks {
    /// Tasks that end when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), stop }
    }

    /// Spawns a task that runs until `stop` is cancelled. If it panics or returns earlier, it is started again. After the
    /// cancellation, it is started at most once more, to finish its work.
    pub fn keep<T>(
        &mut self,
        name: &'static str,
        mut start: impl FnMut(CancellationToken) -> T + Send + 'static,
    ) where
        T: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { supervise(name, Some(&stop), || start(stop.clone())).await });
    }

    /// Spawns a task that ends by itself. If it panics, it is started again.
    pub fn finish<T>(&mut self, name: &'static str, start: impl FnMut() -> T + Send + 'static)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(keep(name, start));
    }

    /// Waits until all tasks have ended.
    pub async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs a task that ends by itself. If it panics, it is started again.
pub async fn keep<T: Future<Output = ()>>(name: &'static str, start: impl FnMut() -> T) {
    supervise(name, None, start).await;
}

async fn supervise<T: Future<Output = ()>>(
    name: &'static str,
    stop: Option<&CancellationToken>,
    mut start: impl FnMut() -> T,
) {
    let has_stopped = || stop.is_some_and(CancellationToken::is_cancelled);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    counts().entry(name).or_default();
    loop {
        let (began, is_last) = (Instant::now(), has_stopped());
        // The state of the task is dropped with it. State that it shares must survive a panic.
        let ended = AssertUnwindSafe(async { start().await }).catch_unwind().await;
        if ended.is_ok() && (stop.is_none() || has_stopped()) {
            return;
        }
        *counts().entry(name).or_default() += 1;
        if began.elapsed() >= STEADY {
            backoff.reset();
        }
        let pause = backoff.next_pause();
        let (has_panicked, retry_ms) = (ended.is_err(), pause.as_millis() as u64);
        error!(action = "task_failed", task = name, has_panicked, retry_ms);
        match stop {
            Some(_) if is_last => return,
            Some(stop) => _ = stop.run_until_cancelled(sleep(pause)).await,
            None => sleep(pause).await,
        }
    }
}

fn counts() -> MutexGuard<'static, BTreeMap<&'static str, u64>> {
    // A panic cannot leave the map half-changed.
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::panic, reason = "tests")]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Longer than all pauses together.
    const LONG: Duration = Duration::from_secs(3600);

    fn failed(name: &str) -> u64 {
        failures()[name]
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_started_again_until_it_returns() {
        let starts = Cell::new(0);
        keep("panics twice", || {
            starts.set(starts.get() + 1);
            let number = starts.get();
            async move { assert!(number > 2, "a bug of the test's own") }
        })
        .await;
        assert_eq!((starts.get(), failed("panics twice")), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_whose_start_panics_is_started_again() {
        let starts = Cell::new(0);
        keep("panics at its start", || {
            starts.set(starts.get() + 1);
            assert!(starts.get() > 1, "a bug of the test's own");
            async {}
        })
        .await;
        assert_eq!((starts.get(), failed("panics at its start")), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_before_it_should_is_started_again() {
        let stop = CancellationToken::new();
        let starts = Cell::new(0);
        supervise("ends early", Some(&stop), || {
            starts.set(starts.get() + 1);
            if starts.get() == 3 {
                stop.cancel();
            }
            async {}
        })
        .await;
        assert_eq!((starts.get(), failed("ends early")), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_again_and_again_is_started_with_growing_pauses() {
        let starts = Cell::new(0);
        let panics = keep("always panics", || {
            starts.set(starts.get() + 1);
            async { panic!("a bug of the test's own") }
        });
        assert!(tokio::time::timeout(LONG, panics).await.is_err());
        // The longest pause is 5 s.
        assert!((700..2000).contains(&starts.get()), "{} starts in an hour", starts.get());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_during_the_shutdown_gets_one_more_start() {
        let stop = CancellationToken::new();
        let starts = Cell::new(0);
        supervise("panics at the end", Some(&stop), || {
            starts.set(starts.get() + 1);
            stop.cancel();
            async { panic!("a bug of the test's own") }
        })
        .await;
        assert_eq!((starts.get(), failed("panics at the end")), (2, 2));
    }
}
