//! `POST /predict/batch`: accepts many jobs in one round trip to Redis. Each item is its own job: an invalid item does not affect
//! the others.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
#[cfg(any(fuzzing, test))]
use tepal_shared::job::JobId;
use tepal_shared::job::JobStatus;
use tepal_shared::model::Model;

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::{ConcatErrors as _, REQUEST_ID, invalid_body, reading_a_body, submitting},
};
use super::{accepted::AcceptedJob, extract, idempotency, submit::submission};
use crate::{
    edge::{
        access::Caller,
        cost::{Tab, Work},
        request_id,
    },
    error::{ApiError, BriefProblem, MOST_BYTES, Mistake, Problem},
    http::{
        answer::{as_json, held, paid},
        budget::{Meter, Share},
        headers, json as json_text,
    },
    jobs::{
        intake::{Accepted, Prepared},
        submission::Submission,
    },
    state::App,
};

/// Most jobs of a batch.
pub(crate) const MOST: usize = 1000;
/// The first rejected jobs get a complete problem, the others only the parts that a program needs.
const COMPLETE: usize = 20;
/// An answer has at most so many bytes for each job, in addition to those of one error.
pub(crate) const BYTES_A_JOB: usize = 128;
/// No outcome but a complete problem needs more.
const LEAST_BYTES_A_JOB: usize = 104;
/// Bytes around a problem.
const FRAME: usize = r#"{"problem":}"#.len();
/// The end of an answer, after its jobs.
const END: &str = "]}";
const PATH: &str = "/predict/batch";
const LINES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// The outcome of one item.
type Outcome = Result<Accepted, ApiError>;

/// Accepts the jobs of the body: a JSON array, or one JSON object a line. Each counts as one request.
pub(crate) async fn predict_all(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let mut tab = Tab::open(app.account(&caller, &request));
    let outcome = accept_all(&app, &caller, request, &mut tab).await;
    let outcome = outcome.inspect_err(|error| app.metrics.refused(error.code()));
    tab.close(Work::default(), outcome)
}

