//! `GET /jobs`: lists jobs, newest first, over all partitions.

mod contract;
mod cursor;
mod form;
mod listing;
mod page;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::Uri,
    response::Response,
};
use tepal_shared::{
    job::{Job, JobId, owner::View},
    queue::views::{LogEntry, LogPage, LogPlace},
};

pub(super) use self::contract::list_operation;
#[cfg(any(fuzzing, test))]
use self::listing::MOST;
use self::{
    listing::{Listing, not_a_cursor},
    page::Page,
};
use super::job::view::JobView;
use crate::{
    edge::{
        access::{Caller, Visibility},
        cost::{Tab, Work},
    },
    error::ApiError,
    http::answer::{as_json, held, paid},
    state::App,
};
#[cfg(any(fuzzing, test))]
use crate::{error::Mistake, secret::Seal};

/// A page scans at most this many log entries for each job that it may show, but always up to [`LEAST_SCAN`].
const SCAN_FACTOR: usize = 10;
const LEAST_SCAN: usize = 1000;
/// Memory of an entry and its job while they are read.
const BYTES_READ: usize = 1 << 10;
/// Memory of a job of the page: as a record and as text, twice while the text grows.
const BYTES_SHOWN: usize = 2 << 10;
/// A filtered page reads at least this many jobs at a time.
const LEAST_CHUNK: usize = 100;

/// How much of the log one page scans.
struct Bounds {
    /// Most entries.
    to_scan: usize,
    /// The entries that a caller is charged for, if it must not learn how many were scanned.
    to_charge: usize,
    /// How many are read at a time.
    chunk: usize,
}

/// One page.
pub(crate) async fn list(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let mut tab = Tab::open(app.account(&caller, &request));
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
    // It may read fewer jobs. They are charged all the same.
    let least = Work { jobs_read: listing.limit, ..Work::default() };
    tab.charge_for(least)?;
    let sees = caller.sees();
    let start = match &listing.cursor {
        Some(text) => Some(open(app, text, &listing, sees.view).await?),
        None => None,
    };
    let bounds = Bounds::of(&listing, sees);
    let mut share = app.bodies.share();
    if !share.grow(bounds.bytes(&listing)) {
        return Err(ApiError::Overloaded);
    }
    let (jobs, next) = page(app, sees, &listing, start, bounds, work).await?;
    work.jobs_read = work.jobs_read.max(least.jobs_read);
    let next_cursor = match next {
        Some(place) => Some(seal(app, place, &listing, sees.view).await?),
        None => None,
    };
    let page = Page { jobs: jobs.iter().map(JobView::of).collect(), next_cursor };
    // Serialising these types cannot fail: their keys are strings.
    let mut text = serde_json::to_vec(&page).unwrap_or_default();
    text.shrink_to_fit();
    share.shrink_to(text.len());
    Ok(as_json(paid([held(text, Arc::new(share))])))
}

async fn open(app: &App, text: &str, listing: &Listing, view: View<'_>) -> Result<LogPlace, ApiError> {
    let keys = app.secret.keys(&app.store).await?;
    cursor::open(&keys.cursors, text, listing, view).ok_or_else(|| ApiError::Invalid(vec![not_a_cursor()]))
}

async fn seal(app: &App, place: LogPlace, listing: &Listing, view: View<'_>) -> Result<String, ApiError> {
    let keys = app.secret.keys(&app.store).await?;
    cursor::seal(&keys.cursors, place, listing, view).map_err(|_| ApiError::NoRandomness)
}

