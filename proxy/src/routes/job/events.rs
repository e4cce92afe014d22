//! `GET /job/{id}` as server-sent events (HTML Living Standard, "Server-sent events"): one event for each change, the
//! last one with the outcome. The data of each is the body that a plain GET would have had.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use tepal_shared::{
    job::{Job, JobId},
    owner::View,
};

use super::view;
use crate::{
    error::ApiError,
    follow::{self, Follower},
    state::App,
};

/// Shorter than the idle timeouts of common load balancers.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After how long a client is to come back when the stream broke.
const RECONNECT: Duration = Duration::from_secs(1);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to hold events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The stream of a job's changes, from how it stands now to its end, if the caller sees it.
pub(super) async fn stream(
    app: Arc<App>,
    view: View<'_>,
    id: JobId,
    request: &HeaderMap,
) -> Result<Response, ApiError> {
    let job = follow::current(&app, view, id).await?.ok_or(ApiError::JobNotFound)?;
    let seen = request.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let is_seen = seen == Some(view::tag(&job).as_str());
    if is_seen && job.status.is_terminal() {
        // A browser reconnects whenever a stream ends, unless it is told that there is no more.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("waiting");
    let mut response = Sse::new(changes(app, job, is_seen)).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// How far a stream has come.
struct Progress {
    app: Arc<App>,
    /// `None` when the job has ended.
    follower: Option<Follower>,
    told: String,
    due: VecDeque<Event>,
}

fn changes(app: Arc<App>, job: Job, is_seen: bool) -> impl Stream<Item = Result<Event, Infallible>> {
    let follower = (!job.status.is_terminal()).then(|| Follower::new(&app, &job));
    let due = if is_seen { VecDeque::new() } else { VecDeque::from([event(&job).retry(RECONNECT)]) };
    let progress = Progress { app, follower, told: view::tag(&job), due };
    stream::unfold(progress, async |mut progress| {
        let event = progress.next().await?;
        Some((Ok(event), progress))
    })
}

impl Progress {
    /// The next event; `None` after the outcome, when the job is gone, or when the service stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.due.pop_front() {
                return Some(event);
            }
            let follower = self.follower.as_mut()?;
            self.app.shutdown.or(follower.news()).await?;
            let job = match follower.look(&self.app).await {
                Ok(job) => job?,
                // The client hears comments meanwhile.
                Err(error) if error.is_retryable() => continue,
                Err(_) => return None,
            };
            if job.status.is_terminal() {
                self.follower = None;
            }
            let tag = view::tag(&job);
            if tag != self.told {
                self.told = tag;
                self.due.push_back(event(&job));
            }
        }
    }
}

fn event(job: &Job) -> Event {
    let name = if job.status.is_terminal() { "outcome" } else { "status" };
    Event::default().id(view::tag(job)).event(name).data(view::body(job))
}
