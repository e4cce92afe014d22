//! What a claim found beside jobs to run.

use tepal_shared::{
    job::Delivery,
    queue::work::{EndedJob, Granted},
};
use tracing::{info, warn};

use crate::metrics;

/// Counts and logs everything that a claim found. Returns the granted jobs.
pub(super) fn record(granted: Granted) -> Vec<Delivery> {
    metrics::granted(&granted);
    for EndedJob { job_id, code, model } in &granted.ended {
        warn!(action = "prediction_failed", %job_id, code, model = model.as_str());
    }
    if granted.groups_created > 0 {
        info!(action = "groups_created", count = granted.groups_created);
    }
    let lapsed = granted.reclaimed.len();
    if lapsed > 0 || granted.stale > 0 {
        info!(action = "entries_reclaimed", lapsed, stale = granted.stale);
    }
    granted.deliveries
}
