//! `POST /jobs/lookup`: reads many jobs at once.

use std::{collections::HashSet, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Request, State},
    response::Response,
};
use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tepal_shared::{
    job::{Job, JobId, JobResult, LARGE_BYTES},
    json::{Json, JsonRef},
};

use super::openapi::{
    contract::Contract,
    operation::{Operation, Tag},
    parts::{ConcatErrors as _, JOB_ID, body, reading, reading_a_body},
};
use super::{
    extract,
    job::{
        view::{self, JobView},
        whole::BYTES_WITHOUT_RESULT,
    },
};
use crate::{
    edge::{
        access::{Caller, Visibility},
        cost::{Tab, Work},
    },
    error::{ApiError, Mistake},
    http::{
        answer::{self, PIECE, as_json, held},
        budget::Share,
        json::pointer_to,
    },
    jobs::results::Unread,
    state::App,
};

/// Most ids of a request.
pub(crate) const MOST: usize = 1000;
/// Characters of an id.
const LONGEST: usize = 64;
/// The only member of the body.
const JOB_IDS: &str = "job_ids";
/// Jobs that are read at once.
const AT_ONCE: usize = 50;
/// Bytes that the jobs of an answer may take, in addition to the ids that it repeats.
const MOST_BYTES: usize = (8 << 20) - MOST * BYTES_OF_ID;
/// Most bytes of an id as JSON: six for each character.
const BYTES_OF_ID: usize = 6 * LONGEST + 3;
/// Bytes that are read of a job before its size is known.
const BYTES_OF_RECORD: usize = LARGE_BYTES + BYTES_WITHOUT_RESULT;

/// The answer. Its jobs are written one by one, see [`Written`].
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "LookupAnswer", description = "The jobs with these ids")]
struct Answer<'a> {
    jobs: Vec<JobView<'a>>,
    not_found: &'a [&'a str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_read: &'a [&'a str],
}

impl Answer<'_> {
    /// What comes before the jobs.
    const START: &'static str = r#"{"jobs":["#;

    /// What comes after the jobs.
    fn end(not_found: &[&str], not_read: &[&str]) -> String {
        // Serialising this type cannot fail: its keys are strings.
        let mut text =
            serde_json::to_string(&Answer { jobs: vec![], not_found, not_read }).unwrap_or_default();
        text.drain(..Self::START.len().min(text.len()));
        text
    }
}

/// The jobs that the body names, in its order.
pub(crate) async fn look_up(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let mut tab = Tab::open(app.account(&caller, &request));
    let mut work = Work::default();
    let outcome = found(&app, &caller, request, &mut tab, &mut work).await;
    tab.close(work, outcome)
}

async fn found(
    app: &App,
    caller: &Caller,
    request: Request,
    tab: &mut Tab,
    work: &mut Work,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let (names, _memory) = extract::json(&parts.headers, body, &app.bodies, owned_names).await?;
    let names = distinct(&names);
    let known = Work { jobs_read: names.len(), ..Work::default() };
    tab.charge_for(known)?;
    *work = known;
    let mut found = Found::new(app.bodies.share());
    let (names, unreachable) = by_reach(app, &names);
    let mut rest = names.as_slice();
    while !rest.is_empty() {
        let next = &rest[..rest.len().min(AT_ONCE)];
        let read = found.read(app, caller.sees(), next).await?;
        rest = &rest[read..];
        if read < next.len() {
            break;
        }
    }
    if rest.len() == names.len() {
        return Err(ApiError::Overloaded);
    }
    found.answer(&[rest, &unreachable].concat())
}

/// The names of jobs that can be read now, and of those whose partition cannot be reached. If none can, the read says why.
fn by_reach<'a>(app: &App, names: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let is_reachable = |name: &&str| {
        let id = name.parse::<JobId>();
        id.map_or(true, |id| app.store.queue().primary(id.partition()).is_up())
    };
    let (reachable, unreachable): (Vec<_>, Vec<_>) = names.iter().copied().partition(is_reachable);
    if reachable.is_empty() { (unreachable, reachable) } else { (reachable, unreachable) }
}

/// The large result of a job as JSON, if it has one.
async fn large_text(app: &App, job: Option<&Job>) -> Result<Option<Vec<Bytes>>, Unread> {
    match job {
        Some(job) if is_large(job) => app.results.json(job).await,
        _ => Ok(None),
    }
}

/// Whether the result is not JSON in its stored form.
fn is_converted(job: &Job) -> bool {
    matches!(job.result, Some(JobResult::Tensors(_) | JobResult::Bytes { .. }))
}

fn is_large(job: &Job) -> bool {
    job.result.as_ref().is_some_and(JobResult::is_large)
}

