//! Whether this worker runs jobs, for /readyz. Unlike liveness, it depends on Redis and on the backends: a rollout waits for
//! a worker that cannot work, but nothing restarts it.

use std::sync::{Arc, OnceLock};

use tepal_shared::queue::{error::StoreError, link::Redis};
use tokio_util::sync::CancellationToken;

use crate::lanes::Served;

/// Clones share it.
#[derive(Clone, Default)]
pub struct Readiness {
    started: Arc<OnceLock<Started>>,
}

/// What a worker needs to run jobs.
pub(crate) struct Started {
    pub(crate) redis: Redis,
    pub(crate) served: Served,
    pub(crate) shutdown: CancellationToken,
}

impl Readiness {
    /// The models are loaded. Only the first call counts.
    pub(crate) fn started(&self, parts: Started) {
        let _ = self.started.set(parts);
    }

    /// A sentence about why the worker runs no jobs; `None` if it does.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        match self.started.get() {
            Some(started) => started.missing(),
            None => Some("The models are being loaded".to_owned()),
        }
    }
}

impl Started {
    fn missing(&self) -> Option<String> {
        if self.shutdown.is_cancelled() {
            return Some("The worker is stopping".to_owned());
        }
        match self.redis.down() {
            Some(StoreError::WrongTopology(wrong)) => return Some(wrong.to_string()),
            Some(_) => return Some("Redis does not answer, or is a replica".to_owned()),
            None => {}
        }
        let runners = self.served.runners();
        if runners.iter().any(|runner| runner.breaker.is_closed()) {
            return None;
        }
        let names: Vec<_> = runners.iter().map(|runner| runner.name.as_str()).collect();
        Some(match names.is_empty() {
            true => "The worker serves no model".to_owned(),
            false => format!("No model answers: {}", names.join(", ")),
        })
    }
}
