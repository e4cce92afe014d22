//! Asks a model server about a model that its folder does not describe: until it answers, and then again and again, because the
//! server may get another version of the model. Never opens a backend.

use std::{sync::Arc, time::Duration};

use tepal_shared::{
    job::ModelName,
    model::repository::{Interface, Undescribed},
    process::{retry::Backoff, telemetry},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::backend::{BackendError, ServedInterface};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often the server is asked. As often as the breaker probes it.
const INTERVAL: Duration = Duration::from_secs(5);

/// What the server says of a model. It is new.
#[derive(Debug)]
pub(super) struct Described {
    /// The model.
    pub(super) model: ModelName,
    /// What was asked about.
    pub(super) asked: Undescribed,
    /// The answer.
    pub(super) interface: Interface,
}

/// Asks about one model. Clones start anew.
#[derive(Clone)]
pub(super) struct Describer {
    pub(super) model: ModelName,
    pub(super) asked: Undescribed,
    /// Where to ask.
    pub(super) server: Arc<ServedInterface>,
    /// Where new answers go.
    pub(super) described: mpsc::Sender<Described>,
}

impl Describer {
    /// Asks until `shutdown` begins.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut pauses = Backoff::new(FIRST_PAUSE, INTERVAL);
        let (mut last, mut reported) = (None, None);
        loop {
            let Some(answer) = shutdown.run_until_cancelled(self.server.ask()).await else { return };
            let pause = match answer {
                Ok(interface) => {
                    if last.as_ref() != Some(&interface) {
                        self.send(interface.clone()).await;
                        last = Some(interface);
                    }
                    INTERVAL
                }
                Err(error) if last.is_some() => {
                    // The breaker reports a server that is away.
                    debug!(action = "model_undescribed", model = %self.model, error = telemetry::chain(&error));
                    INTERVAL
                }
                Err(error) => {
                    self.report(&error, &mut reported);
                    pauses.next_pause()
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn send(&self, interface: Interface) {
        let described = Described { model: self.model, asked: self.asked.clone(), interface };
        // The lanes receive until the worker stops.
        let _ = self.described.send(described).await;
    }

    /// One line for each reason, not for each try.
    fn report(&self, error: &BackendError, reported: &mut Option<String>) {
        if reported.as_ref() != Some(&error.message) {
            *reported = Some(error.message.clone());
            warn!(action = "model_undescribed", model = %self.model, error = telemetry::chain(error));
        }
    }
}
