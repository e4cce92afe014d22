//! I6 to I10, the invariants of the queue as a whole.

use std::collections::BTreeSet;

use serde_json::Value;

use super::case::{Attempted, Case};
use super::{Invariant, JobDump};

pub(super) fn check(case: &mut Case<'_>) {
    nothing_outstanding(case);
    one_job_a_key(case);
    nobody_unexplained(case);
    no_stray_keys(case);
    nothing_repaired(case);
}

/// I6.
fn nothing_outstanding(case: &mut Case<'_>) {
    let last = &case.history.last;
    for (key, stream) in last.streams.iter().filter(|(_, stream)| stream.length + stream.pending > 0) {
        case.violation(Invariant::I6, key, format!("{} entries, {} pending", stream.length, stream.pending));
    }
    for (id, job) in &last.jobs {
        match (job.is_terminal(), job.ttl_ms) {
            (true, None) => case.violation(Invariant::I6, id, format!("{} and without a TTL", job.status())),
            (false, Some(_)) => case.violation(Invariant::I6, id, format!("{} and with a TTL", job.status())),
            _ => {}
        }
    }
}

/// I7.
fn one_job_a_key(case: &mut Case<'_>) {
    let several: Vec<_> = case.keys.iter().filter(|(_, ids)| ids.len() > 1).collect();
    let found: Vec<_> =
        several.iter().map(|(key, ids)| ((*key).to_owned(), format!("made the jobs {ids:?}"))).collect();
    for (key, what) in found {
        case.violation(Invariant::I7, format!("key {key:?}"), what);
    }
}

/// I8 and I9: every job that no client knows must come from an unknown submit of its own.
fn nobody_unexplained(case: &mut Case<'_>) {
    let known = |id: &str| case.jobs.get(id).is_some_and(|job| job.accepted);
    let last = &case.history.last;
    let unknown = last.jobs.iter().filter(|(id, _)| !known(id));
    let (again, orphans): (Vec<_>, Vec<_>) = unknown
        .map(|(id, job)| Orphan::new(id, job, last.inputs.get(id)))
        .partition(|orphan| orphan.retry_of.is_some());
    let slots = open_slots(case);
    let edges: Vec<Vec<usize>> = orphans
        .iter()
        .map(|orphan| (0..slots.len()).filter(|slot| orphan.may_be(slots[*slot], case.oracle)).collect())
        .collect();
    let left_over = unmatched(&edges, slots.len()).into_iter().map(|index| {
        let orphan = &orphans[index];
        let any =
            |submits: &[Attempted<'_>]| submits.iter().any(|submit| orphan.may_be(submit.input, case.oracle));
        if any(&case.refused) {
            (Invariant::I8, orphan.id.to_owned(), "comes from a submit that was refused")
        } else if any(&case.unknown) {
            (Invariant::I9, orphan.id.to_owned(), "one job too many for a submit of unknown outcome")
        } else {
            (Invariant::I8, orphan.id.to_owned(), "no submit explains this job")
        }
    });
    let found: Vec<_> = left_over.chain(unexplained_repeats(case, &again)).collect();
    for (invariant, id, what) in found {
        case.violation(invariant, id, what);
    }
}

/// A requeued job makes at most one new job for each requeue of unknown outcome.
fn unexplained_repeats(case: &Case<'_>, again: &[Orphan<'_>]) -> Vec<(Invariant, String, &'static str)> {
    let mut open = case.unknown_requeues.clone();
    let mut found = Vec::new();
    for orphan in again {
        match orphan.retry_of.and_then(|of| open.get_mut(of)) {
            Some(left) if *left > 0 => *left -= 1,
            _ => found.push((Invariant::I9, orphan.id.to_owned(), "no client requeued that job")),
        }
    }
    found
}

/// A job that is unknown to all clients.
struct Orphan<'a> {
    id: &'a str,
    retry_of: Option<&'a str>,
    model: &'a str,
    input: Option<Value>,
    result: Option<Value>,
}

