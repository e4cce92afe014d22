//! Stops the taking of jobs while the backend is not there. The backend is probed with growing pauses and never costs
//! a job; the breaker starts open, so that nothing is taken before the model answers.
//!
//! A backend may pass its probe and yet refuse every call. The pauses therefore go on growing until a call has
//! succeeded, or nothing has failed for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tepal_shared::{retry::Backoff, shutdown::Shutdown};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    backend::{Backend, BackendError},
    metrics,
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a backend that answers is probed, so that an idle worker notices that it went away.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What is known of the backend.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Jobs may be taken.
    Closed {
        /// The model's metadata as TensorFlow Serving's REST API prints it.
        metadata: serde_json::Value,
    },
    /// No jobs are taken.
    Open {
        /// Why, for the log and the operator.
        reason: String,
    },
}

/// Shared knowledge of whether the backend can be called.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: Arc<watch::Sender<State>>,
    /// Whether a call succeeded since the breaker opened last.
    has_succeeded: Arc<AtomicBool>,
}

impl Breaker {
    /// An open breaker: the backend has not answered yet.
    #[must_use]
    pub fn new() -> Self {
        let (state, _) = watch::channel(State::Open { reason: "not probed yet".to_owned() });
        metrics::breaker_open(true);
        Self { state: Arc::new(state), has_succeeded: Arc::default() }
    }

    /// Follows the state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Whether jobs may be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.state.borrow(), State::Closed { .. })
    }

    /// Waits until jobs may be taken.
    pub async fn closed(&self) {
        let mut state = self.watch();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|state| matches!(state, State::Closed { .. })).await;
    }

    /// A call got its answer.
    pub fn succeeded(&self) {
        self.has_succeeded.store(true, Ordering::Relaxed);
    }

    /// A call found the backend not there.
    pub fn open(&self, error: &BackendError) {
        let opened = self.state.send_if_modified(|state| {
            let was_closed = matches!(state, State::Closed { .. });
            if was_closed {
                *state = State::Open { reason: error.to_string() };
            }
            was_closed
        });
        if opened {
            metrics::breaker_open(true);
            warn!(action = "backend_down", %error);
        }
    }

    fn close(&self, metadata: serde_json::Value) {
        let closed = self.state.send_replace(State::Closed { metadata });
        if let State::Open { reason } = closed {
            metrics::breaker_open(false);
            info!(action = "backend_up", was = reason);
        }
    }

    /// Probes the backend until `shutdown` begins.
    pub async fn run(self, backend: Arc<dyn Backend>, shutdown: Shutdown) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let probed = backend.probe().await;
            let pause = async {
                match probed {
                    Ok(metadata) => {
                        self.close(metadata);
                        self.pause_while_closed(&mut backoff).await;
                    }
                    Err(error) => {
                        self.note_failed_probe(&error);
                        tokio::time::sleep(backoff.next_pause()).await;
                    }
                }
            };
            if shutdown.or(pause).await.is_none() {
                return;
            }
        }
    }

    /// A failed probe opens the breaker; if it is open already, only the reason may be new.
    fn note_failed_probe(&self, error: &BackendError) {
        self.open(error);
        self.state.send_if_modified(|state| {
            let latest = State::Open { reason: error.to_string() };
            let changed = *state != latest;
            if changed {
                warn!(action = "backend_down", %error);
                *state = latest;
            }
            changed
        });
    }

    /// Waits for the next check, or, when a call opens the breaker, for the first probe after that.
    async fn pause_while_closed(&self, backoff: &mut Backoff) {
        let mut state = self.watch();
        let opened = state.wait_for(|state| matches!(state, State::Open { .. }));
        let is_quiet = tokio::time::timeout(CHECK_INTERVAL, opened).await.is_err();
        if self.has_succeeded.swap(false, Ordering::Relaxed) || is_quiet {
            backoff.reset();
        }
        if !is_quiet {
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}
