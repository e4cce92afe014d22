//! `GET /jobs` in the contract.

use serde_json::{Value, json};

use super::{
    super::openapi::{
        operation::{Operation, Tag},
        parts::{ConcatErrors as _, completed, json_answer, reading, schema},
    },
    form::PATTERN as CURSOR,
    listing::{DEFAULT_LIMIT, MOST, wrong_limit},
};
use crate::error::ApiError;

/// Describes it for the contract.
pub(crate) fn list_operation() -> Operation {
    let mut listed = completed();
    if let Some(fields) = listed.as_object_mut() {
        fields.remove("result");
    }
    let page = json!({"jobs": [listed], "next_cursor": SOME_CURSOR});
    let query = |name: &str, description: &str, schema: Value, example: Value| json!({"name": name, "in": "query", "description": description, "schema": schema, "example": example});
    let time = json!({"type": "string", "format": "date-time", "pattern": time_pattern()});
    Operation {
        id: "listJobs",
        tag: Tag::Jobs,
        summary: "List jobs",
        description: "Newest first, without results. While `next_cursor` is there, more may follow, also after a short or \
            empty page of a filtered listing.".to_owned(),
        parameters: vec![
            query("status", "Only jobs in this state", schema("JobStatus"), json!("failed")),
            query("priority", "Only jobs of this priority", schema("Priority"), json!("high")),
            query("created_after", "Only jobs accepted later", time.clone(), json!("2026-11-25T12:00:00Z")),
            query("created_before", "Only jobs accepted earlier", time, json!("2026-11-26T12:00:00Z")),
            query(
                "limit",
                "Most jobs of the page",
                json!({"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT_LIMIT}),
                json!(DEFAULT_LIMIT),
            ),
            query(
                "cursor",
                "The `next_cursor` of the page before, with the same filters and the same key; opaque",
                json!({"type": "string", "pattern": CURSOR}),
                json!(SOME_CURSOR),
            ),
        ],
        body: None,
        answers: vec![(200, json_answer("A page", "Page", &page))],
        errors: [vec![ApiError::NotAcceptable, ApiError::Overloaded, ApiError::Invalid(vec![wrong_limit()])], reading()].concat_errors(),
    }
}

const SOME_CURSOR: &str = "mLSTdYKjV0cRzvQ8yGn2aOeXhBpW5uJ7IfDkA1tE9s4CqM6x3oZl_r-NbHgU";

/// The pattern of a valid time since 1970, in UTC. The letters may be in lower case (RFC 3339, section 5.6).
fn time_pattern() -> String {
    let year = "(19[7-9][0-9]|[2-9][0-9]{3})";
    let leap_year =
        "(19(7[26]|8[048]|9[26])|[2-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[3579][26])00)";
    let long = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])";
    let short = "(0[469]|11)-(0[1-9]|[12][0-9]|30)";
    let february = "02-(0[1-9]|1[0-9]|2[0-8])";
    let day = format!("({year}-({long}|{short}|{february})|{leap_year}-02-29)");
    format!("^{day}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{{1,9}})?[Zz]$")
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn every_day_that_exists_fits_the_pattern_and_no_other() {
        let pattern = Regex::new(&time_pattern()).unwrap();
        for year in (1968..2030).chain(2096..2106).chain([2400, 3000, 9200, 9999]) {
            for (month, day) in (0..=13).flat_map(|month| (0..=32).map(move |day| (month, day))) {
                let time = format!("{year}-{month:02}-{day:02}T23:59:59.999Z");
                let exists = humantime::parse_rfc3339(&time).is_ok();
                assert_eq!(pattern.is_match(&time), exists, "{time}");
                assert_eq!(pattern.is_match(&time.to_ascii_lowercase()), exists, "{time}");
            }
        }
    }

    #[test]
    fn the_example_of_a_cursor_has_its_form() {
        assert!(Regex::new(CURSOR).unwrap().is_match(SOME_CURSOR));
    }
}
