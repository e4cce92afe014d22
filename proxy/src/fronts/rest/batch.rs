//! `POST /predict/batch`: accepts many jobs in one round trip to Redis. Each is a job of its own: one that is refused
//! does not keep the others back.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::Response,
};
use serde_json::Value;
use tepal_shared::{
    job::{JobId, JobStatus, NewJob},
    model::Model,
    process::trace::Submit,
};

use super::submit;
use crate::{
    edge::{
        access::Caller,
        cost::{Tab, Work},
        observe::request_id,
    },
    error::{ApiError, MOST_BYTES, Mistake},
    http::{
        answer::{held, paid},
        budget::{Meter, Share},
        headers, json,
    },
    jobs::{idempotency::Key, quota, submission::Submission},
    state::App,
};

/// Most jobs of a batch.
pub(crate) const MOST: usize = 1000;
/// So many refused jobs get a complete problem, the others what a program needs.
const COMPLETE: usize = 20;
/// An answer holds at most so many bytes for each job, beside those of one error.
pub(crate) const BYTES_A_JOB: usize = 128;
/// No outcome but a complete problem takes more.
const LEAST_BYTES_A_JOB: usize = 104;
/// Bytes around a problem, and at the end.
const FRAME: usize = r#"{"problem":}]}"#.len();
const PATH: &str = "/predict/batch";
const LINES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// What came of one item.
type Outcome = Result<(JobId, JobStatus), ApiError>;

/// Accepts the jobs of the body: a JSON array, or one JSON object a line. Each counts as one request.
pub(crate) async fn predict_all(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let mut tab = Tab::open(&app, &caller, &request);
    let outcome = accept_all(&app, &caller, request, &mut tab).await;
    let outcome = outcome.inspect_err(|error| app.metrics.refused(error.code()));
    tab.close(Work::default(), outcome)
}

/// Charges the jobs of a batch but the first, as which the request was admitted.
fn charge(tab: &mut Tab, jobs: usize) -> Result<(), ApiError> {
    let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
    if let Some(limit) = tab.limit().filter(|limit| jobs > *limit) {
        let detail = format!(
            "must hold at most {limit} jobs: each counts as a request, of which {limit} a minute are allowed"
        );
        return Err(wrong("too_many_jobs", &detail));
    }
    tab.charge(jobs.saturating_sub(1))
}

async fn accept_all(
    app: &App,
    caller: &Caller,
    request: Request,
    tab: &mut Tab,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let is_lines = headers::is_declared(headers, &LINES)?;
    if !is_lines && !headers::is_declared(headers, &["application/json"])? {
        return Err(ApiError::NotDeclaredJsonLines);
    }
    let read = if is_lines { lines } else { elements };
    let (mut items, _memory) = app.bodies.read(body, |bytes, meter| read(bytes, &app.model, meter)).await?;
    charge(tab, items.len())?;
    quota::charge(app, caller, &parts, items.iter_mut().flatten()).await?;
    let mut share = app.bodies.share();
    // Before anything is stored.
    if !share.grow(MOST_BYTES + BYTES_A_JOB * items.len()) {
        return Err(ApiError::Overloaded);
    }
    let jobs = new_jobs(app, caller, headers, items)?;
    let outcomes = submitted(app, caller, jobs, started).await?;
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        app.metrics.refused(error.code());
    }
    Ok(answer(&outcomes, request_id(headers).unwrap_or_default(), share))
}

pub(crate) type Item<T> = Result<T, ApiError>;
/// A job that can be stored, and the span that it belongs to.
type Prepared = Item<((JobId, Arc<NewJob>), Submit)>;

/// The elements of a JSON array.
pub(crate) fn elements(
    body: &[u8],
    model: &Model,
    meter: &mut Meter,
) -> Result<Vec<Item<Submission>>, ApiError> {
    let Some(items) = json::parse_list(body, MOST, meter)? else {
        return Err(wrong("type", "must be a list of jobs, or one job a line as application/x-ndjson"));
    };
    check_length(items.len())?;
    Ok(read_all(items, model))
}