/// The jobs found so far, and the memory for them.
struct Found<'a> {
    written: Written,
    /// Bytes of the jobs.
    bytes: usize,
    not_found: Vec<&'a str>,
    share: Share,
}

/// The answer so far, as JSON.
struct Written {
    parts: Vec<Part>,
    /// The end, which may grow.
    text: String,
    /// Bytes of the parts that no other answer shares.
    own_bytes: usize,
}

enum Part {
    Own(String),
    Shared(Bytes),
}

impl<'a> Found<'a> {
    fn new(share: Share) -> Self {
        let written = Written { parts: Vec::new(), text: Answer::START.to_owned(), own_bytes: 0 };
        Self { written, bytes: 0, not_found: Vec::new(), share }
    }

    /// Reads the jobs with these ids, from the first one on. Returns how many it has read. One job always fits into an answer of
    /// its own. Memory is reserved for the records before they are read, and for each large result before it is read.
    async fn read(&mut self, app: &App, sees: Visibility<'_>, names: &[&'a str]) -> Result<usize, ApiError> {
        if !self.share.grow(names.len() * BYTES_OF_RECORD) {
            return Ok(0);
        }
        let mut jobs = records(app, sees, names).await?;
        jobs.truncate(self.how_many_fit(&jobs));
        let texts = join_all(jobs.iter().map(|job| large_text(app, job.as_ref()))).await;
        let mut count = 0;
        for ((name, job), text) in names.iter().zip(jobs).zip(texts) {
            match text {
                // The JSON of tensors and of bytes may be larger than their stored form.
                Ok(_)
                    if job.as_ref().is_some_and(is_converted)
                        && !self.share.grow(job.as_ref().map_or(0, size)) =>
                {
                    break;
                }
                Ok(text) => self.add(name, job, text),
                Err(Unread::NoRoom) => break,
                Err(unread) => return Err(unread.into()),
            }
            count += 1;
        }
        self.share.shrink_to(self.written.own_bytes());
        Ok(count)
    }

    fn how_many_fit(&self, jobs: &[Option<Job>]) -> usize {
        let mut bytes = self.bytes;
        let fits = |job: &&Option<Job>| {
            let is_first = bytes == 0;
            bytes += job.as_ref().map_or(0, size);
            is_first || bytes <= MOST_BYTES
        };
        jobs.iter().take_while(fits).count()
    }

    fn add(&mut self, name: &'a str, job: Option<Job>, large: Option<Vec<Bytes>>) {
        // If its large result is gone, the job is gone, too.
        let Some(job) = job.filter(|job| large.is_some() || !is_large(job)) else {
            self.not_found.push(name);
            return;
        };
        if self.bytes > 0 {
            self.written.text.push(',');
        }
        self.bytes += size(&job);
        match large {
            Some(text) => self.written.push_large(&job, text),
            None => self.written.push(&view::body(&job)),
        }
    }

    fn answer(mut self, not_read: &[&str]) -> Result<Response, ApiError> {
        let named = self.not_found.iter().chain(not_read);
        let most: usize = named.map(|name| 6 * name.len() + 3).sum();
        if !self.share.grow(most) {
            return Err(ApiError::Overloaded);
        }
        self.written.text.push_str(&Answer::end(&self.not_found, not_read));
        Ok(as_json(answer::paid(self.written.end(self.share))))
    }
}

impl Written {
    fn own_bytes(&self) -> usize {
        self.own_bytes + self.text.len()
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        // One growing text would need twice its size, and more while it is moved.
        if self.text.len() >= PIECE {
            self.end_text();
        }
    }

    fn push_large(&mut self, job: &Job, text: Vec<Bytes>) {
        let (before, after) = view::around_result(job);
        self.text.push_str(&before);
        self.end_text();
        self.parts.extend(text.into_iter().map(Part::Shared));
        self.text.push_str(after);
    }

    fn end_text(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.shrink_to_fit();
        self.own_bytes += text.len();
        self.parts.push(Part::Own(text));
    }

    /// All parts, with the memory of those that no other answer shares.
    fn end(mut self, mut share: Share) -> Vec<Bytes> {
        self.end_text();
        share.shrink_to(self.own_bytes);
        let share = Arc::new(share);
        let bytes = |part| match part {
            Part::Own(text) => held(text, Arc::clone(&share)),
            Part::Shared(text) => text,
        };
        self.parts.into_iter().map(bytes).collect()
    }
}

/// Most bytes of the job in the answer.
fn size(job: &Job) -> usize {
    job.result.as_ref().map_or(0, JobResult::most_bytes) + BYTES_WITHOUT_RESULT
}

