//! A job with its result, as parts of an answer. Their memory is reserved before they are made.

use std::sync::Arc;

use axum::body::Bytes;
use tepal_shared::job::{Job, JobResult};

use super::view;
use crate::{
    http::answer::{SMALL, held},
    jobs::results::Unread,
    state::App,
};

/// Most bytes of a job without its result. It contains no text of the client, and errors are short.
pub(crate) const BYTES_WITHOUT_RESULT: usize = 1024;

/// The body of `GET /job/{id}` between two texts; `None` if the job is gone. A large result is shared by all answers that contain
/// it.
pub(crate) async fn parts(
    app: &App,
    job: &Job,
    before: &str,
    after: &str,
) -> Result<Option<Vec<Bytes>>, Unread> {
    if job.result.as_ref().is_some_and(JobResult::is_large) {
        let Some(result) = app.results.json(job).await? else { return Ok(None) };
        let (start, end) = view::around_result(job);
        let (start, end) = ([before, &start].concat(), [end, after].concat());
        return Ok(Some([vec![start.into()], result, vec![end.into()]].concat()));
    }
    let size = job.result.as_ref().map_or(0, JobResult::most_bytes) + BYTES_WITHOUT_RESULT;
    let mut share = app.bodies.share();
    if !share.grow(size) {
        return Err(Unread::NoRoom);
    }
    let text = [before, &view::body(job), after].concat();
    Ok(Some(vec![if size > SMALL { held(text, Arc::new(share)) } else { text.into() }]))
}