/// The lines of an NDJSON body. A line that is no JSON spoils only itself.
pub(crate) fn lines(
    body: &[u8],
    model: &Model,
    meter: &mut Meter,
) -> Result<Vec<Item<Submission>>, ApiError> {
    let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    check_length(lines().take(MOST + 1).count())?;
    let items = read_all(lines().map(|line| json::parse(line, meter)), model);
    if meter.is_exceeded() { Err(ApiError::Overloaded) } else { Ok(items) }
}

fn read_all(items: impl IntoIterator<Item = Item<Value>>, model: &Model) -> Vec<Item<Submission>> {
    let mut refused = 0;
    let read = |item| {
        let mut outcome = read(item, model);
        if let Err(ApiError::Invalid(mistakes)) = &mut outcome {
            refused += 1;
            if refused > COMPLETE {
                // Nobody is told of the others.
                mistakes.truncate(1);
            }
        }
        outcome
    };
    items.into_iter().map(read).collect()
}

fn read(item: Item<Value>, model: &Model) -> Item<Submission> {
    Submission::read(item?, model).map_err(ApiError::Invalid)
}

fn check_length(length: usize) -> Result<(), ApiError> {
    match length {
        0 => Err(wrong("empty", &format!("must hold 1 to {MOST} jobs, but is empty"))),
        1..=MOST => Ok(()),
        _ => Err(wrong("too_many_jobs", &format!("must hold 1 to {MOST} jobs, not more"))),
    }
}

fn wrong(code: &'static str, detail: &str) -> ApiError {
    ApiError::Invalid(vec![Mistake::at("", code, detail)])
}

fn new_jobs(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    items: Vec<Item<Submission>>,
) -> Result<Vec<Prepared>, ApiError> {
    let key = Key::read(headers, caller.owner())?;
    let job = |(index, item): (usize, Item<Submission>)| {
        let key = key.as_ref().map(|key| key.of_item(index));
        item.map(|submission| submit::new_job(app, caller, headers, key, submission))
    };
    Ok(items.into_iter().enumerate().map(job).collect())
}

/// Stores what can be stored; one outcome for each item, in order.
async fn submitted(
    app: &App,
    caller: &Caller,
    items: Vec<Prepared>,
    started: Instant,
) -> Result<Vec<Outcome>, ApiError> {
    let mut refused = Vec::with_capacity(items.len());
    let (mut jobs, mut spans) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for item in items {
        match item {
            Ok((job, span)) => {
                jobs.push(job);
                spans.push(span);
                refused.push(None);
            }
            Err(error) => refused.push(Some(error)),
        }
    }
    let outcomes = app.store.submit_all(&jobs).await.map_err(ApiError::of_change)?;
    let mut taken = jobs
        .iter()
        .zip(spans)
        .zip(outcomes)
        .map(|((job, span), outcome)| submit::taken(app, caller, job, span, outcome, started));
    // There is one outcome for each job, so none is missing.
    let next = |refused: Option<ApiError>| refused.map_or_else(|| taken.next(), |error| Some(Err(error)));
    Ok(refused.into_iter().filter_map(next).collect())
}

/// The answer to these items, had all that can be stored been stored.
#[cfg(any(fuzzing, test))]
pub(crate) fn answer_to(items: Vec<Item<Submission>>) -> String {
    let stored = |_| (JobId::new(0), JobStatus::Processing);
    let outcomes: Vec<Outcome> = items.into_iter().map(|item| item.map(stored)).collect();
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    body(&outcomes, refused, "00000000-0000-0000-0000-000000000000")
}

