//! What the probe saw last: the state of Redis and of the workers.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::body::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use tepal_shared::{job::ModelName, queue::loss::Loss};

/// The state at the last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// `None` when Redis did not answer. Then the state of the workers is unknown, too.
    pub(crate) workers: Option<Workers>,
    /// What is wrong with a Redis that answers.
    pub(crate) trouble: Option<Trouble>,
    /// The partitions that cannot be reached, although others can.
    pub(crate) unreachable: Vec<u8>,
    /// When a loss of jobs was last noticed, and its extent.
    pub(crate) loss: Option<(SystemTime, Loss)>,
    /// Seconds until a full queue may have room again, if that is known.
    pub(crate) full_retry_after: Option<u64>,
    /// The unfinished jobs of each model.
    pub(crate) queues: Arc<BTreeMap<ModelName, ModelQueue>>,
}

impl Snapshot {
    /// Whether a live worker can call the model.
    pub(crate) fn is_ready(&self, model: &str) -> bool {
        let workers = self.workers.as_ref();
        workers.and_then(|workers| workers.models.get(model)).is_some_and(|state| state.is_ok)
    }

    /// Whether no live worker serves the model. `false` while that is unknown.
    pub(crate) fn is_unserved(&self, model: &str) -> bool {
        self.workers.as_ref().is_some_and(|workers| !workers.models.contains_key(model))
    }
}

/// The unfinished jobs of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelQueue {
    pub(crate) waiting: u64,
    /// The waiting ones in the order of [`Priority::ALL`](tepal_shared::job::Priority::ALL).
    pub(crate) by_priority: [u64; 3],
    /// Those that wait for their next attempt.
    pub(crate) waiting_retry: u64,
    pub(crate) running: u64,
    /// Age of the oldest waiting job.
    pub(crate) oldest: Option<Duration>,
    pub(crate) dead_letters: u64,
}

/// A model as the live workers report it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelState {
    /// Whether a live worker can call it.
    pub(crate) is_ok: bool,
    /// The kind of its backend.
    pub(crate) backend: String,
    /// The descriptions that live workers have, by their hashes.
    pub(crate) descriptions: BTreeSet<String>,
}

/// What is wrong with a Redis that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It rejects all writes, for this reason.
    ReadOnly(String),
    /// It may evict accepted jobs when it runs out of memory.
    Misconfigured,
    /// It is at its memory limit and rejects new jobs. Accepted jobs continue.
    Full,
}

impl Trouble {
    /// The state of Redis while it lasts.
    pub(crate) fn state(&self) -> ComponentState {
        match self {
            Self::ReadOnly(_) => ComponentState::ReadOnly,
            Self::Misconfigured => ComponentState::Misconfigured,
            Self::Full => ComponentState::Full,
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::ReadOnly(reason) => reason,
            Self::Misconfigured => "maxmemory-policy must be noeviction",
            Self::Full => "Redis is at its memory limit and rejects new jobs",
        }
    }
}

/// The state of a component in /health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ComponentState {
    Ok,
    Down,
    ReadOnly,
    Misconfigured,
    Full,
    WrongTopology,
    /// There is no worker, and none is expected.
    None,
    /// No live worker serves the model, and none is expected to.
    Unserved,
}

impl ComponentState {
    const ALL: [Self; 8] = [
        Self::Ok,
        Self::Down,
        Self::ReadOnly,
        Self::Misconfigured,
        Self::Full,
        Self::WrongTopology,
        Self::None,
        Self::Unserved,
    ];

    /// The word in answers and in the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Down => "down",
            Self::ReadOnly => "read_only",
            Self::Misconfigured => "misconfigured",
            Self::Full => "full",
            Self::WrongTopology => "wrong_topology",
            Self::None => "none",
            Self::Unserved => "unserved",
        }
    }

    /// Whether the service does its work in this state.
    pub(crate) fn is_healthy(self) -> bool {
        matches!(self, Self::Ok | Self::None | Self::Unserved)
    }
}

impl Serialize for ComponentState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for ComponentState {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ComponentState".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Self::ALL.map(Self::as_str)})
    }
}

/// What the live workers report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workers {
    /// Number of live workers.
    pub(crate) live: usize,
    /// Each backend by its name, and whether a live worker can call it.
    pub(crate) backends: BTreeMap<String, bool>,
    /// Each model that a live worker serves, by its name.
    pub(crate) models: BTreeMap<String, ModelState>,
    /// Models whose present files a live worker cannot load. It may serve the earlier ones.
    pub(crate) failed: BTreeSet<String>,
    /// Models that no live worker serves yet, because their server has not described them.
    pub(crate) undescribed: BTreeSet<String>,
    /// Numbers of partitions in which live workers look for jobs.
    pub(crate) partitions: BTreeSet<u16>,
    /// The model's metadata from the worker with the latest heartbeat, JSON.
    pub(crate) metadata: Option<Bytes>,
}
