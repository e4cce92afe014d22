//! `POST /jobs/lookup`: reads many jobs at once.

use std::{collections::HashSet, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::Value;
use tepal_shared::{job::JobId, owner::View};

use super::{job, json};
use crate::{
    access::Caller,
    answer::{self, IsPaid},
    budget::Share,
    cost::{Tab, Work},
    error::{ApiError, Mistake},
    extract, follow,
    json::pointer_to,
    state::App,
};

/// Most ids of a request.
pub(crate) const MOST: usize = 1000;
/// Characters of an id.
pub(crate) const LONGEST: usize = 64;
const TOO_LONG: &str = "must have at most 64 characters";
/// So many jobs are read at once.
const AT_ONCE: usize = 50;
/// What the jobs of an answer may take, beside the ids that it repeats.
const MOST_BYTES: usize = (8 << 20) - MOST * BYTES_OF_ID;
/// At most, as JSON: six for each character.
const BYTES_OF_ID: usize = 6 * LONGEST + 3;
/// A job without its result takes less, if its error is short; nothing of the client's is in it.
const BYTES_WITHOUT_RESULT: usize = 1024;

/// The jobs that the body names, in its order.
pub(crate) async fn look_up(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let mut tab = Tab::open(&app, &caller, &request);
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
    let mut rest = names.as_slice();
    while !rest.is_empty() {
        let next = found.room_for(app, rest).await?;
        if next == 0 {
            break;
        }
        let (now, later) = rest.split_at(next);
        found.read(app, caller.view(), now).await?;
        rest = later;
    }
    if rest.len() == names.len() {
        return Err(ApiError::Overloaded);
    }
    Ok(found.answer(rest))
}

/// What was found so far, and the memory for it.
struct Found<'a> {
    jobs: String,
    not_found: Vec<&'a str>,
    share: Share,
}

impl<'a> Found<'a> {
    fn new(share: Share) -> Self {
        Self { jobs: String::new(), not_found: Vec::new(), share }
    }

    /// How many of the next jobs fit into the answer, whose memory is taken before they are read. One always fits into an
    /// answer of its own.
    async fn room_for(&mut self, app: &App, names: &[&str]) -> Result<usize, ApiError> {
        let names = &names[..names.len().min(AT_ONCE)];
        let ids: Vec<JobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let mut sizes = app.store.result_bytes(&ids).await?.into_iter();
        let (mut count, mut bytes) = (0, 0);
        for name in names {
            let size = if name.parse::<JobId>().is_ok() { sizes.next().unwrap_or(0) } else { 0 };
            let more = bytes + size + BYTES_WITHOUT_RESULT;
            let is_first = count == 0 && self.jobs.is_empty();
            if !is_first && self.jobs.len() + more > MOST_BYTES {
                break;
            }
            (count, bytes) = (count + 1, more);
        }
        Ok(if self.share.grow(bytes) { count } else { 0 })
    }

    /// Reads the jobs of these names.
    async fn read(&mut self, app: &App, view: View<'_>, names: &[&'a str]) -> Result<(), ApiError> {
        let ids: Vec<Option<JobId>> = names.iter().map(|name| name.parse().ok()).collect();
        let known: Vec<JobId> = ids.iter().copied().flatten().collect();
        let mut jobs = app.store.jobs(&known).await?.into_iter();
        for (name, id) in names.iter().zip(ids) {
            let job = match id.and_then(|_| jobs.next().flatten()) {
                Some(job) if view.shows(job.owner.as_deref()) => follow::up_to_date(app, job).await?,
                _ => None,
            };
            match job {
                Some(job) => {
                    if !self.jobs.is_empty() {
                        self.jobs.push(',');
                    }
                    self.jobs.push_str(&job::body(&job));
                }
                None => self.not_found.push(name),
            }
        }
        Ok(())
    }

    fn answer(self, not_read: &[&str]) -> Response {
        let list = |names: &[&str]| Value::from(names).to_string();
        let mut text = format!(r#"{{"jobs":[{}],"not_found":{}"#, self.jobs, list(&self.not_found));
        if !not_read.is_empty() {
            text.push_str(&format!(r#","not_read":{}"#, list(not_read)));
        }
        text.push('}');
        let mut answer = json(answer::paid(text, self.share));
        answer.extensions_mut().insert(IsPaid);
        answer
    }
}

/// Each name once, in the order of the request.
fn distinct(names: &[String]) -> Vec<&str> {
    let mut seen = HashSet::with_capacity(names.len());
    names.iter().map(String::as_str).filter(|name| seen.insert(*name)).collect()
}

fn owned_names(body: Value) -> Result<Vec<String>, ApiError> {
    let names = names(&body).map_err(|mistake| ApiError::Invalid(vec![mistake]))?;
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The ids as the client wrote them.
pub(crate) fn names<'a>(body: &'a Value) -> Result<Vec<&'a str>, Mistake> {
    let place = "/job_ids";
    let Value::Object(fields) = body else {
        return Err(Mistake::at("", "type", "must be an object with the field job_ids"));
    };
    if let Some(name) = fields.keys().find(|name| *name != "job_ids") {
        let detail = "is not a field of this request; known is job_ids";
        return Err(Mistake::at(pointer_to(name), "unknown_field", detail));
    }
    let ids = match fields.get("job_ids") {
        None => return Err(Mistake::at(place, "missing", "is missing")),
        Some(Value::Array(ids)) => ids,
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
    let name = |(index, id): (usize, &'a Value)| {
        let mistake = |code, detail| Mistake::at(format!("{place}/{index}"), code, detail);
        let id = id.as_str().ok_or_else(|| mistake("type", "must be a string"))?;
        // No id is as long, and the answer repeats those of no job.
        let is_short = id.chars().take(LONGEST + 1).count() <= LONGEST;
        if is_short { Ok(id) } else { Err(mistake("length", TOO_LONG)) }
    };
    ids.iter().enumerate().map(name).collect()
}
