//! `GET /jobs`: lists jobs, newest first, over all partitions.

use std::{sync::Arc, time::UNIX_EPOCH};

use axum::{
    extract::{Query, State},
    http::Uri,
    response::Response,
};
use serde::Serialize;
use tepal_shared::{
    job::{Job, JobId, JobStatus, Priority},
    owner::View,
    store::{LogEntry, LogPage, LogPlace},
};

use super::{job::JobView, json};
use crate::{
    access::Caller,
    error::{ApiError, MOST_MISTAKES, Mistake},
    follow,
    state::App,
};

const DEFAULT_LIMIT: usize = 50;
const MOST: usize = 1000;
/// A page looks at no more than this many log entries for each job that it may show, or at [`LEAST_SCAN`].
const SCAN_FACTOR: usize = 10;
const LEAST_SCAN: usize = 1000;
/// A filtered page reads at least so many jobs at a time.
const LEAST_CHUNK: usize = 100;

/// A job's own time is read before its place in the log is given, and with older Redis a little time passes between
/// the two. So much is allowed for.
const LOG_DELAY_MS: u64 = 1000;

/// What the query asks for.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    status: Option<JobStatus>,
    priority: Option<Priority>,
    /// Unix ms, both exclusive.
    created_after: Option<u64>,
    created_before: Option<u64>,
    limit: usize,
    cursor: Option<LogPlace>,
}

#[derive(Serialize)]
struct Page<'a> {
    jobs: Vec<JobView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One page.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    let listing = Listing::read(&uri).map_err(ApiError::Invalid)?;
    let (jobs, next) = page(&app, caller.view(), &listing).await?;
    let page = Page {
        jobs: jobs.iter().map(JobView::of).collect(),
        next_cursor: next.map(|place| place.to_string()),
    };
    // These types serialise without fail: their keys are strings.
    Ok(json(serde_json::to_vec(&page).unwrap_or_default()))
}

/// The jobs of the page, and where the next one begins. A page of a filtered listing, or of a caller that does not see all
/// jobs, may be short, or even empty, although more follow: its work is bounded.
async fn page(
    app: &App,
    view: View<'_>,
    listing: &Listing,
) -> Result<(Vec<Job>, Option<LogPlace>), ApiError> {
    let mut jobs = Vec::new();
    let mut place = listing.start();
    let mut to_scan = (listing.limit * SCAN_FACTOR).max(LEAST_SCAN);
    // One more than the page holds tells whether another page follows.
    let is_filtered = listing.is_filtered() || view != View::All;
    let chunk = (listing.limit + 1).max(if is_filtered { LEAST_CHUNK } else { 0 });
    while to_scan > 0 {
        let mut log = app.store.log(place, chunk.min(to_scan)).await?;
        if !listing.is_filtered() {
            end_after(&mut log, view, listing.limit + 1 - jobs.len());
        }
        to_scan = to_scan.saturating_sub(log.entries.len());
        let is_seen = |entry: &LogEntry| view.shows(entry.owner.as_deref());
        // What the caller does not see is not even read.
        let seen = log.entries.iter().filter(|entry| is_seen(entry));
        let mut read = app.store.listed(&seen.map(|entry| entry.id).collect::<Vec<JobId>>()).await?;
        follow::bring_up_to_date(app, &mut read).await?;
        let mut read = read.into_iter();
        for (index, entry) in log.entries.iter().enumerate() {
            // The log is in the order of time, and no job is younger than its place in it.
            if listing.created_after.is_some_and(|after| entry.place.ms <= after) {
                return Ok((jobs, None));
            }
            place = Some(entry.place);
            let job = if is_seen(entry) { read.next().flatten() } else { None };
            jobs.extend(job.filter(|job| listing.shows(job)));
            if jobs.len() == listing.limit {
                let is_end = index + 1 == log.entries.len() && !log.more;
                return Ok((jobs, place.filter(|_| !is_end)));
            }
        }
        if !log.more {
            return Ok((jobs, None));
        }
    }
    Ok((jobs, place))
}

/// Ends the part of the log with the entry with which the caller has seen `most` jobs: what follows need not be read.
fn end_after(log: &mut LogPage, view: View<'_>, most: usize) {
    let seen = log.entries.iter().enumerate().filter(|(_, entry)| view.shows(entry.owner.as_deref()));
    let Some(last) = seen.map(|(index, _)| index).nth(most.saturating_sub(1)) else { return };
    log.more |= last + 1 < log.entries.len();
    log.entries.truncate(last + 1);
}

impl Listing {
    /// Where in the log to begin.
    fn start(&self) -> Option<LogPlace> {
        let first = self.created_before.map(|before| LogPlace {
            ms: before.saturating_add(LOG_DELAY_MS),
            seq: u64::MAX,
            partition: u8::MAX,
        });
        // The earlier one of both, if there are both.
        self.cursor.into_iter().chain(first).min()
    }