/// The jobs of the page, and where the next page begins. The work for a page is bounded. So a page of a filtered listing, or of a
/// caller that does not see all jobs, may be short or even empty although more jobs follow. Whether a page is the last one
/// depends only on the jobs that the caller sees.
async fn page(
    app: &App,
    sees: Visibility<'_>,
    listing: &Listing,
    start: Option<LogPlace>,
    bounds: Bounds,
    work: &mut Work,
) -> Result<(Vec<Job>, Option<LogPlace>), ApiError> {
    let mut jobs = Vec::new();
    let bound = match listing.created_before {
        Some(before) => Some(app.store.views.log_before(before).await?),
        None => None,
    };
    // The cursor or the filter's time, whichever is earlier.
    let mut place = start.into_iter().chain(bound).min();
    let Bounds { mut to_scan, to_charge, chunk } = bounds;
    if !sees.is_all() {
        // The number of scanned entries depends on others' jobs, and the caller sees its charge.
        work.entries_scanned = to_charge;
    }
    while to_scan > 0 {
        let mut log = app.store.views.log(place, chunk.min(to_scan)).await?;
        if sees.is_all() {
            work.entries_scanned += log.entries.len();
        }
        if !listing.is_filtered() && sees.models.is_none() {
            end_after(&mut log, sees.view, listing.limit + 1 - jobs.len());
        }
        to_scan = to_scan.saturating_sub(log.entries.len());
        let is_seen = |entry: &LogEntry| sees.view.shows(entry.owner.as_deref());
        // Jobs that the caller does not see are not read.
        let seen = log.entries.iter().filter(|entry| is_seen(entry));
        let mut read = app.store.views.listed(&seen.map(|entry| entry.id).collect::<Vec<JobId>>()).await?;
        work.jobs_read += hide_other_models(&mut read, sees);
        app.store.bring_up_to_date(&mut read).await?;
        let mut read = read.into_iter();
        for entry in &log.entries {
            // The log is in the order of acceptance, and no job is younger than its log entry.
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

/// Removes the jobs of models that the caller does not see: the log does not name models. Returns how many jobs are charged. Removed
/// ones are not, so that the charge does not count them.
fn hide_other_models(read: &mut [Option<Job>], sees: Visibility<'_>) -> usize {
    if sees.models.is_none() {
        return read.len();
    }
    for job in read.iter_mut() {
        drop(job.take_if(|job| !sees.shows(job)));
    }
    read.iter().flatten().count()
}

/// Truncates the page of the log after the entry with which the caller has seen `most` jobs. The rest need not be read.
fn end_after(log: &mut LogPage, view: View<'_>, most: usize) {
    let seen = log.entries.iter().enumerate().filter(|(_, entry)| view.shows(entry.owner.as_deref()));
    let Some(last) = seen.map(|(index, _)| index).nth(most.saturating_sub(1)) else { return };
    log.more |= last + 1 < log.entries.len();
    log.entries.truncate(last + 1);
}

impl Bounds {
    /// For a caller that does not see all jobs, `to_scan` and `chunk` are random. If a page always ended after the same number of
    /// entries, or always took the same number of reads, a caller that moves its start could learn the exact times of others'
    /// jobs.
    fn of(listing: &Listing, sees: Visibility<'_>) -> Self {
        let to_scan = (listing.limit * SCAN_FACTOR).max(LEAST_SCAN);
        // One more job than the page holds shows whether another page follows.
        let chunk = listing.limit + 1;
        if sees.is_all() {
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
    // Without random numbers, sealing the cursor fails, too.
    let random = getrandom::u32().unwrap_or_default() as usize;
    least + random % least
}

/// Parses a query. A cursor that a client invents cannot be opened.
#[cfg(any(fuzzing, test))]
pub(crate) fn check_listing(uri: &Uri, key: &Seal) -> Result<(), Vec<Mistake>> {
    let listing = Listing::read(uri)?;
    assert!((1..=MOST).contains(&listing.limit));
    if let Some(text) = &listing.cursor {
        assert_eq!(cursor::open(key, text, &listing, View::All), None);
    }
    Ok(())
}

/// Seals a position in a cursor and opens it again.
#[cfg(any(fuzzing, test))]
pub(crate) fn cursor_round_trip(key: &Seal, place: [u8; 17]) {
    let (place, listing) = (LogPlace::from_bytes(place), Listing::default());
    let sealed = cursor::seal(key, place, &listing, View::Unowned).ok();
    let opened = sealed.and_then(|sealed| cursor::open(key, &sealed, &listing, View::Unowned));
    assert_eq!(opened, Some(place));
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
