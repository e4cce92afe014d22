//! The metrics of jobs, by model. Only names of models that somebody configured become labels. A name that a client invents does not: a
//! refusal without a known model counts under [`UNKNOWN`].

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use metrics::{Counter, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusRecorder;
use tepal_shared::job::{ModelName, Priority};

use super::names::{CANCELLED, MODEL_OUTSTANDING, REPEATED, REQUEUED, SUBMITTED};

/// The label of refusals whose model is not known. No model can have this name.
pub(super) const UNKNOWN: &str = "_unknown";

/// The counters of each model. They are kept, because to find one by its labels costs allocations.
#[derive(Default)]
pub(super) struct JobMetrics {
    by_model: RwLock<HashMap<ModelName, JobCounters>>,
}

/// The counters of one model.
pub(super) struct JobCounters {
    /// In the order of [`Priority::ALL`].
    submitted: [Counter; 3],
    pub(super) repeated: Counter,
    pub(super) requeued: Counter,
    pub(super) cancelled: Counter,
}

impl JobMetrics {
    /// Gives the series of a model their first values.
    pub(super) fn add(&self, recorder: &PrometheusRecorder, model: ModelName) {
        let known = self.by_model.read().unwrap_or_else(PoisonError::into_inner).contains_key(&model);
        if !known {
            let mut by_model = self.by_model.write().unwrap_or_else(PoisonError::into_inner);
            by_model.entry(model).or_insert_with(|| JobCounters::new(recorder, model));
        }
    }

    /// Counts one job of a model.
    pub(super) fn count(
        &self,
        recorder: &PrometheusRecorder,
        model: ModelName,
        counter: impl Fn(&JobCounters) -> &Counter,
    ) {
        let count = || {
            let by_model = self.by_model.read().unwrap_or_else(PoisonError::into_inner);
            by_model.get(&model).map(|counters| counter(counters).increment(1))
        };
        if count().is_none() {
            self.add(recorder, model);
            count();
        }
    }
}

impl JobCounters {
    fn new(recorder: &PrometheusRecorder, model: ModelName) -> Self {
        let model = model.as_str();
        with_local_recorder(recorder, || {
            // An autoscaler reads it before the probe has counted for the first time. The probe may have counted already.
            gauge!(MODEL_OUTSTANDING, "model" => model).increment(0.0);
            Self {
                submitted: Priority::ALL
                    .map(|priority| counter!(SUBMITTED, "model" => model, "priority" => priority.as_str())),
                repeated: counter!(REPEATED, "model" => model),
                requeued: counter!(REQUEUED, "model" => model),
                cancelled: counter!(CANCELLED, "model" => model),
            }
        })
    }

    pub(super) fn submitted(&self, priority: Priority) -> &Counter {
        let [high, normal, low] = &self.submitted;
        match priority {
            Priority::High => high,
            Priority::Normal => normal,
            Priority::Low => low,
        }
    }
}
