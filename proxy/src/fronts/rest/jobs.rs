//! `GET /jobs`: lists jobs, newest first, over all partitions.

mod cursor;

use std::{sync::Arc, time::UNIX_EPOCH};

use axum::{
    extract::{Query, Request, State},
    http::Uri,
    response::Response,
};
use serde::Serialize;
use tepal_shared::{
    job::{Job, JobId, JobStatus, Priority, owner::View},
    queue::store::{LogEntry, LogPage, LogPlace},
};

use super::{as_json, job::JobView};
use crate::{
    edge::{
        access::Caller,
        cost::{Tab, Work},
    },
    error::{ApiError, MOST_MISTAKES, Mistake},
    http::answer::{held, paid},
    jobs::follow,
    state::App,
};

pub(crate) use self::cursor::PATTERN as CURSOR;

/// Jobs of a page when the query does not say.
pub(crate) const DEFAULT_LIMIT: usize = 50;
/// Most jobs of a page.
pub(crate) const MOST: usize = 1000;
/// A page looks at no more than this many log entries for each job that it may show, or at [`LEAST_SCAN`].
const SCAN_FACTOR: usize = 10;
const LEAST_SCAN: usize = 1000;
/// What an entry and its job take while they are read.
const BYTES_READ: usize = 1 << 10;
/// What a job of the page takes: as a record and as text, twice while the text grows.
const BYTES_SHOWN: usize = 2 << 10;
/// A filtered page reads at least so many jobs at a time.
const LEAST_CHUNK: usize = 100;

/// What the query asks for.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    status: Option<JobStatus>,
    priority: Option<Priority>,
    /// Unix ms, both exclusive.
    created_after: Option<u64>,
    created_before: Option<u64>,
    limit: usize,
    /// As it was given, still sealed.
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Page<'a> {
    jobs: Vec<JobView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// How much of the log one page looks at.
struct Bounds {
    /// Most entries.
    to_scan: usize,
    /// The entries that a caller pays for when it must not learn how many were scanned.
    to_charge: usize,
    /// How many are read at a time.
    chunk: usize,
}

/// One page.
pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let mut tab = Tab::open(&app, &caller, &request);
    let mut work = Work::default();
    let outcome = listed(&app, &caller, request.uri(), &mut tab, &mut work).await;
    tab.close(work, outcome)
}

async fn listed(
    app: &App,
    caller: &Caller,
    uri: &Uri,
    tab: &mut Tab,
    work: &mut Work,
) -> Result<Response, ApiError> {
    let listing = Listing::read(uri).map_err(ApiError::Invalid)?;
    // It may read fewer jobs, and does not get them back.
    let least = Work { jobs_read: listing.limit, ..Work::default() };
    tab.charge_for(least)?;
    let view = caller.view();
    let start = match &listing.cursor {
        Some(text) => Some(open(app, text, &listing, view).await?),
        None => None,
    };
    let bounds = Bounds::of(&listing, view);
    let mut share = app.bodies.share();
    if !share.grow(bounds.bytes(&listing)) {
        return Err(ApiError::Overloaded);
    }
    let (jobs, next) = page(app, view, &listing, start, bounds, work).await?;
    work.jobs_read = work.jobs_read.max(least.jobs_read);
    let next_cursor = match next {
        Some(place) => Some(seal(app, place, &listing, view).await?),
        None => None,
    };
    let page = Page { jobs: jobs.iter().map(JobView::of).collect(), next_cursor };
    // These types serialise without fail: their keys are strings.
    let mut text = serde_json::to_vec(&page).unwrap_or_default();
    text.shrink_to_fit();
    share.shrink_to(text.len());
    Ok(as_json(paid([held(text, Arc::new(share))])))
}

async fn open(app: &App, text: &str, listing: &Listing, view: View<'_>) -> Result<LogPlace, ApiError> {
    let keys = app.secret.keys(&app.store).await?;
    cursor::open(&keys.cursors, text, listing, view).ok_or_else(|| ApiError::Invalid(vec![not_a_cursor()]))
}

fn not_a_cursor() -> Mistake {
    Mistake::in_query("cursor", "format", "must be the next_cursor of an earlier page of the same listing")
}

async fn seal(app: &App, place: LogPlace, listing: &Listing, view: View<'_>) -> Result<String, ApiError> {
    let keys = app.secret.keys(&app.store).await?;
    cursor::seal(&keys.cursors, place, listing, view).map_err(|_| ApiError::NoRandomness)
}

