//! One signal that ends a run early, seen both by async tasks and by the pacing thread. The second Ctrl-C raises
//! it to "hurry": skip the drain too.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Running,
    Stopped,
    Hurried,
}

/// A cheap handle to the signal; every clone sees the same state.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    level: Arc<watch::Sender<Level>>,
    thread: Arc<(Mutex<bool>, Condvar)>,
}

impl Stop {
    /// A signal that has not been raised.
    pub(crate) fn new() -> Self {
        Self { level: Arc::new(watch::Sender::new(Level::Running)), thread: Arc::default() }
    }

    /// Ends the sending; raised once more, ends the draining too.
    pub(crate) fn raise(&self) {
        self.level.send_modify(|level| {
            *level = if *level == Level::Running { Level::Stopped } else { Level::Hurried };
        });
        *self.thread.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.thread.1.notify_all();
    }

    /// Was it raised at all?
    pub(crate) fn is_raised(&self) -> bool {
        *self.level.borrow() >= Level::Stopped
    }

    /// Returns once it was raised.
    pub(crate) async fn raised(&self) {
        self.reached(Level::Stopped).await;
    }

    /// Returns once it was raised twice.
    pub(crate) async fn hurried(&self) {
        self.reached(Level::Hurried).await;
    }

    async fn reached(&self, wanted: Level) {
        // The sender lives in `self`, so waiting cannot fail while this future is alive.
        let _ = self.level.subscribe().wait_for(|level| *level >= wanted).await;
    }

    /// Blocks the calling thread until `due`; false if the signal was raised first.
    pub(crate) fn sleep_until(&self, due: Instant) -> bool {
        let mut raised = self.thread.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if *raised || left.is_zero() {
                return !*raised;
            }
            raised = self.thread.1.wait_timeout(raised, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Raises `stop` at every Ctrl-C or SIGTERM, for as long as the run lasts.
pub(crate) async fn listen_for_signals(stop: Stop) {
    while interrupted().await.is_ok() {
        stop.raise();
    }
}

#[cfg(unix)]
async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn interrupted() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sleeping_thread_wakes_when_the_signal_is_raised() {
        let stop = Stop::new();
        let sleeper = stop.clone();
        let thread =
            std::thread::spawn(move || sleeper.sleep_until(Instant::now() + Duration::from_secs(600)));
        stop.raise();
        assert!(!thread.join().unwrap());
        assert!(stop.is_raised());
    }

    #[test]
    fn a_sleep_that_nothing_interrupts_ends_at_its_time() {
        let due = Instant::now() + Duration::from_millis(5);
        assert!(Stop::new().sleep_until(due));
        assert!(Instant::now() >= due);
    }
}