impl<'a> Orphan<'a> {
    fn new(id: &'a str, job: &'a JobDump, kept_input: Option<&String>) -> Self {
        let retry_of = job.fields.get("retry_of").map(String::as_str);
        let input = job.json("input").or_else(|| serde_json::from_str(kept_input?).ok());
        Self { id, retry_of, model: job.model(), input, result: job.json("result") }
    }

    /// Whether it may come from a submit of this input. The input is kept until a job completes; then the result decides.
    fn may_be(&self, input: &Value, oracle: &dyn Fn(&Value, &Value) -> bool) -> bool {
        let is_of_model = input["model"].as_str().is_none_or(|model| model == self.model);
        let data = input.get("data").unwrap_or(input);
        is_of_model
            && match (&self.input, &self.result) {
                (Some(kept), _) => same_values(kept, data),
                (None, Some(result)) => oracle(input, result),
                (None, None) => true,
            }
    }
}

/// The inputs of unknown submits that may have made a job of which no client knows. Submits with one
/// idempotency key count once, and not at all when a later one returned the job's id.
fn open_slots<'a>(case: &Case<'a>) -> Vec<&'a Value> {
    let mut seen = BTreeSet::new();
    let open = case
        .unknown
        .iter()
        .filter(|submit| submit.key.is_none_or(|key| !case.keys.contains_key(key) && seen.insert(key)));
    open.map(|submit| submit.input).collect()
}

/// Compares the leaves in order, numbers with the precision of an f32: the service may have stored them as
/// such, or in another nesting.
fn same_values(a: &Value, b: &Value) -> bool {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    leaves(a, &mut left);
    leaves(b, &mut right);
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    left.len() == right.len()
        && left.iter().zip(right).all(|(a, b)| match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => close(a, b),
            _ => *a == b,
        })
}

fn leaves<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| leaves(value, into)),
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, into)),
        leaf => into.push(leaf),
    }
}

/// Indexes of the jobs left over by a largest matching of jobs to slots (augmenting paths, Kuhn's algorithm).
fn unmatched(edges: &[Vec<usize>], slots: usize) -> Vec<usize> {
    let mut holder = vec![None; slots];
    (0..edges.len()).filter(|job| !place(*job, edges, &mut holder, &mut vec![false; slots])).collect()
}

fn place(job: usize, edges: &[Vec<usize>], holder: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for slot in edges[job].iter().copied() {
        if std::mem::replace(&mut tried[slot], true) {
            continue;
        }
        if holder[slot].is_none_or(|other| place(other, edges, holder, tried)) {
            holder[slot] = Some(job);
            return true;
        }
    }
    false
}

/// I8: no more idempotency keys than accepted and unknown submits had.
fn no_stray_keys(case: &mut Case<'_>) {
    let unknown = case.unknown.iter().filter_map(|submit| submit.key);
    let possible = case.keys.keys().copied().chain(unknown).collect::<BTreeSet<_>>().len();
    let stored = case.history.last.idempotency_keys;
    if stored > possible as u64 {
        let refused = case.refused.iter().filter(|submit| submit.key.is_some()).count();
        let what =
            format!("{stored} stored, at most {possible} explained ({refused} refused submits had a key)");
        case.violation(Invariant::I8, "idempotency keys", what);
    }
}

/// I10.
fn nothing_repaired(case: &mut Case<'_>) {
    if case.verdict.faults.values().any(|hits| *hits > 0) {
        return;
    }
    let last = &case.history.last;
    if last.repairs > 0 {
        case.violation(Invariant::I10, "metrics", format!("{} repairs without any fault", last.repairs));
    }
    for (id, job) in last.jobs.iter().filter(|(_, job)| job.number("lost") > 0) {
        case.violation(
            Invariant::I10,
            id,
            format!("lost its lease {} times without any fault", job.number("lost")),
        );
    }
}
