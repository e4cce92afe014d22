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
/// Results may be large: so many jobs are read at once, and no more once the answer has so many bytes.
const AT_ONCE: usize = 50;
const ENOUGH_BYTES: usize = 8 << 20;

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
    let names = extract::json(&parts.headers, body, &app.bodies, owned_names).await?;
    let names = distinct(&names);
    let known = Work { jobs_read: names.len(), ..Work::default() };
    tab.charge_for(known)?;
    *work = known;
    let mut found = String::new();
    let mut not_found = Vec::new();
    let mut rest = names.as_slice();
    while !rest.is_empty() && found.len() < ENOUGH_BYTES {
        let (now, later) = rest.split_at(rest.len().min(AT_ONCE));
        rest = later;
        read(app, caller.view(), now, &mut found, &mut not_found).await?;
    }
    let list = |names: &[&str]| Value::from(names).to_string();
    let mut answer = format!(r#"{{"jobs":[{found}],"not_found":{}"#, list(&not_found));
    if !rest.is_empty() {
        answer.push_str(&format!(r#","not_read":{}"#, list(rest)));
    }
    answer.push('}');
    Ok(json(answer))
}

/// Appends the jobs' bodies to `found`, and the names of those that do not exist for the caller to `not_found`.
async fn read<'a>(
    app: &App,
    view: View<'_>,
    names: &[&'a str],
    found: &mut String,
    not_found: &mut Vec<&'a str>,
) -> Result<(), ApiError> {
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
                if !found.is_empty() {
                    found.push(',');
                }
                found.push_str(&job::body(&job));
            }
            None => not_found.push(name),
        }
    }
    Ok(())
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
