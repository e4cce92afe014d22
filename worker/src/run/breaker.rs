//! The breaker: no jobs are claimed while the backend is unreachable. It probes the backend with growing pauses; a probe
//! never uses a job. The breaker starts open, so nothing is claimed before the model answers.
//!
//! A backend may pass its probe and still refuse every call. So the pauses keep growing until a call has succeeded, or
//! nothing has failed for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tepal_shared::{
    job::ModelName,
    process::{retry::Backoff, telemetry},
};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    backend::{Backend, BackendError, Verdict},
    metrics,
    run::{sample::Sample, vitals::Vitals},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a backend that answers is probed, so that an idle worker notices an outage.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The state of the backend, as far as known.
#[derive(Clone, Debug, PartialEq)]
pub enum BreakerState {
    /// Jobs may be claimed.
    Closed {
        /// The model's metadata as TensorFlow Serving's REST API prints it.
        metadata: serde_json::Value,
    },
    /// No jobs are claimed.
    Open {
        /// Why, for the log and the operator.
        reason: String,
    },
}

/// Shared knowledge of whether the backend can be called.
#[derive(Clone, Debug)]
pub struct Breaker {
    model: ModelName,
    state: Arc<watch::Sender<BreakerState>>,
    /// Notified when the state changes.
    changed: Arc<Notify>,
    /// Whether a call has succeeded since the breaker last opened.
    has_succeeded: Arc<AtomicBool>,
    /// Whether a probe is not enough: the model must answer its sample.
    needs_sample: Arc<AtomicBool>,
    /// When a probe last showed that the backend had outlived a broken connection.
    outlived_at: Arc<Mutex<Instant>>,
    vitals: Vitals,
}

impl Breaker {
    /// An open breaker: the backend has not answered yet. `changed` is notified when its state changes.
    #[must_use]
    pub fn new(model: ModelName, changed: Arc<Notify>) -> Self {
        let (state, _) = watch::channel(BreakerState::Open { reason: "not probed yet".to_owned() });
        metrics::breaker_open(model, true);
        Self {
            model,
            state: Arc::new(state),
            changed,
            has_succeeded: Arc::default(),
            needs_sample: Arc::default(),
            outlived_at: Arc::new(Mutex::new(Instant::now())),
            vitals: Vitals::default(),
        }
    }

    /// The signs of life from calls.
    #[must_use]
    pub fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state.borrow().clone()
    }

    /// Whether jobs may be claimed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.state.borrow(), BreakerState::Closed { .. })
    }

    /// Waits until jobs may be claimed.
    pub async fn closed(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|state| matches!(state, BreakerState::Closed { .. })).await;
    }

    /// Waits until no jobs may be claimed.
    pub async fn opened(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| matches!(state, BreakerState::Open { .. })).await;
    }

    /// A call got its answer.
    pub fn succeeded(&self) {
        self.vitals.succeeded();
        self.has_succeeded.store(true, Ordering::Relaxed);
    }

    /// A call found the backend unreachable.
    pub fn open(&self, error: &BackendError) {
        let opened = self.state.send_if_modified(|state| {
            let was_closed = matches!(state, BreakerState::Closed { .. });
            if was_closed {
                *state = BreakerState::Open { reason: error.to_string() };
            }
            was_closed
        });
        if opened {
            self.changed.notify_one();
            metrics::breaker_open(self.model, true);
            warn!(action = "backend_down", model = self.model.as_str(), error = telemetry::chain(error));
        }
    }

    /// The backend refuses calls although its probe may succeed: it must answer the model's sample before the breaker
    /// closes.
    pub fn open_until_sample(&self, error: &BackendError) {
        self.needs_sample.store(true, Ordering::Relaxed);
        self.open(error);
    }

    /// A connection broke during a call that started at this time. A backend that served before and answers a probe at once
    /// has not stopped: servers close old connections, sometimes with a call on them.
    pub async fn broken(&self, error: &BackendError, began: Instant, backend: &dyn Backend) {
        let mut outlived_at = self.outlived_at.lock().await;
        if *outlived_at >= began {
            return;
        }
        let has_served = self.vitals.has_succeeded_since(*outlived_at);
        if has_served && self.is_closed() && backend.probe().await.is_ok() {
            *outlived_at = Instant::now();
        } else {
            self.open(error);
        }
    }

    fn close(&self, metadata: serde_json::Value) {
        let closed = self.state.send_replace(BreakerState::Closed { metadata });
        if let BreakerState::Open { reason } = closed {
            self.changed.notify_one();
            metrics::breaker_open(self.model, false);
            info!(action = "backend_up", model = self.model.as_str(), was = reason);
        }
    }

    /// Probes the backend until `shutdown` begins.
    pub async fn run(self, backend: Arc<dyn Backend>, sample: Sample, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let began = Instant::now();
            let probed = self.probe(backend.as_ref(), &sample).await;
            let pause = async {
                match probed {
                    Ok(metadata) => {
                        self.close(metadata);
                        sample.try_derived().await;
                        self.pause_while_closed(&mut backoff).await;
                    }
                    Err(error) if self.is_busy(&error, began) => {
                        debug!(
                            action = "probe_waits",
                            model = self.model.as_str(),
                            error = telemetry::chain(&error)
                        );
                        self.pause_while_closed(&mut backoff).await;
                    }
                    Err(error) => {
                        self.note_failed_probe(&error);
                        tokio::time::sleep(backoff.next_pause()).await;
                    }
                }
            };
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    async fn probe(&self, backend: &dyn Backend, sample: &Sample) -> Result<serde_json::Value, BackendError> {
        let metadata = backend.probe().await?;
        if self.needs_sample.load(Ordering::Relaxed) {
            match sample.ask().await {
                Err(error) if !sample.is_trial_due() => return Err(error),
                _ => self.needs_sample.store(false, Ordering::Relaxed),
            }
        }
        Ok(metadata)
    }

    /// Whether a backend that served before is only too busy for the probe.
    fn is_busy(&self, error: &BackendError, began: Instant) -> bool {
        let lives = match error.verdict {
            Verdict::Full | Verdict::Overloaded => true,
            Verdict::Busy => self.vitals.is_serving(),
            Verdict::Silent => self.vitals.has_lived_since(began),
            _ => false,
        };
        lives && self.is_closed()
    }

    /// A failed probe opens the breaker. If it is already open, only the reason may change.
    fn note_failed_probe(&self, error: &BackendError) {
        self.open(error);
        let has_changed = self.state.send_if_modified(|state| {
            let latest = BreakerState::Open { reason: error.to_string() };
            let changed = *state != latest;
            if changed {
                warn!(action = "backend_down", model = self.model.as_str(), error = telemetry::chain(error));
                *state = latest;
            }
            changed
        });
        if has_changed {
            self.changed.notify_one();
        }
    }

    /// Waits for the next probe; when a call opens the breaker, for the first probe after that.
    async fn pause_while_closed(&self, backoff: &mut Backoff) {
        let mut state = self.state.subscribe();
        let opened = state.wait_for(|state| matches!(state, BreakerState::Open { .. }));
        let is_quiet = tokio::time::timeout(CHECK_INTERVAL, opened).await.is_err();
        if self.has_succeeded.swap(false, Ordering::Relaxed) || is_quiet {
            backoff.reset();
        }
        if !is_quiet {
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}
