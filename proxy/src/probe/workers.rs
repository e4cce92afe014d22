//! What the live workers report.

use axum::body::Bytes;
use tepal_shared::queue::heartbeat::{BackendState, WorkerRecord, WorkerState};

use crate::snapshot::Workers;

/// Sums up the reports of the live workers.
pub(super) fn sum_up(mut records: Vec<WorkerRecord>) -> Workers {
    records.sort_by_key(|record| record.silence);
    let mut workers = Workers { live: records.len(), ..Workers::default() };
    for record in records {
        // A worker of another version may report something else: it is alive, but its backend is unknown.
        let Ok(state) = serde_json::from_str::<WorkerState>(&record.state) else { continue };
        *workers.backends.entry(state.backend).or_default() |= state.backend_state == BackendState::Ok;
        let metadata = state.metadata.and_then(|metadata| serde_json::to_vec(&metadata).ok());
        workers.metadata = workers.metadata.or(metadata.map(Bytes::from));
    }
    workers
}
