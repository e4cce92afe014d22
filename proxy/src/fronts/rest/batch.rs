//! `POST /predict/batch`: accepts many jobs in one round trip to Redis. Each item is its own job: an invalid item does not affect
//! the others.

pub(crate) mod answer;

use std::{sync::Arc, time::Instant};

use answer::{BYTES_A_JOB, BatchAnswer, COMPLETE, Outcome, answer, example};
use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use serde_json::{Value, json};
use tepal_shared::{job::ModelName, json::Json};

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::{ConcatErrors as _, reading_a_body, submitting},
};
use super::{extract, idempotency, submit::submission};
use crate::{
    edge::{
        access::Caller,
        cost::{Tab, Work},
        request_id,
    },
    error::{ApiError, MOST_BYTES, Mistake},
    http::{budget::Meter, headers, json as json_text},
    jobs::{intake::Prepared, models::Registry, refused::Refused, submission::Submission},
    state::App,
};

/// Most jobs of a batch.
pub(crate) const MOST: usize = 1000;
const LINES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// Accepts the jobs of the body: a JSON array, or one JSON object a line. Each counts as one request.
pub(crate) async fn predict_all(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let mut tab = Tab::open(app.account(&caller, &request));
    let outcome = accept_all(&app, &caller, request, &mut tab).await;
    let outcome = outcome.inspect_err(|error| app.metrics.refused(None, error.code()));
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
    let models = app.models.registry();
    let (mut items, _memory) = app.bodies.read(body, move |bytes, meter| read(bytes, &models, meter)).await?;
    for item in &mut items {
        if let Ok(submission) = item
            && let Err(error) = caller.check_model(submission.model.name.as_str())
        {
            *item = Err(Refused::of(submission.model.name, error));
        }
    }
    charge(tab, items.len())?;
    app.charges.charge(|| extract::payer(app, caller, &parts), items.iter_mut().flatten()).await?;
    let mut share = app.bodies.share();
    // Memory is reserved before anything is stored.
    if !share.grow(MOST_BYTES + BYTES_A_JOB * items.len()) {
        return Err(ApiError::Overloaded);
    }
    let models: Vec<_> = items.iter().map(model_of).collect();
    let outcomes = submit(app, caller, headers, items, started).await?;
    for (model, outcome) in models.into_iter().zip(&outcomes) {
        if let Err(error) = outcome {
            app.metrics.refused(model, error.code());
        }
    }
    Ok(answer(&outcomes, request_id::of(headers).unwrap_or_default(), share))
}

/// One job of a batch.
pub(crate) type Item = Result<Submission, Refused>;

/// The model of a job, as far as it is known.
fn model_of(item: &Item) -> Option<ModelName> {
    item.as_ref().map_or_else(|refused| refused.model, |submission| Some(submission.model.name))
}

/// The elements of a JSON array.
pub(crate) fn elements(body: &[u8], models: &Registry, meter: &mut Meter) -> Result<Vec<Item>, ApiError> {
    let Some(items) = json_text::parse_list(body, MOST, meter)? else {
        return Err(wrong("type", "must be a list of jobs, or one job a line as application/x-ndjson"));
    };
    check_length(items.len())?;
    Ok(read_all(items, models))
}

/// The lines of an NDJSON body. A line that is not JSON does not affect the others.
pub(crate) fn lines(body: &[u8], models: &Registry, meter: &mut Meter) -> Result<Vec<Item>, ApiError> {
    let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    check_length(lines().take(MOST + 1).count())?;
    let items = read_all(lines().map(|line| json_text::parse(line, meter)), models);
    meter.exceeded().map_or(Ok(items), |exceeded| Err(exceeded.into()))
}

fn read_all(bodies: impl IntoIterator<Item = Result<Json, ApiError>>, models: &Registry) -> Vec<Item> {
    let mut refused = 0;
    let read = |body| {
        let mut item = read(body, models);
        if let Err(Refused { error: ApiError::Invalid(mistakes), .. }) = &mut item {
            refused += 1;
            if refused > COMPLETE {
                // The answer does not show the others.
                mistakes.truncate(1);
            }
        }
        item
    };
    bodies.into_iter().map(read).collect()
}

fn read(body: Result<Json, ApiError>, models: &Registry) -> Item {
    let body = body?;
    let model = models.of_body(&body)?;
    Submission::read(&body, &model).map_err(|wrong| Refused::of(model.name, ApiError::Invalid(wrong)))
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
    items: Vec<Item>,
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
            Err(refused) => Some(refused.error),
        });
    }
    let mut outcomes = app.intake.submit_all(&sender, jobs, started).await?.into_iter();
    // Each job has its outcome, so none is missing.
    let next =
        |rejected: Option<ApiError>| rejected.map_or_else(|| outcomes.next(), |error| Some(Err(error)));
    Ok(rejected.into_iter().filter_map(next).collect())
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
    // OpenAPI 3.1 cannot describe lines. At least one must not be blank.
    let lines = json!({
        "type": "string",
        "pattern": "[^ \\t\\n\\f\\r]",
        "description": "One Submission a line",
    });
    let job = contract.submission;
    json!({"required": true, "content": {
        "application/json": {"schema": batch, "example": [job, job]},
        LINES[0]: {"schema": lines, "example": format!("{job}\n{job}\n")},
    }})
}