/// Charges all jobs of a batch but the first, which was charged at admission.
fn charge(tab: &mut Tab, jobs: usize) -> Result<(), ApiError> {
    let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
    if let Some(limit) = tab.limit().filter(|limit| jobs > *limit) {
        let detail = format!(
            "must hold at most {limit} jobs: each counts as a request, and {limit} requests a minute are allowed"
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
    app.charges.charge(|| extract::payer(app, caller, &parts), items.iter_mut().flatten()).await?;
    let mut share = app.bodies.share();
    // Memory is reserved before anything is stored.
    if !share.grow(MOST_BYTES + BYTES_A_JOB * items.len()) {
        return Err(ApiError::Overloaded);
    }
    let outcomes = submit(app, caller, headers, items, started).await?;
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        app.metrics.refused(error.code());
    }
    Ok(answer(&outcomes, request_id::of(headers).unwrap_or_default(), share))
}

pub(crate) type Item<T> = Result<T, ApiError>;

/// The elements of a JSON array.
pub(crate) fn elements(
    body: &[u8],
    model: &Model,
    meter: &mut Meter,
) -> Result<Vec<Item<Submission>>, ApiError> {
    let Some(items) = json_text::parse_list(body, MOST, meter)? else {
        return Err(wrong("type", "must be a list of jobs, or one job a line as application/x-ndjson"));
    };
    check_length(items.len())?;
    Ok(read_all(items, model))
}

/// The lines of an NDJSON body. A line that is not JSON does not affect the others.
pub(crate) fn lines(
    body: &[u8],
    model: &Model,
    meter: &mut Meter,
) -> Result<Vec<Item<Submission>>, ApiError> {
    let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    check_length(lines().take(MOST + 1).count())?;
    let items = read_all(lines().map(|line| json_text::parse(line, meter)), model);
    if meter.is_exceeded() { Err(ApiError::Overloaded) } else { Ok(items) }
}

fn read_all(items: impl IntoIterator<Item = Item<Value>>, model: &Model) -> Vec<Item<Submission>> {
    let mut refused = 0;
    let read = |item| {
        let mut outcome = read(item, model);
        if let Err(ApiError::Invalid(mistakes)) = &mut outcome {
            refused += 1;
            if refused > COMPLETE {
                // The answer does not show the others.
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

/// Submits the valid items. Returns one outcome for each item, in their order.
async fn submit(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    items: Vec<Item<Submission>>,
    started: Instant,
) -> Result<Vec<Outcome>, ApiError> {
    let key = idempotency::key(headers, caller.owner())?;
    let sender = extract::sender(caller, headers);
    let mut jobs: Vec<Prepared> = Vec::with_capacity(items.len());
    let mut rejected: Vec<Option<ApiError>> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let key = key.as_ref().map(|key| key.of_item(index));
        rejected.push(match item {
            Ok(submission) => {
                jobs.push(app.intake.prepare(&sender, key, submission));
                None
            }
            Err(error) => Some(error),
        });
    }
    let mut outcomes = app.intake.submit_all(&sender, jobs, started).await?.into_iter();
    // Each job has its outcome, so none is missing.
    let next =
        |rejected: Option<ApiError>| rejected.map_or_else(|| outcomes.next(), |error| Some(Err(error)));
    Ok(rejected.into_iter().filter_map(next).collect())
}

/// The answer to these items if all valid ones were stored.
#[cfg(any(fuzzing, test))]
pub(crate) fn answer_to(items: Vec<Item<Submission>>) -> String {
    let stored = |_| (JobId::new(0), JobStatus::Processing);
    let outcomes: Vec<Outcome> = items.into_iter().map(|item| item.map(stored)).collect();
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    body(&outcomes, refused, "00000000-0000-0000-0000-000000000000")
}

fn answer(outcomes: &[Outcome], request_id: &str, share: Share) -> Response {
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let mut response = as_json(paid([held(body(outcomes, refused, request_id), Arc::new(share))]));
    *response.status_mut() = if refused == 0 { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    if let Some(seconds) = errors.filter_map(ApiError::retry_after).max() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The answer. Its jobs are written one by one, because the answer is bounded.
#[derive(Serialize, JsonSchema)]
#[schemars(description = "The outcome of each job, in the order of the request")]
struct BatchAnswer<'a> {
    accepted: usize,
    refused: usize,
    jobs: Vec<Position<'a>>,
}

/// What became of one job.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Position<'a> {
    Accepted(AcceptedJob),
    Refused { problem: AnyProblem<'a> },
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum AnyProblem<'a> {
    Complete(Problem<'a>),
    Brief(BriefProblem<'a>),
}

/// The outcomes, in at most [`MOST_BYTES`] and [`BYTES_A_JOB`] for each.
fn body(outcomes: &[Outcome], refused: usize, request_id: &str) -> String {
    let mut body = text(&BatchAnswer { accepted: outcomes.len() - refused, refused, jobs: vec![] });
    body.truncate(body.len().saturating_sub(END.len()));
    let most = MOST_BYTES + BYTES_A_JOB * outcomes.len();
    let mut complete = refused.min(COMPLETE);
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        let later = LEAST_BYTES_A_JOB * (outcomes.len() - index - 1);
        let room = most.saturating_sub(later + body.len() + END.len());
        match outcome {
            Ok((job_id, status)) => body.push_str(&text(&AcceptedJob { job_id: *job_id, status: *status })),
            Err(error) => {
                let instance = format!("{PATH}#/{index}");
                body.push_str(&refusal(error, &instance, request_id, room, &mut complete));
            }
        }
    }
    body.push_str(END);
    body
}

/// One of the next `complete` problems: complete if it fits, with as many of its mistakes as fit into its share of the room.
fn refusal(error: &ApiError, instance: &str, request_id: &str, room: usize, complete: &mut usize) -> String {
    if let Some(others) = complete.checked_sub(1) {
        let share = (room.saturating_sub(FRAME) / (others + 1)).min(MOST_BYTES);
        *complete = others;
        let problem = AnyProblem::Complete(error.problem_within(share, instance, request_id));
        let text = text(&Position::Refused { problem });
        if text.len() <= room {
            return text;
        }
    }
    text(&Position::Refused { problem: AnyProblem::Brief(error.brief_problem()) })
}

fn text(value: &impl Serialize) -> String {
    // Serialising these types cannot fail: they have string keys, and integers only.
    serde_json::to_string(value).unwrap_or_default()
}

/// Describes it for the contract.
pub(super) fn predict_all_operation(contract: &mut Contract<'_>) -> Operation {
    let mut answer = |description: &str, refused: bool| {
        contract.answer_like::<BatchAnswer<'_>>(description, &example(refused))
    };
    let answers = vec![
        (202, answer("All jobs are accepted", false)),
        (207, answer("Some jobs are rejected; `jobs` shows which", true)),
    ];
    Operation {
        id: "predictBatch",
        tag: Tag::Jobs,
        summary: "Submit many jobs",
        description: format!(
            "Accepts up to {MOST} jobs in one round trip, as a list or one a line. Each has its own outcome. \
             The answer is in the order of the request."
        ),
        parameters: vec![idempotency::parameter()],
        body: Some(request(contract)),
        answers,
        errors: [reading_a_body(contract.largest_body), vec![ApiError::NotDeclaredJsonLines], submitting()]
            .concat_errors(),
    }
}

fn request(contract: &mut Contract<'_>) -> Value {
    let submission = submission(contract);
    let batch = contract.define(
        "Batch",
        json!({
            "type": "array",
            "minItems": 1,
            "maxItems": MOST,
            // An invalid job is refused by itself, so none makes the batch as a whole invalid.
            "items": {"anyOf": [submission, {}]},
        }),
    );
    let job = json!({"data": contract.model.sample});
    json!({"required": true, "content": {
        "application/json": {"schema": batch, "example": [job, job]},
        LINES[0]: {
            // OpenAPI 3.1 cannot describe lines. At least one must not be blank.
            "schema": {
                "type": "string",
                "pattern": "[^ \\t\\n\\f\\r]",
                "description": "One Submission a line",
            },
            "example": format!("{job}\n{job}\n"),
        },
    }})
}

fn example(refused: bool) -> Value {
    let error = invalid_body();
    let mut jobs = vec![Position::Accepted(AcceptedJob::example(JobStatus::Pending))];
    if refused {
        let problem = error.problem_within(MOST_BYTES, "/predict/batch#/1", REQUEST_ID);
        jobs.push(Position::Refused { problem: AnyProblem::Complete(problem) });
    }
    let answer = BatchAnswer { accepted: 1, refused: usize::from(refused), jobs };
    serde_json::to_value(answer).unwrap_or_default()
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
        let reported = problems.iter().map(|problem| problem["errors"].as_array().unwrap().len());
        assert!(
            reported.clone().all(|errors| (3..20).contains(&errors)),
            "{:?}",
            reported.collect::<Vec<_>>()
        );
    }
}
