//! What the live workers report.

use axum::body::Bytes;
use tepal_shared::{
    job::ModelName,
    queue::heartbeat::{BackendState, WorkerRecord, WorkerState},
};

use crate::snapshot::Workers;

/// Sums up the reports of the live workers. The backends are those of the default model.
pub(super) fn sum_up(mut records: Vec<WorkerRecord>, default: Option<ModelName>) -> Workers {
    records.sort_by_key(|record| record.silence);
    let mut workers = Workers { live: records.len(), ..Workers::default() };
    for record in records {
        // A worker of another version may report something else: it is alive, but its backend is unknown.
        let Ok(state) = serde_json::from_str::<WorkerState>(&record.state) else { continue };
        let has_default = default.is_none_or(|default| state.models.contains_key(default.as_str()));
        // A worker that serves only other models says nothing about the default model.
        if state.models.is_empty() || has_default {
            *workers.backends.entry(state.backend).or_default() |= state.backend_state == BackendState::Ok;
        }
        for (name, served) in state.models {
            let model = workers.models.entry(name).or_default();
            model.is_ok |= served.state == BackendState::Ok;
            model.backend = served.backend;
            model.descriptions.insert(served.description);
        }
        workers.partitions.extend((state.partitions > 0).then_some(state.partitions));
        workers.failed.extend(state.failed_models);
        workers.undescribed.extend(state.undescribed_models);
        let metadata = state.metadata.and_then(|metadata| serde_json::to_vec(&metadata).ok());
        workers.metadata = workers.metadata.or(metadata.map(Bytes::from));
    }
    // Another worker may have had an answer.
    workers.undescribed.retain(|name| !workers.models.contains_key(name));
    workers
}