fn answer(outcomes: &[Outcome], request_id: &str, share: Share) -> Response {
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let mut response = super::as_json(paid([held(body(outcomes, refused, request_id), Arc::new(share))]));
    *response.status_mut() = if refused == 0 { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    if let Some(seconds) = errors.filter_map(ApiError::retry_after).max() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The outcomes, in at most [`MOST_BYTES`] and [`BYTES_A_JOB`] for each.
fn body(outcomes: &[Outcome], refused: usize, request_id: &str) -> String {
    let mut body = format!(r#"{{"accepted":{},"refused":{refused},"jobs":["#, outcomes.len() - refused);
    let most = MOST_BYTES + BYTES_A_JOB * outcomes.len();
    let mut complete = refused.min(COMPLETE);
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        let later = LEAST_BYTES_A_JOB * (outcomes.len() - index - 1);
        let room = most.saturating_sub(later + body.len() + FRAME);
        match outcome {
            Ok((id, status)) => body.push_str(&format!(r#"{{"job_id":"{id}","status":"{status}"}}"#)),
            Err(error) => {
                let instance = format!("{PATH}#/{index}");
                let problem = problem(error, &instance, request_id, room, &mut complete);
                body.push_str(&format!(r#"{{"problem":{}}}"#, String::from_utf8_lossy(&problem)));
            }
        }
    }
    body.push_str("]}");
    body
}

/// One of the next `complete` problems: complete if it fits, with as many of its mistakes as its share of the room holds.
fn problem(error: &ApiError, instance: &str, request_id: &str, room: usize, complete: &mut usize) -> Vec<u8> {
    if let Some(others) = complete.checked_sub(1) {
        let share = (room / (others + 1)).min(MOST_BYTES);
        *complete = others;
        let problem = error.problem_within(share, instance, request_id);
        if problem.len() <= room {
            return problem;
        }
    }
    error.brief_problem()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(body: &str) -> Vec<Value> {
        let mut body: Value = serde_json::from_str(body).unwrap();
        body["jobs"].as_array_mut().unwrap().iter_mut().map(|job| job["problem"].take()).collect()
    }

    fn refused(jobs: usize, mistakes: usize) -> Vec<Outcome> {
        let mistake = || Mistake::at(format!("/{}", "~".repeat(5000)), "type", "\u{1}".repeat(5000));
        let error = || ApiError::Invalid((0..mistakes).map(|_| mistake()).collect());
        (0..jobs).map(|_| Err(error())).collect()
    }

    #[test]
    fn refused_jobs_take_a_bounded_number_of_bytes_each() {
        for jobs in [1, 2, 3, 19, 20, 21, 40, 999, 1000] {
            for mistakes in [1, 20] {
                let text = body(&refused(jobs, mistakes), jobs, &"\"".repeat(128));
                assert!(text.len() <= MOST_BYTES + BYTES_A_JOB * jobs, "{jobs} {mistakes}: {}", text.len());
                assert_eq!(problems(&text).len(), jobs);
            }
        }
    }

    #[test]
    fn the_first_problems_are_complete_and_the_others_brief() {
        let outcomes: Vec<Outcome> = (0..100).map(|_| Err(ApiError::QueueFull(5))).collect();
        let problems = problems(&body(&outcomes, 100, "r-1"));
        assert!(problems[..COMPLETE].iter().all(|problem| problem["detail"].is_string()));
        assert_eq!(problems[COMPLETE - 1]["instance"], "/predict/batch#/19");
        let brief = serde_json::json!({"type": "/problems/queue-full", "status": 503, "code": "queue_full"});
        assert!(problems[COMPLETE..].iter().all(|problem| *problem == brief));
    }

    #[test]
    fn the_jobs_of_a_small_batch_share_the_room_for_their_mistakes() {
        let mistake =
            |index| Mistake::at(format!("/data/0/{index}"), "type", "must be a number, not a string");
        let outcomes: Vec<Outcome> =
            (0..5).map(|_| Err(ApiError::Invalid((0..20).map(mistake).collect()))).collect();
        let problems = problems(&body(&outcomes, 5, "r-1"));
        let told = problems.iter().map(|problem| problem["errors"].as_array().unwrap().len());
        assert!(told.clone().all(|errors| (3..20).contains(&errors)), "{:?}", told.collect::<Vec<_>>());
    }
}
