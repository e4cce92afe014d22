//! `GET /jobs` in the contract.

use serde_json::{Value, json};

use super::{
    super::{
        job::view::{self, JobView},
        openapi::{
            contract::Contract,
            operation::{Operation, Tag},
            parts::{ConcatErrors as _, reading},
        },
    },
    form::SOME_CURSOR,
    listing::{PARAMETERS, not_a_cursor},
    page::Page,
};
use crate::error::ApiError;

/// Describes it for the contract.
pub(crate) fn list_operation(contract: &mut Contract<'_>) -> Operation {
    let job = view::example();
    let page = Page { jobs: vec![JobView::of(&job)], next_cursor: Some(SOME_CURSOR.to_owned()) };
    Operation {
        id: "listJobs",
        tag: Tag::Jobs,
        summary: "List jobs",
        description: "Newest first, without results. If there is a `next_cursor`, more jobs may follow, even after a short or \
            empty page of a filtered listing.".to_owned(),
        parameters: parameters(contract),
        body: None,
        answers: vec![(200, contract.answer("A page", &page))],
        errors: [
            vec![ApiError::NotAcceptable, ApiError::Overloaded, ApiError::Invalid(vec![not_a_cursor()])],
            reading(),
        ]
        .concat_errors(),
    }
}

fn parameters(contract: &mut Contract<'_>) -> Vec<Value> {
    let parameters = PARAMETERS.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.description,
            "schema": (parameter.schema)(contract),
            "example": (parameter.example)(),
        })
    });
    parameters.collect()
}
