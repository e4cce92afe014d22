//! The query of `GET /jobs`.

use std::{str::FromStr, time::UNIX_EPOCH};

use axum::http::Uri;
use serde_json::{Value, json};
use tepal_shared::job::{Job, JobStatus, ModelName, Priority, UnknownWord};

use super::{
    super::{
        openapi::contract::Contract,
        query::{self, Wrong},
    },
    form::{PATTERN, SOME_CURSOR, has_form, time_pattern},
};
use crate::{error::Mistake, jobs::models::MODEL};

/// Jobs of a page by default.
const DEFAULT_LIMIT: usize = 50;
/// Most jobs of a page.
pub(crate) const MOST: usize = 1000;

/// What the query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) status: Option<JobStatus>,
    pub(super) priority: Option<Priority>,
    pub(super) model: Option<String>,
    /// Unix ms, both exclusive.
    pub(super) created_after: Option<u64>,
    pub(super) created_before: Option<u64>,
    pub(super) limit: usize,
    /// As the client sent it, still sealed.
    pub(super) cursor: Option<String>,
}

impl Listing {
    pub(super) fn is_filtered(&self) -> bool {
        self.status.is_some() || self.priority.is_some() || self.model.is_some()
    }

    pub(super) fn shows(&self, job: &Job) -> bool {
        self.status.is_none_or(|status| job.status == status)
            && self.priority.is_none_or(|priority| job.priority == priority)
            && self.model.as_ref().is_none_or(|model| job.model == *model)
            && self.created_after.is_none_or(|after| job.created_at_ms > after)
            && self.created_before.is_none_or(|before| job.created_at_ms < before)
    }

    pub(super) fn read(uri: &Uri) -> Result<Self, Vec<Mistake>> {
        let mut listing = Self::default();
        let known = PARAMETERS.map(|parameter| parameter.name);
        query::read(uri, &known, |name, value| listing.parameter(name, value))?;
        Ok(listing)
    }

    fn parameter(&mut self, name: &str, value: &str) -> Option<Result<(), Wrong>> {
        let parameter = PARAMETERS.iter().find(|parameter| parameter.name == name)?;
        Some((parameter.read)(self, value))
    }
}

/// A parameter of the query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    read: fn(&mut Listing, &str) -> Result<(), Wrong>,
    pub(super) description: &'static str,
    pub(super) schema: fn(&mut Contract<'_>) -> Value,
    pub(super) example: fn() -> Value,
}