/// The present state of the jobs with these ids, without large results; `None` where the caller sees no job.
async fn records(app: &App, sees: Visibility<'_>, names: &[&str]) -> Result<Vec<Option<Job>>, ApiError> {
    let ids: Vec<Option<JobId>> = names.iter().map(|name| name.parse().ok()).collect();
    let known: Vec<JobId> = ids.iter().copied().flatten().collect();
    let mut jobs = app.store.views.jobs(&known).await?.into_iter();
    let mut records = Vec::with_capacity(names.len());
    for id in ids {
        records.push(match id.and_then(|_| jobs.next().flatten()) {
            Some(job) if sees.shows(&job) => app.store.up_to_date(job).await?,
            _ => None,
        });
    }
    Ok(records)
}

/// Each name once, in the order of the request.
fn distinct(names: &[String]) -> Vec<&str> {
    let mut seen = HashSet::with_capacity(names.len());
    names.iter().map(String::as_str).filter(|name| seen.insert(*name)).collect()
}

fn owned_names(body: Json) -> Result<Vec<String>, ApiError> {
    let names = names(&body).map_err(|mistake| ApiError::Invalid(vec![mistake]))?;
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The ids as the client wrote them.
pub(crate) fn names<'a>(body: &'a Json) -> Result<Vec<&'a str>, Mistake> {
    let place = format!("/{JOB_IDS}");
    let JsonRef::Object(fields) = JsonRef::from(body) else {
        return Err(Mistake::at("", "type", format!("must be an object with the field {JOB_IDS}")));
    };
    if let Some(name) = fields.names().find(|name| *name != JOB_IDS) {
        let detail = format!("is not a field of this request; known is {JOB_IDS}");
        return Err(Mistake::at(pointer_to(name), "unknown_field", detail));
    }
    let ids = match fields.get(JOB_IDS) {
        None => return Err(Mistake::at(place, "missing", "is missing")),
        Some(JsonRef::List(ids)) => ids,
        Some(_) => return Err(Mistake::at(place, "type", "must be a list of job ids")),
    };
    match ids.len() {
        0 => return Err(Mistake::at(place, "empty", format!("must hold 1 to {MOST} ids, but is empty"))),
        1..=MOST => {}
        more => {
            let detail = format!("must hold 1 to {MOST} ids, not {more}");
            return Err(Mistake::at(place, "too_many_ids", detail));
        }
    }
    let name = |(index, id): (usize, JsonRef<'a>)| {
        let mistake = |code, detail: String| Mistake::at(format!("{place}/{index}"), code, detail);
        let id = id.as_str().ok_or_else(|| mistake("type", "must be a string".to_owned()))?;
        // The answer repeats ids that name no job, so their length is bounded. No valid id is longer.
        let is_short = id.chars().take(LONGEST + 1).count() <= LONGEST;
        if is_short {
            Ok(id)
        } else {
            Err(mistake("length", format!("must have at most {LONGEST} characters")))
        }
    };
    ids.iter().enumerate().map(name).collect()
}

/// The schema of the body that [`names`] reads.
fn schema() -> Value {
    json!({
        "type": "object",
        "required": [JOB_IDS],
        "additionalProperties": false,
        "properties": {JOB_IDS: {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST,
            "description": "An id that is given more than once is answered once",
            "items": {"type": "string", "maxLength": LONGEST},
        }},
    })
}

/// Describes it for the contract.
pub(super) fn look_up_operation(contract: &mut Contract<'_>) -> Operation {
    let lookup = contract.define("Lookup", schema());
    let answer = json!({"jobs": [view::example_body()], "not_found": ["a1b2c3"]});
    Operation {
        id: "lookUpJobs",
        tag: Tag::Jobs,
        summary: "Read many jobs",
        description: format!(
            "Up to {MOST} jobs by their ids, in the order of the request. If the answer becomes too large, the \
             remaining ids are in `not_read`. So are those of jobs in a partition that cannot be reached at present."
        ),
        parameters: vec![],
        body: Some(body(&lookup, &json!({JOB_IDS: [JOB_ID, "a1b2c3"]}))),
        answers: vec![(200, contract.answer_like::<Answer<'_>>("The jobs", &answer))],
        errors: [reading_a_body(contract.largest_body), reading()].concat_errors(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_of_an_answer_come_first() {
        for (not_found, not_read) in [(&["a"][..], &[][..]), (&[], &["b", "c"])] {
            let whole = serde_json::to_string(&Answer { jobs: vec![], not_found, not_read }).unwrap();
            assert_eq!([Answer::START, &Answer::end(not_found, not_read)].concat(), whole);
        }
    }
}
