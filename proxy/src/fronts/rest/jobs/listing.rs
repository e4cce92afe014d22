//! The query of `GET /jobs`.

use std::time::UNIX_EPOCH;

use axum::{extract::Query, http::Uri};
use tepal_shared::job::{Job, JobStatus, Priority};

use super::form::has_form;
use crate::error::{MOST_MISTAKES, Mistake};

/// Jobs of a page by default.
pub(crate) const DEFAULT_LIMIT: usize = 50;
/// Most jobs of a page.
pub(crate) const MOST: usize = 1000;
/// What the query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) status: Option<JobStatus>,
    pub(super) priority: Option<Priority>,
    /// Unix ms, both exclusive.
    pub(super) created_after: Option<u64>,
    pub(super) created_before: Option<u64>,
    pub(super) limit: usize,
    /// As the client sent it, still sealed.
    pub(super) cursor: Option<String>,
}

impl Listing {
    pub(super) fn is_filtered(&self) -> bool {
        self.status.is_some() || self.priority.is_some()
    }

    pub(super) fn shows(&self, job: &Job) -> bool {
        self.status.is_none_or(|status| job.status == status)
            && self.priority.is_none_or(|priority| job.priority == priority)
            && self.created_after.is_none_or(|after| job.created_at_ms > after)
            && self.created_before.is_none_or(|before| job.created_at_ms < before)
    }

    pub(super) fn read(uri: &Uri) -> Result<Self, Vec<Mistake>> {
        let parameters =
            Query::<Vec<(String, String)>>::try_from_uri(uri).map_or_else(|_| Vec::new(), |query| query.0);
        let mut listing = Self::default();
        let mut mistakes = Vec::new();
        for (index, (name, value)) in parameters.iter().enumerate() {
            if mistakes.len() == MOST_MISTAKES {
                break;
            }
            if parameters[..index].iter().any(|(earlier, _)| earlier == name) {
                mistakes.push(Mistake::in_query(name, "repeated", "must be given only once"));
            } else if let Err(mistake) = listing.parameter(name, value) {
                mistakes.push(mistake);
            }
        }
        if mistakes.is_empty() { Ok(listing) } else { Err(mistakes) }
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<(), Mistake> {
        match name {
            "status" => {
                let expected = "must be one of pending, processing, completed, failed, cancelled";
                let status = value.parse().map_err(|_| Mistake::in_query(name, "unknown_value", expected))?;
                self.status = Some(status);
            }
            "priority" => {
                let expected = "must be one of high, normal, low";
                let priority =
                    value.parse().map_err(|_| Mistake::in_query(name, "unknown_value", expected))?;
                self.priority = Some(priority);
            }
            "created_after" => self.created_after = Some(unix_ms(name, value)?),
            "created_before" => self.created_before = Some(unix_ms(name, value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                self.limit = limit.ok_or_else(wrong_limit)?;
            }
            "cursor" if has_form(value) => self.cursor = Some(value.to_owned()),
            "cursor" => return Err(not_a_cursor()),
            _ => {
                let detail = "is not a parameter of this request; known are status, priority, \
                              created_after, created_before, limit and cursor";
                return Err(Mistake::in_query(name, "unknown_parameter", detail));
            }
        }
        Ok(())
    }
}

/// The mistake of an invalid limit.
pub(crate) fn wrong_limit() -> Mistake {
    Mistake::in_query("limit", "out_of_range", format!("must be a whole number from 1 to {MOST}"))
}

pub(super) fn not_a_cursor() -> Mistake {
    Mistake::in_query("cursor", "format", "must be the next_cursor of an earlier page of the same listing")
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            status: None,
            priority: None,
            created_after: None,
            created_before: None,
            limit: DEFAULT_LIMIT,
            cursor: None,
        }
    }
}

/// A time as the service writes it: RFC 3339, in UTC. The letters T and Z may be in lower case (section 5.6).
fn unix_ms(name: &str, value: &str) -> Result<u64, Mistake> {
    let expected = "must be a time such as 2026-01-31T12:00:00.000Z, in UTC";
    let time = humantime::parse_rfc3339(&value.to_ascii_uppercase())
        .map_err(|_| Mistake::in_query(name, "format", expected))?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn every_parameter_is_read() {
        let cursor = "-_".repeat(30);
        let expected = Listing {
            status: Some(JobStatus::Failed),
            priority: Some(Priority::High),
            created_after: Some(1_500),
            created_before: Some(86_400_000),
            limit: 1000,
            cursor: Some(cursor.clone()),
        };
        let uri = format!(
            "/jobs?status=failed&limit=1000&cursor={cursor}&priority=high\
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
