//! A page of `GET /jobs`.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::job::view::JobView;

/// A page of jobs, without their results.
#[derive(Serialize, JsonSchema)]
#[schemars(description = "A page of a listing")]
pub(super) struct Page<'a> {
    pub(super) jobs: Vec<JobView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}
