//! How workers serve a model: the table `[serving]` of `model.toml`. What it leaves out comes from the settings of the worker.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use serde::Deserialize;

/// The backend of opaque models, as in `MODEL_BACKEND`.
pub const HTTP: &str = "http";
/// No model call and no pause is longer. It is the limit of the worker's settings, too.
const LONGEST_MS: u64 = 3_600_000;

/// What `model.toml` says of serving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// What runs the model, as in `MODEL_BACKEND`.
    pub backend: Option<String>,
    /// The model's name in the model server, if it is not that of the folder.
    pub served_name: Option<String>,
    /// Its share of a worker's slots: a model of weight 2 gets twice the backend time of one of weight 1 while both have jobs.
    pub weight: Option<NonZeroU32>,
    /// Most batches at a time in a worker, at most its slots.
    pub max_in_flight: Option<NonZeroUsize>,
    /// Longest model call, ms.
    inference_timeout_ms: Option<NonZeroU64>,
    /// Retries after a failed attempt.
    pub max_retries: Option<u64>,
    /// Largest result, bytes of JSON.
    pub max_result_bytes: Option<NonZeroUsize>,
    /// How long a job is kept after its end, s.
    result_ttl_seconds: Option<NonZeroU32>,
}

impl Serving {
    /// The name by which a model server knows the model `name`.
    #[must_use]
    pub fn name_on_server<'a>(&'a self, name: &'a str) -> &'a str {
        self.served_name.as_deref().unwrap_or(name)
    }

    /// Longest model call.
    #[must_use]
    pub fn inference_timeout(&self) -> Option<Duration> {
        self.inference_timeout_ms.map(|limit| Duration::from_millis(limit.get().min(LONGEST_MS)))
    }

    /// How long a job is kept after its end.
    #[must_use]
    pub fn result_ttl(&self) -> Option<Duration> {
        self.result_ttl_seconds.map(|ttl| Duration::from_secs(ttl.get().into()))
    }
}