/// The jobs of the page, and where the next one begins. A page of a filtered listing, or of a caller that does not see all
/// jobs, may be short, or even empty, although more follow: its work is bounded. Whether a page is the last one depends on
/// the jobs that the caller sees, and on no others.
async fn page(
    app: &App,
    view: View<'_>,
    listing: &Listing,
    start: Option<LogPlace>,
    bounds: Bounds,
    work: &mut Work,
) -> Result<(Vec<Job>, Option<LogPlace>), ApiError> {
    let mut jobs = Vec::new();
    let bound = match listing.created_before {
        Some(before) => Some(app.store.log_before(before).await?),
        None => None,
    };
    // The cursor or the filter's time, whichever is earlier.
    let mut place = start.into_iter().chain(bound).min();
    let Bounds { mut to_scan, to_charge, chunk } = bounds;
    if view != View::All {
        // The number of scanned entries depends on others' jobs, and the caller sees its charge.
        work.entries_scanned = to_charge;
    }
    while to_scan > 0 {
        let mut log = app.store.log(place, chunk.min(to_scan)).await?;
        if view == View::All {
            work.entries_scanned += log.entries.len();
        }
        if !listing.is_filtered() {
            end_after(&mut log, view, listing.limit + 1 - jobs.len());
        }
        to_scan = to_scan.saturating_sub(log.entries.len());
        let is_seen = |entry: &LogEntry| view.shows(entry.owner.as_deref());
        // What the caller does not see is not even read.
        let seen = log.entries.iter().filter(|entry| is_seen(entry));
        let mut read = app.store.listed(&seen.map(|entry| entry.id).collect::<Vec<JobId>>()).await?;
        work.jobs_read += read.len();
        follow::bring_up_to_date(&app.store, &mut read).await?;
        let mut read = read.into_iter();
        for entry in &log.entries {
            // The log is in the order of acceptance, and no job is younger than its place in it.
            if listing.created_after.is_some_and(|after| entry.place.ms <= after) {
                return Ok((jobs, None));
            }
            let job = if is_seen(entry) { read.next().flatten() } else { None };
            let job = job.filter(|job| listing.shows(job));
            if job.is_some() && jobs.len() == listing.limit {
                return Ok((jobs, place));
            }
            jobs.extend(job);
            place = Some(entry.place);
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
                self.limit = limit.ok_or_else(wrong_limit)?;
            }
            "cursor" if cursor::has_form(value) => self.cursor = Some(value.to_owned()),
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

impl Bounds {
    /// For a caller that does not see all jobs, `to_scan` and `chunk` are random. A page that always ended after the same number of
    /// entries, or always took the same number of reads, would show the exact times of others' jobs to a caller that moves
    /// its start.
    fn of(listing: &Listing, view: View<'_>) -> Self {
        let to_scan = (listing.limit * SCAN_FACTOR).max(LEAST_SCAN);
        // One more than the page holds tells whether another page follows.
        let chunk = listing.limit + 1;
        if view == View::All {
            let least = if listing.is_filtered() { LEAST_CHUNK } else { 0 };
            return Self { to_scan, to_charge: to_scan, chunk: chunk.max(least) };
        }
        let chunk = at_least(chunk.max(LEAST_CHUNK));
        Self { to_scan: at_least(to_scan), to_charge: to_scan, chunk }
    }

    /// Memory for the entries that are read at a time, and for the jobs of the page.
    fn bytes(&self, listing: &Listing) -> usize {
        self.chunk * BYTES_READ + listing.limit * BYTES_SHOWN
    }
}

/// A random number from `least` to nearly twice that.
fn at_least(least: usize) -> usize {
    // Without random numbers, cursors are not sealed either.
    let random = getrandom::u32().unwrap_or_default() as usize;
    least + random % least
}

/// What is wrong with a limit that is none.
pub(crate) fn wrong_limit() -> Mistake {
    Mistake::in_query("limit", "out_of_range", format!("must be a whole number from 1 to {MOST}"))
}

/// Reads a query. No cursor that a client makes up is opened.
#[cfg(any(fuzzing, test))]
pub(crate) fn check_listing(uri: &Uri, key: &crate::secret::Seal) -> Result<(), Vec<Mistake>> {
    let listing = Listing::read(uri)?;
    assert!((1..=MOST).contains(&listing.limit));
    if let Some(text) = &listing.cursor {
        assert_eq!(cursor::open(key, text, &listing, View::All), None);
    }
    Ok(())
}

/// Opens a cursor for a place, which must lead back to it.
#[cfg(any(fuzzing, test))]
pub(crate) fn cursor_round_trip(key: &crate::secret::Seal, place: [u8; 17]) {
    let (place, listing) = (LogPlace::from_bytes(place), Listing::default());
    let sealed = cursor::seal(key, place, &listing, View::Unowned).ok();
    let opened = sealed.and_then(|sealed| cursor::open(key, &sealed, &listing, View::Unowned));
    assert_eq!(opened, Some(place));
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

/// A moment as the service writes it: RFC 3339, in UTC. The letters T and Z may be small (section 5.6).
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