    fn is_filtered(&self) -> bool {
        self.status.is_some() || self.priority.is_some()
    }

    fn shows(&self, job: &Job) -> bool {
        self.status.is_none_or(|status| job.status == status)
            && self.priority.is_none_or(|priority| job.priority == priority)
            && self.created_after.is_none_or(|after| job.created_at_ms > after)
            && self.created_before.is_none_or(|before| job.created_at_ms < before)
    }

    fn read(uri: &Uri) -> Result<Self, Vec<Mistake>> {
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
                let expected = format!("must be a whole number from 1 to {MOST}");
                self.limit = limit.ok_or_else(|| Mistake::in_query(name, "out_of_range", expected))?;
            }
            "cursor" => {
                let expected = "must be the next_cursor of an earlier page";
                let place = value.parse().map_err(|_| Mistake::in_query(name, "format", expected))?;
                self.cursor = Some(place);
            }
            _ => {
                let detail = "is not a parameter of this request; known are status, priority, \
                              created_after, created_before, limit and cursor";
                return Err(Mistake::in_query(name, "unknown_parameter", detail));
            }
        }
        Ok(())
    }
}

/// Reads a query; a cursor that is taken is written as it was meant.
#[cfg(any(fuzzing, test))]
pub(crate) fn check_listing(uri: &Uri) -> Result<(), Vec<Mistake>> {
    let listing = Listing::read(uri)?;
    assert!((1..=MOST).contains(&listing.limit));
    if let Some(place) = listing.cursor {
        assert_eq!(place.to_string().parse(), Ok(place));
    }
    Ok(())
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

/// A moment as the service writes it: RFC 3339, in UTC.
fn unix_ms(name: &str, value: &str) -> Result<u64, Mistake> {
    let expected = "must be a time such as 2026-01-31T12:00:00.000Z, in UTC";
    let time = humantime::parse_rfc3339(value).map_err(|_| Mistake::in_query(name, "format", expected))?;
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
        let cursor = LogPlace { ms: 5, seq: 2, partition: 1 };
        let expected = Listing {
            status: Some(JobStatus::Failed),
            priority: Some(Priority::High),
            created_after: Some(1_500),
            created_before: Some(86_400_000),
            limit: 1000,
            cursor: Some(cursor),
        };
        let uri = "/jobs?status=failed&limit=1000&cursor=5-2-1&priority=high\
                   &created_after=1970-01-01T00:00:01.5Z&created_before=1970-01-02T00%3A00:00Z";
        assert_eq!(read(uri), Ok(expected));
    }

    #[test]
    fn a_page_begins_at_the_cursor_or_at_the_upper_bound() {
        let cursor = LogPlace { ms: 5, seq: 2, partition: 1 };
        let start = |created_before, cursor| Listing { created_before, cursor, ..Listing::default() }.start();
        assert_eq!(start(None, None), None);
        assert_eq!(start(Some(9_000), Some(cursor)), Some(cursor));
        assert_eq!(start(Some(0), None).map(|place| place.ms), Some(LOG_DELAY_MS));
        assert_eq!(start(Some(u64::MAX), None).map(|place| place.ms), Some(u64::MAX));
    }

    #[test]
    fn no_more_is_read_than_a_page_can_show() {
        let owners = [Some("b"), Some("a"), None, Some("a"), Some("a"), Some("b")];
        let entry = |owner: Option<&str>| LogEntry {
            place: LogPlace { ms: 1, seq: 0, partition: 0 },
            id: JobId::new(0),
            owner: owner.map(str::to_owned),
        };
        let left = |view, most| {
            let mut log = LogPage { entries: owners.map(entry).into(), more: false };
            end_after(&mut log, view, most);
            (log.entries.len(), log.more)
        };
        assert_eq!(left(View::Owner("a"), 2), (4, true));
        assert_eq!(left(View::Owner("b"), 2), (6, false));
        assert_eq!(left(View::Owner("a"), 9), (6, false));
        assert_eq!(left(View::All, 3), (3, true));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let codes = read("/jobs?status=done&limit=0&cursor=x&order=up&limit=5").unwrap_err();
        assert_eq!(codes, ["unknown_value", "out_of_range", "format", "unknown_parameter", "repeated"]);
        assert_eq!(read(&format!("/jobs?{}", "a&".repeat(2000))).unwrap_err().len(), MOST_MISTAKES);
        let codes = read("/jobs?priority=1&created_after=yesterday&created_before=2026-01-01").unwrap_err();
        assert_eq!(codes, ["unknown_value", "format", "format"]);
    }
}