/// Every parameter of the query.
pub(super) const PARAMETERS: [Parameter; 7] = [
    Parameter {
        name: "status",
        read: |listing, value| {
            listing.status = Some(word(value)?);
            Ok(())
        },
        description: "Only jobs in this state",
        schema: |contract| contract.schema::<JobStatus>(),
        example: || JobStatus::Failed.as_str().into(),
    },
    Parameter {
        name: "priority",
        read: |listing, value| {
            listing.priority = Some(word(value)?);
            Ok(())
        },
        description: "Only jobs of this priority",
        schema: |contract| contract.schema::<Priority>(),
        example: || Priority::High.as_str().into(),
    },
    Parameter {
        name: MODEL,
        read: |listing, value| {
            listing.model = Some(model_name(value)?);
            Ok(())
        },
        description: "Only jobs of this model",
        schema: |_| json!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}),
        example: || "iris".into(),
    },
    Parameter {
        name: "created_after",
        read: |listing, value| {
            listing.created_after = Some(unix_ms(value)?);
            Ok(())
        },
        description: "Only jobs accepted later",
        schema: |_| time_schema(),
        example: || "2026-11-25T12:00:00Z".into(),
    },
    Parameter {
        name: "created_before",
        read: |listing, value| {
            listing.created_before = Some(unix_ms(value)?);
            Ok(())
        },
        description: "Only jobs accepted earlier",
        schema: |_| time_schema(),
        example: || "2026-11-26T12:00:00Z".into(),
    },
    Parameter {
        name: LIMIT,
        read: |listing, value| {
            listing.limit = limit(value)?;
            Ok(())
        },
        description: "Most jobs of the page",
        schema: |_| json!({"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT_LIMIT}),
        example: || DEFAULT_LIMIT.into(),
    },
    Parameter {
        name: CURSOR,
        read: |listing, value| {
            listing.cursor = Some(sealed(value)?);
            Ok(())
        },
        description: "The `next_cursor` of the page before, with the same filters and the same key; opaque",
        schema: |_| json!({"type": "string", "pattern": PATTERN}),
        example: || SOME_CURSOR.into(),
    },
];
const LIMIT: &str = "limit";
const CURSOR: &str = "cursor";

fn word<T: FromStr<Err = UnknownWord>>(value: &str) -> Result<T, Wrong> {
    value
        .parse()
        .map_err(|error: UnknownWord| ("unknown_value", format!("must be one of {}", error.expected)))
}

/// A model that has been removed may still have jobs.
fn model_name(value: &str) -> Result<String, Wrong> {
    if ModelName::is_valid(value) {
        Ok(value.to_owned())
    } else {
        Err(("format", "must be the name of a model".to_owned()))
    }
}

fn limit(value: &str) -> Result<usize, Wrong> {
    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or_else(|| ("out_of_range", format!("must be a whole number from 1 to {MOST}")))
}

fn sealed(value: &str) -> Result<String, Wrong> {
    if has_form(value) { Ok(value.to_owned()) } else { Err(("format", NOT_A_CURSOR.to_owned())) }
}

fn time_schema() -> Value {
    json!({"type": "string", "format": "date-time", "pattern": time_pattern()})
}

const NOT_A_CURSOR: &str = "must be the next_cursor of an earlier page of the same listing";

pub(super) fn not_a_cursor() -> Mistake {
    Mistake::in_query(CURSOR, "format", NOT_A_CURSOR)
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            status: None,
            priority: None,
            model: None,
            created_after: None,
            created_before: None,
            limit: DEFAULT_LIMIT,
            cursor: None,
        }
    }
}

/// A time as the service writes it: RFC 3339, in UTC. The letters T and Z may be in lower case (section 5.6).
fn unix_ms(value: &str) -> Result<u64, Wrong> {
    let time = humantime::parse_rfc3339(&value.to_ascii_uppercase())
        .map_err(|_| ("format", "must be a time such as 2026-01-31T12:00:00.000Z, in UTC".to_owned()))?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MOST_MISTAKES;

    fn read(uri: &str) -> Result<Listing, Vec<&'static str>> {
        Listing::read(&uri.parse().unwrap())
            .map_err(|mistakes| mistakes.iter().map(|mistake| mistake.code).collect())
    }

    #[test]
    fn no_query_lists_the_newest_jobs() {
        assert_eq!(read("/jobs"), Ok(Listing { limit: 50, ..Listing::default() }));
        assert_eq!(read("/jobs?"), read("/jobs"));
    }

    #[test]
    fn the_example_of_each_parameter_is_accepted() {
        for parameter in &PARAMETERS {
            let example = (parameter.example)();
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            let mut listing = Listing::default();
            assert_eq!(listing.parameter(parameter.name, &text), Some(Ok(())));
        }
    }

    #[test]
    fn every_parameter_is_read() {
        let cursor = "-_".repeat(30);
        let expected = Listing {
            status: Some(JobStatus::Failed),
            priority: Some(Priority::High),
            model: Some("clip-1".to_owned()),
            created_after: Some(1_500),
            created_before: Some(86_400_000),
            limit: 1000,
            cursor: Some(cursor.clone()),
        };
        let uri = format!(
            "/jobs?status=failed&limit=1000&cursor={cursor}&priority=high&model=clip-1\
             &created_after=1970-01-01T00:00:01.5Z&created_before=1970-01-02T00%3A00:00Z"
        );
        assert_eq!(read(&uri), Ok(expected));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let codes = read("/jobs?status=done&limit=0&cursor=x&order=up&limit=5").unwrap_err();
        assert_eq!(codes, ["unknown_value", "out_of_range", "format", "unknown_parameter", "repeated"]);
        assert_eq!(read(&format!("/jobs?{}", "a&".repeat(2000))).unwrap_err().len(), MOST_MISTAKES);
        let codes = read("/jobs?priority=1&created_after=yesterday&created_before=2026-01-01").unwrap_err();
        assert_eq!(codes, ["unknown_value", "format", "format"]);
    }
}
