//! Computes the long calls of the models in this process: no more at a time than there are cores, on threads of low priority. So they
//! delay neither the short calls of other models nor what else the worker does.

use std::{
    io,
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use tepal_shared::process::{priority, telemetry};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::warn;

use super::BackendError;

/// A call that takes about so long at most need not wait for longer ones.
const BRIEF: Duration = Duration::from_millis(10);

/// That of this process.
static OF_PROCESS: LazyLock<Arc<Compute>> =
    LazyLock::new(|| Arc::new(Compute::new(thread::available_parallelism().map_or(1, usize::from))));

/// What computes, shared by models.
pub(super) struct Compute {
    cores: usize,
    /// One for each call that may compute now.
    turns: Arc<Semaphore>,
    /// One more for a brief call, which computes with the usual priority.
    brief_turn: Arc<Semaphore>,
    /// Has the threads. `None` if the system refused it: then the calls compute with the usual priority.
    threads: Option<Runtime>,
}

/// The calls of one model. They wait for each other first, so that models take turns.
pub(super) struct Calls {
    compute: Arc<Compute>,
    turns: Arc<Semaphore>,
}

/// The right to compute, until it is dropped.
struct Turn {
    is_brief: bool,
    _permit: OwnedSemaphorePermit,
}

impl Compute {
    /// That of this process.
    pub(super) fn of_process() -> Arc<Self> {
        Arc::clone(&OF_PROCESS)
    }

    /// Computes on so many threads.
    pub(super) fn new(cores: usize) -> Self {
        let threads = threads(cores);
        let threads = threads
            .inspect_err(|error| warn!(action = "compute_threads_failed", error = telemetry::chain(error)));
        Self {
            cores,
            turns: Arc::new(Semaphore::new(cores)),
            brief_turn: Arc::new(Semaphore::new(1)),
            threads: threads.ok(),
        }
    }

    /// The calls of another model.
    pub(super) fn calls(self: &Arc<Self>) -> Calls {
        Calls { compute: Arc::clone(self), turns: Arc::new(Semaphore::new(self.cores)) }
    }

    /// Waits for a turn of a call that is expected to take so long.
    async fn turn(&self, expected: Duration) -> Result<Turn, BackendError> {
        let (permit, is_brief) = tokio::select! {
            biased;
            permit = Arc::clone(&self.brief_turn).acquire_owned(), if expected <= BRIEF => (permit, true),
            permit = Arc::clone(&self.turns).acquire_owned() => (permit, false),
        };
        let permit = permit.map_err(BackendError::inference)?;
        Ok(Turn { is_brief, _permit: permit })
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Calls {
    /// Runs a call that is expected to take so long. It goes on if nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        expected: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BackendError> {
        let own = Arc::clone(&self.turns).acquire_owned().await.map_err(BackendError::inference)?;
        let turn = self.compute.turn(expected).await?;
        let threads = self.compute.threads.as_ref().filter(|_| !turn.is_brief);
        let work = move || {
            let done = work();
            // Whether or not anybody waits for the outcome, the next call can begin.
            drop((turn, own));
            done
        };
        let computed = match threads {
            Some(threads) => threads.spawn_blocking(work),
            None => tokio::task::spawn_blocking(work),
        };
        computed.await.map_err(BackendError::inference)
    }
}

/// A runtime that has only these threads, and drives nothing.
fn threads(most: usize) -> io::Result<Runtime> {
    Builder::new_current_thread()
        .max_blocking_threads(most.max(1))
        .thread_name("compute")
        .on_thread_start(lower_priority)
        .build()
}

/// Lowers the priority of the calling thread, and of the threads that it starts.
pub(super) fn lower_priority() {
    if let Err(error) = priority::lower() {
        warn!(action = "compute_threads_failed", error = telemetry::chain(&error));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::mpsc;

    use futures_util::{
        FutureExt as _,
        future::{join, join_all},
    };

    use super::*;

    const LONG: Duration = Duration::from_millis(50);
    const SHORT: Duration = Duration::from_millis(5);

    /// Begins a call, which ends when the sender is dropped.
    async fn begin(
        calls: &Arc<Calls>,
        expected: Duration,
    ) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
        let (calls, (end, ended)) = (Arc::clone(calls), mpsc::channel::<()>());
        let (begun, begins) = tokio::sync::oneshot::channel();
        let call = tokio::spawn(async move {
            let work = move || {
                begun.send(()).unwrap();
                assert!(ended.recv().is_err());
            };
            calls.run(expected, work).await.unwrap();
        });
        tokio::time::timeout(Duration::from_secs(30), begins).await.unwrap().unwrap();
        (end, call)
    }

    #[tokio::test]
    async fn the_long_calls_of_all_models_together_are_bounded_by_the_cores_and_models_take_turns() {
        let compute = Arc::new(Compute::new(2));
        let [one, other] = [(); 2].map(|()| Arc::new(compute.calls()));
        let (first, second) = (begin(&one, LONG).await, begin(&one, LONG).await);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let waiting = |calls: &Arc<Calls>, name: &'static str| {
            let (calls, order) = (Arc::clone(calls), Arc::clone(&order));
            async move { calls.run(LONG, move || order.lock().unwrap().push(name)).await }
        };
        let ours = join_all([(); 5].map(|()| waiting(&one, "one")));
        let mut all = Box::pin(join(ours, waiting(&other, "other")));
        assert!((&mut all).now_or_never().is_none(), "both cores compute");

        drop(first.0);
        first.1.await.unwrap();
        let (ours, theirs) = all.await;

        assert!(theirs.is_ok() && ours.iter().all(Result::is_ok));
        assert_eq!(*order.lock().unwrap(), ["other", "one", "one", "one", "one", "one"]);
        drop(second.0);
        second.1.await.unwrap();
    }

    #[tokio::test]
    async fn a_brief_call_waits_for_no_long_one_but_for_another_brief_one() {
        let compute = Arc::new(Compute::new(1));
        let [one, other] = [(); 2].map(|()| Arc::new(compute.calls()));
        let long = begin(&one, LONG).await;
        let brief = begin(&other, SHORT).await;
        let third = Arc::new(compute.calls());
        let mut waiting = Box::pin(third.run(SHORT, || ()));
        assert!((&mut waiting).now_or_never().is_none());
        drop(long.0);
        waiting.await.unwrap();
        drop(brief.0);
        brief.1.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_keeps_its_turn() {
        let compute = Arc::new(Compute::new(1));
        let calls = Arc::new(compute.calls());
        let (end, call) = begin(&calls, LONG).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        let mut next = Box::pin(calls.run(LONG, || ()));
        assert!((&mut next).now_or_never().is_none());
        drop(end);
        next.await.unwrap();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn long_calls_have_a_lower_priority_than_everything_else() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let calls = Arc::new(Compute::new(1)).calls();
        let usual = own();
        assert_eq!(calls.run(LONG, own).await.unwrap(), (usual + priority::NICENESS).min(19));
        assert_eq!(calls.run(SHORT, own).await.unwrap(), usual);
        assert_eq!(own(), usual);
    }
}
