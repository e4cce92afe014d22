//! Stopping: one signal that every loop watches.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Tells every holder that the service is to stop. Clones share the signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    begun: watch::Receiver<bool>,
}

/// Starts the shutdown of all [`Shutdown`] handles made with it; dropping it does too.
#[derive(Debug)]
pub struct Trigger {
    begin: watch::Sender<bool>,
}

/// A trigger and the first handle of its signal.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (begin, begun) = watch::channel(false);
    (Trigger { begin }, Shutdown { begun })
}

impl Trigger {
    /// Begins the shutdown.
    pub fn begin(&self) {
        self.begin.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the shutdown has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow() || self.begun.has_changed().is_err()
    }

    /// Waits until the shutdown begins.
    pub async fn begun(&self) {
        let mut begun = self.begun.clone();
        // An error means that the trigger is gone, which begins the shutdown as well.
        let _ = begun.wait_for(|begun| *begun).await;
    }

    /// Runs `future` to its end, or gives `None` when the shutdown begins first; the future is then dropped.
    pub async fn or<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.begun() => None,
            value = future => Some(value),
        }
    }
}

/// A signal that begins at Ctrl-C or SIGTERM; needs a tokio runtime.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn on_signal() -> io::Result<Shutdown> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (trigger, shutdown) = channel();
    // If it panicked, the trigger would go with it, and the service would stop.
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        trigger.begin();
    });
    Ok(shutdown)
}
