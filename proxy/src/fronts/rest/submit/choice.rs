//! The query of `POST /predict` and `POST /predict/test`. It names the model where no body can.

use axum::http::Uri;
use serde_json::{Value, json};

use super::super::query;
use crate::{
    error::{ApiError, Mistake},
    jobs::models::MODEL,
};

/// What the query chooses.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The model; `None` = the default model, unless the body names one.
    pub(super) model: Option<String>,
}

impl Choice {
    pub(super) fn read(uri: &Uri) -> Result<Self, ApiError> {
        let mut choice = Self::default();
        if uri.query().is_none() {
            return Ok(choice);
        }
        let parameter = |name: &str, value: &str| match name {
            MODEL => {
                choice.model = Some(value.to_owned());
                Some(Ok(()))
            }
            _ => None,
        };
        query::read(uri, &[MODEL], parameter).map_err(ApiError::Invalid)?;
        Ok(choice)
    }
}

/// An example of what can be wrong.
pub(super) fn invalid() -> ApiError {
    ApiError::Invalid(vec![Mistake::in_query(MODEL, "repeated", "must be given only once")])
}

/// The parameters in the contract.
pub(super) fn parameters(description: &str) -> Vec<Value> {
    vec![json!({
        "name": MODEL,
        "in": "query",
        "description": description,
        "schema": {"type": "string"},
        "example": "iris",
    })]
}
