//! The input that the model's description gives as its sample. When the backend refuses a job, the sample shows whether
//! the backend or the job's input is to blame.

use std::{sync::Arc, time::Duration};

use tepal_shared::model::{Model, Rendered};

use crate::backend::{Backend, BackendError};

/// Calls a model with its sample. Clones share the backend.
#[derive(Clone)]
pub struct Sample {
    backend: Arc<dyn Backend>,
    model: Arc<Model>,
    time_limit: Duration,
}

impl Sample {
    /// The sample of this model; a call may take as long as `time_limit`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, model: Model, time_limit: Duration) -> Self {
        Self { backend, model: Arc::new(model), time_limit }
    }

    /// Calls the model with the sample; gives the result.
    ///
    /// # Errors
    /// When the call fails, and when the answer is no result. The description was checked: its sample is valid input.
    pub async fn ask(&self) -> Result<Rendered, BackendError> {
        let invalid =
            |_| BackendError::bad_answer("The sample of the model's description is not valid input");
        let rows = self.model.read_rows(&self.model.sample).map_err(invalid)?;
        let call = self.backend.predict(self.model.concatenate(std::iter::once(&rows)));
        let answer = tokio::time::timeout(self.time_limit, call)
            .await
            .unwrap_or_else(|_| Err(BackendError::timeout()))?;
        let rendered = self
            .model
            .check_output(rows.rows, &answer)
            .and_then(|()| self.model.render(&answer, 0..rows.rows, usize::MAX));
        rendered.map_err(|error| BackendError::bad_answer(&error).because(error))
    }
}
