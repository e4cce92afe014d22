//! One call of a model.

use std::time::Duration;

use tepal_shared::tensor::Batch;

/// Rows for a model, and what a model server may want to know of the call.
#[derive(Clone, Debug)]
pub struct ModelCall {
    /// The rows.
    pub batch: Batch,
    /// Names the call to a model server: the id of its first job.
    pub id: String,
    /// The job of a call that serves only one; its id is `id`.
    pub only_job: Option<OnlyJob>,
    /// The worker drops the call after this time.
    pub time_limit: Duration,
}

/// The only job of a call.
#[derive(Clone, Debug)]
pub struct OnlyJob {
    /// W3C Trace Context of the request that submitted it.
    pub traceparent: Option<String>,
}

impl ModelCall {
    /// A call with the sample of the description.
    #[must_use]
    pub fn of_sample(batch: Batch, time_limit: Duration) -> Self {
        Self { batch, id: "sample".to_owned(), only_job: None, time_limit }
    }
}
