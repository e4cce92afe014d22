//! The query of `POST /predict` and `POST /predict/test`. It names the model and the version where no body can.

use axum::http::Uri;
use serde_json::{Value, json};

use super::super::query;
use crate::{
    error::{ApiError, Mistake},
    jobs::models::{Choice, MODEL, VERSION},
};

/// Reads what the query chooses.
pub(super) fn read(uri: &Uri) -> Result<Choice, ApiError> {
    let mut choice = Choice::default();
    if uri.query().is_none() {
        return Ok(choice);
    }
    let parameter = |name: &str, value: &str| {
        match name {
            MODEL => choice.model = Some(value.to_owned()),
            VERSION => choice.version = Some(value.to_owned()),
            _ => return None,
        }
        Some(Ok(()))
    };
    query::read(uri, &[MODEL, VERSION], parameter).map_err(ApiError::Invalid)?;
    Ok(choice)
}

/// An example of what can be wrong.
pub(super) fn invalid() -> ApiError {
    ApiError::Invalid(vec![Mistake::in_query(MODEL, "repeated", "must be given only once")])
}

/// The parameters in the contract.
pub(super) fn parameters(description: &str) -> Vec<Value> {
    vec![
        json!({
            "name": MODEL,
            "in": "query",
            "description": description,
            "schema": {"type": "string"},
            "example": "iris",
        }),
        json!({
            "name": VERSION,
            "in": "query",
            "description": "The version of the model; without it, the newest",
            "schema": {"type": "string"},
            "example": "1",
        }),
    ]
}
