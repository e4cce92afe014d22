//! A submission that is not accepted.

use tepal_shared::job::ModelName;

use crate::{error::ApiError, metrics::Metrics};

/// Why a submission is not accepted, and its model as far as that is known.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) model: Option<ModelName>,
    pub(crate) error: ApiError,
}

impl Refused {
    /// The submission of a job of this model.
    pub(crate) fn of(model: ModelName, error: ApiError) -> Self {
        Self { model: Some(model), error }
    }

    /// Counts it.
    pub(crate) fn counted(self, metrics: &Metrics) -> ApiError {
        metrics.refused(self.model, self.error.code());
        self.error
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self { model: None, error }
    }
}
