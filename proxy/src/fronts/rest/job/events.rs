//! `GET /job/{id}` as server-sent events (HTML Living Standard, "Server-sent events"): one event for each change, the last one
//! with the outcome. The data of each event is the body that a plain GET would return.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use tepal_shared::job::{Job, JobId};
use tokio::time::{Instant, sleep_until};

use super::{view, whole::parts};
use crate::{
    edge::{access::Visibility, cost::RunningTab},
    error::ApiError,
    http::answer::Pieces,
    jobs::{follow::Follower, results::Unread},
    state::App,
};

/// Shorter than the idle timeouts of common load balancers.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &str = ": waiting\n\n";
/// After how long a client reconnects after a broken stream.
const RECONNECT: &str = "retry: 1000\n";
/// When to read a large result again after a lack of memory or a failure of Redis.
const PAUSE: Duration = Duration::from_secs(1);
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks nginx not to buffer events.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The stream of a job's changes, from its present state to its end, if the caller may see it.
pub(super) async fn stream(
    app: Arc<App>,
    sees: Visibility<'_>,
    id: JobId,
    request: &HeaderMap,
    mut tab: RunningTab,
) -> Result<Response, ApiError> {
    let job = app.store.current(sees, id).await?.ok_or(ApiError::JobNotFound)?;
    let seen = request.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let tag = view::tag(&job);
    let is_seen = seen == Some(tag.as_str());
    if is_seen && job.status.is_terminal() {
        // A browser reconnects whenever a stream ends, unless it gets 204.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let due = if is_seen {
        Pieces::default()
    } else {
        let event = event(&app, &job, RECONNECT).await?.ok_or(ApiError::JobNotFound)?;
        // The first part is always sent.
        let _ = tab.charge(event.bytes());
        event
    };
    let follower = (!job.status.is_terminal()).then(|| app.following.follow(&job));
    let comment_at = Instant::now() + KEEP_ALIVE;
    let mut response = Progress { app, follower, tag, due, tab, comment_at }.into_body().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The progress of a stream.
struct Progress {
    app: Arc<App>,
    /// `None` when the job has ended.
    follower: Option<Follower>,
    /// The tag of the last event.
    tag: String,
    due: Pieces,
    tab: RunningTab,
    /// When a comment is due, if nothing else is sent.
    comment_at: Instant,
}

/// What the stream does after a read of the job.
enum Next {
    /// An event is due, or nothing changed: the stream goes on.
    Continue,
    /// The stream ends.
    End,
}

impl Progress {
    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut progress| {
            let piece = progress.next().await?;
            Some((Ok::<_, Infallible>(piece), progress))
        }))
    }

    /// The next bytes. `None` after the outcome, if the job is gone, if the client has reached its rate limit, or if the service
    /// stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.due.next_piece() {
                self.comment_at = Instant::now() + KEEP_ALIVE;
                return Some(piece);
            }
            let follower = self.follower.as_mut()?;
            let heard = tokio::select! {
                heard = self.app.shutdown.run_until_cancelled(follower.news()) => heard?,
                () = sleep_until(self.comment_at) => {
                    self.comment_at += KEEP_ALIVE;
                    return Some(Bytes::from_static(COMMENT.as_bytes()));
                }
            };
            if let Next::End = self.read(heard).await {
                return None;
            }
        }
    }

    async fn read(&mut self, heard: Instant) -> Next {
        let Some(follower) = &mut self.follower else { return Next::End };
        let job = match follower.read(&self.app.following, heard).await {
            Ok(Some(job)) => job,
            // Meanwhile the client receives comments.
            Err(error) if error.is_retryable() => return Next::Continue,
            Ok(None) | Err(_) => return Next::End,
        };
        let tag = view::tag(&job);
        if tag == self.tag {
            return Next::Continue;
        }
        match event(&self.app, &job, "").await {
            Ok(Some(event)) if self.tab.charge(event.bytes()) => self.due = event,
            Err(unread) if unread.is_retryable() => {
                follower.read_again_after(PAUSE);
                return Next::Continue;
            }
            _ => return Next::End,
        }
        if job.status.is_terminal() {
            self.follower = None;
        }
        self.tag = tag;
        Next::Continue
    }
}

/// The state of the job, as an event that begins with these lines; `None` if it is gone.
async fn event(app: &App, job: &Job, lines: &str) -> Result<Option<Pieces>, Unread> {
    let name = if job.status.is_terminal() { "outcome" } else { "status" };
    let before = format!("{lines}id: {}\nevent: {name}\ndata: ", view::tag(job));
    let parts = parts(app, job, &before, "\n\n").await?;
    Ok(parts.map(Pieces::from_iter))
}
