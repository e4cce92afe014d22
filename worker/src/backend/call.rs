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
    /// The worker drops the call after this time.
    pub time_limit: Duration,
}

impl ModelCall {
    /// A call with the sample of the description.
    #[must_use]
    pub fn of_sample(batch: Batch, time_limit: Duration) -> Self {
        Self { batch, id: "sample".to_owned(), time_limit }
    }
}
