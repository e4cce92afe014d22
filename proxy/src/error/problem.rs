//! The body of an error answer, within its bound.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::{mistake::Mistake, short::short};

/// Bytes of a whole error answer.
pub(crate) const MOST_BYTES: usize = 4 << 10;
/// Bytes of a path that is repeated, as JSON.
const LONGEST_INSTANCE: usize = 1024;
/// Bytes of a detail, as JSON: that of a mistake, with its pointer.
pub(super) const LONGEST_DETAIL: usize = 600;
/// Bytes around the mistakes.
const FRAME_OF_MISTAKES: usize = r#","errors":[]"#.len();

/// The members of RFC 9457 in its order, then ours.
#[derive(Serialize, JsonSchema)]
#[schemars(description = "RFC 9457")]
pub(crate) struct Problem<'a> {
    #[schemars(extend("format" = "uri-reference"))]
    r#type: String,
    title: &'a str,
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(extend("format" = "uri-reference"))]
    instance: String,
    /// One word for programs; does not change
    code: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Mistake],
}

/// The parts of a problem that a program needs.
#[derive(Serialize, JsonSchema)]
#[schemars(description = "A problem of a batch that has many, reduced to what a program needs")]
pub(crate) struct BriefProblem<'a> {
    #[schemars(extend("format" = "uri-reference"))]
    r#type: String,
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    code: &'a str,
}

/// A problem without its mistakes.
pub(super) struct Head<'a> {
    pub(super) status: u16,
    pub(super) code: &'a str,
    pub(super) title: &'a str,
    pub(super) detail: Cow<'static, str>,
    pub(super) instance: &'a str,
    pub(super) request_id: &'a str,
}

impl<'a> Head<'a> {
    /// The problem with as many mistakes as fit into `most` bytes, but with one at least.
    pub(super) fn problem(self, mistakes: &'a [Mistake], most: usize) -> Problem<'a> {
        let Self { status, code, title, request_id, .. } = self;
        let detail = short(self.detail, LONGEST_DETAIL);
        let instance = short(self.instance, LONGEST_INSTANCE);
        let mut problem =
            Problem { r#type: path(code), title, status, detail, instance, code, request_id, errors: &[] };
        let mut bytes = json(&problem).len() + FRAME_OF_MISTAKES;
        let fits = |(index, mistake): &(usize, &Mistake)| {
            bytes += json(mistake).len() + usize::from(*index > 0);
            *index == 0 || bytes <= most
        };
        problem.errors = &mistakes[..mistakes.iter().enumerate().take_while(fits).count()];
        problem
    }
}

impl<'a> BriefProblem<'a> {
    pub(super) fn new(status: u16, code: &'a str) -> Self {
        Self { r#type: path(code), status, code }
    }
}

fn path(code: &str) -> String {
    format!("/problems/{}", code.replace('_', "-"))
}

/// Serialising these types cannot fail: they have string keys, and integers only.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
