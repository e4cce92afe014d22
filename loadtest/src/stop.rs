//! The stop signal of a run. The first Ctrl-C ends the sending; the second ends the drain too.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// A sleeping thread checks the signal this often.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// A cheap handle to the signal. All clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    sending: CancellationToken,
    draining: CancellationToken,
}

impl Stop {
    /// Ends the sending. The second call ends the drain.
    pub(crate) fn raise(&self) {
        if self.is_raised() {
            self.draining.cancel();
        }
        self.sending.cancel();
    }

    /// Whether the sending must end.
    pub(crate) fn is_raised(&self) -> bool {
        self.sending.is_cancelled()
    }

    /// Waits until the sending must end.
    pub(crate) async fn raised(&self) {
        self.sending.cancelled().await;
    }

    /// Waits until the drain must end.
    pub(crate) async fn raised_twice(&self) {
        self.draining.cancelled().await;
    }

    /// Blocks the calling thread until `due`. Returns false if the signal came first.
    pub(crate) fn sleep_until(&self, due: Instant) -> bool {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if self.is_raised() || left.is_zero() {
                return !self.is_raised();
            }
            std::thread::sleep(left.min(CHECK_INTERVAL));
        }
    }
}

/// Raises `stop` at every Ctrl-C and SIGTERM.
pub(crate) async fn listen_for_signals(stop: Stop) {
    while signalled().await.is_ok() {
        stop.raise();
    }
}

#[cfg(unix)]
async fn signalled() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn signalled() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_thread_wakes_when_the_signal_is_raised() {
        let stop = Stop::default();
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
        assert!(Stop::default().sleep_until(due));
        assert!(Instant::now() >= due);
    }

    #[tokio::test]
    async fn only_the_second_signal_ends_the_drain() {
        let stop = Stop::default();
        stop.raise();
        stop.raised().await;
        assert!(!stop.draining.is_cancelled());
        stop.raise();
        stop.raised_twice().await;
    }
}
