//! `GET /jobs`: lists jobs, newest first, over all partitions.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::Uri,
    response::Response,
};
use serde::Serialize;
use tepal_shared::{
    job::{Job, JobStatus},
    store::LogPlace,
};

use super::{job::JobView, json};
use crate::{
    error::{ApiError, Mistake},
    state::App,
};

const DEFAULT_LIMIT: usize = 50;
const MOST: usize = 1000;
/// A page looks at no more than this many log entries for each job that it may show.
const SCAN_FACTOR: usize = 10;

/// What the query asks for.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    status: Option<JobStatus>,
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
pub(crate) async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, ApiError> {
    let listing = Listing::read(&uri).map_err(ApiError::Invalid)?;
    let (jobs, next) = page(&app, &listing).await?;
    let page = Page {
        jobs: jobs.iter().map(JobView::of).collect(),
        next_cursor: next.map(|place| place.to_string()),
    };
    // These types serialise without fail: their keys are strings.
    Ok(json(serde_json::to_vec(&page).unwrap_or_default()))
}

/// The jobs of the page, and where the next one begins. A page of a filtered listing may be short, or even empty,
/// although more follow: its work is bounded.
async fn page(app: &App, listing: &Listing) -> Result<(Vec<Job>, Option<LogPlace>), ApiError> {
    let mut jobs = Vec::new();
    let mut place = listing.cursor;
    let mut to_scan = listing.limit * SCAN_FACTOR;
    while to_scan > 0 {
        // One more than the page holds tells whether another page follows.
        let log = app.store.log(place, (listing.limit + 1).min(to_scan)).await?;
        let (places, ids): (Vec<_>, Vec<_>) = log.entries.into_iter().unzip();
        to_scan = to_scan.saturating_sub(ids.len());
        let count = places.len();
        for (index, (at, job)) in places.into_iter().zip(app.store.listed(&ids).await?).enumerate() {
            place = Some(at);
            jobs.extend(job.filter(|job| listing.status.is_none_or(|status| job.status == status)));
            if jobs.len() == listing.limit {
                let is_end = index + 1 == count && !log.more;
                return Ok((jobs, place.filter(|_| !is_end)));
            }
        }
        if !log.more {
            return Ok((jobs, None));
        }
    }
    Ok((jobs, place))
}

impl Listing {
    fn read(uri: &Uri) -> Result<Self, Vec<Mistake>> {
        let parameters =
            Query::<Vec<(String, String)>>::try_from_uri(uri).map_or_else(|_| Vec::new(), |query| query.0);
        let mut listing = Self { status: None, limit: DEFAULT_LIMIT, cursor: None };
        let mut mistakes = Vec::new();
        for (index, (name, value)) in parameters.iter().enumerate() {
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
                let detail = "is not a parameter of this request; known are status, limit and cursor";
                return Err(Mistake::in_query(name, "unknown_parameter", detail));
            }
        }
        Ok(())
    }
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
        assert_eq!(read("/jobs"), Ok(Listing { status: None, limit: 50, cursor: None }));
        assert_eq!(read("/jobs?"), read("/jobs"));
    }

    #[test]
    fn every_parameter_is_read() {
        let cursor = LogPlace { ms: 5, seq: 2, partition: 1 };
        let expected = Listing { status: Some(JobStatus::Failed), limit: 1000, cursor: Some(cursor) };
        assert_eq!(read("/jobs?status=failed&limit=1000&cursor=5-2-1"), Ok(expected));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let codes = read("/jobs?status=done&limit=0&cursor=x&order=up&limit=5").unwrap_err();
        assert_eq!(codes, ["unknown_value", "out_of_range", "format", "unknown_parameter", "repeated"]);
    }
}
