//! The body of an error answer, within its bound.

use serde::Serialize;

use super::{mistake::Mistake, short::short};

/// Bytes of a whole error answer.
pub(crate) const MOST_BYTES: usize = 4 << 10;
/// Bytes of a path that is repeated, as JSON.
const LONGEST_INSTANCE: usize = 1024;
/// Bytes of a detail, as JSON: that of a mistake, with its pointer.
const LONGEST_DETAIL: usize = 600;

/// The problem without its mistakes.
pub(super) struct Head<'a> {
    pub(super) status: u16,
    pub(super) code: &'a str,
    pub(super) title: &'a str,
    pub(super) detail: &'a str,
    pub(super) instance: &'a str,
    pub(super) request_id: &'a str,
}

/// The members in the order of RFC 9457, then ours.
#[derive(Serialize)]
struct Members<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    instance: String,
    code: &'a str,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Brief<'a> {
    r#type: String,
    status: u16,
    code: &'a str,
}

impl Head<'_> {
    /// The problem with as many mistakes as fit into `most` bytes, but with one at least.
    pub(super) fn problem(self, mistakes: &[Mistake], most: usize) -> Vec<u8> {
        let Self { status, code, title, request_id, .. } = self;
        let detail = short(self.detail, LONGEST_DETAIL);
        let instance = short(self.instance, LONGEST_INSTANCE);
        let mut problem =
            json(&Members { r#type: path(code), title, status, detail, instance, code, request_id });
        let mut start = &br#","errors":["#[..];
        for mistake in mistakes.iter().map(json) {
            let is_first = start.len() > 1;
            if !is_first && problem.len() + 1 + mistake.len() + 2 > most {
                break;
            }
            if is_first {
                problem.pop();
            }
            problem.extend_from_slice(start);
            problem.extend_from_slice(&mistake);
            start = b",";
        }
        if !mistakes.is_empty() {
            problem.extend_from_slice(b"]}");
        }
        problem
    }
}

/// The parts of a problem that a program needs.
pub(super) fn brief(status: u16, code: &str) -> Vec<u8> {
    json(&Brief { r#type: path(code), status, code })
}

fn path(code: &str) -> String {
    format!("/problems/{}", code.replace('_', "-"))
}

/// Serialising these types cannot fail: they have string keys, and integers only.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
