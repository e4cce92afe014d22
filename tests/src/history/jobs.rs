//! I1 to I5, the invariants of a single job.

use std::collections::BTreeSet;

use serde_json::Value;

use super::case::{Case, JobFacts, Read};
use super::{Final, Invariant, JobDump, Outcome, Record, Rules};
use crate::http::is_terminal;

/// The findings of one check of one job.
type Findings = Vec<(Invariant, String)>;

pub(super) fn check(case: &mut Case<'_>) {
    let mut found = Vec::new();
    for (id, job) in &case.jobs {
        let mut findings = Findings::new();
        one_outcome(job, &mut findings);
        nothing_changes(job, &mut findings);
        right_result(job, case.oracle, &mut findings);
        last_grant(job, &mut findings);
        cancel_holds(job, case.rules, &mut findings);
        within_limits(job, case.rules, &mut findings);
        found.extend(findings.into_iter().map(|(invariant, what)| (invariant, (*id).to_owned(), what)));
    }
    let history = case.history;
    for (earlier, later) in history.earlier.iter().zip(history.earlier.iter().skip(1).chain([&history.last]))
    {
        terminal_hashes_stay(earlier, later, &mut found);
    }
    for (invariant, id, what) in found {
        case.violation(invariant, id, what);
    }
}

/// I1.
fn one_outcome(job: &JobFacts<'_>, found: &mut Findings) {
    match job.dump {
        None if job.accepted => found.push((Invariant::I1, "accepted, but not in the last dump".to_owned())),
        Some(dump) if !dump.is_terminal() => {
            found.push((Invariant::I1, format!("still {:?} at the end", dump.status())));
        }
        _ => {}
    }
    let gone = |record: &Record, status: u16| status == 404 && record.began_us > job.accepted_us;
    if job.accepted && job.observed.iter().any(|(record, status, _)| gone(record, *status)) {
        found.push((Invariant::I1, "answered 404 after it was accepted".to_owned()));
    }
    let outcomes = job.outcomes();
    if outcomes.len() > 1 {
        found.push((Invariant::I1, format!("more than one outcome: {outcomes:?}")));
    }
}

/// I2 over the answers to clients.
fn nothing_changes(job: &JobFacts<'_>, found: &mut Findings) {
    let answers = job.observed.iter().filter(|(_, status, _)| *status == 200);
    let (terminal, open): (Vec<&Read<'_>>, Vec<&Read<'_>>) =
        answers.partition(|(_, _, body)| is_terminal(body));
    let Some((first, _, body)) = terminal.iter().min_by_key(|(record, ..)| record.ended_us) else {
        return;
    };
    if let Some((_, _, other)) = terminal.iter().find(|(_, _, other)| other != body) {
        found.push((Invariant::I2, format!("read as {body} and then as {other}")));
    }
    if let Some((_, _, later)) = open.iter().find(|(record, ..)| record.began_us > first.ended_us) {
        found.push((Invariant::I2, format!("{} again after {}", later["status"], body["status"])));
    }
    let stored = job.dump.map_or("", JobDump::status);
    if !stored.is_empty() && body["status"] != stored {
        found.push((Invariant::I2, format!("read as {} but {stored:?} at the end", body["status"])));
    }
}

/// I2 over two dumps.
fn terminal_hashes_stay(earlier: &Final, later: &Final, found: &mut Vec<(Invariant, String, String)>) {
    for (id, before) in earlier.jobs.iter().filter(|(_, job)| job.is_terminal()) {
        let what = match later.jobs.get(id) {
            Some(after) if after.fields == before.fields => continue,
            Some(after) => format!("its hash changed from {:?} to {:?}", before.fields, after.fields),
            None => "its hash vanished".to_owned(),
        };
        found.push((Invariant::I2, id.clone(), what));
    }
}

/// I3, the value: in Redis and as clients read it.
fn right_result(job: &JobFacts<'_>, oracle: &dyn Fn(&Value, &Value) -> bool, found: &mut Findings) {
    let stored = job.dump.filter(|dump| dump.status() == "completed").map(|dump| dump.json("result"));
    if matches!(stored, Some(None)) {
        found.push((Invariant::I3, "completed without a result in JSON".to_owned()));
    }
    let completed = job.observed.iter().filter(|(_, _, body)| body["status"] == "completed");
    let read = completed.map(|(_, _, body)| body["result"].clone());
    let Some(input) = job.input else { return };
    let mut results = stored.flatten().into_iter().chain(read);
    if let Some(wrong) = results.find(|result| !oracle(input, result)) {
        found.push((Invariant::I3, format!("wrong result {wrong} for {input}")));
    }
}

/// I3, the attempt: the one that settled is the last that was granted, and no token was granted twice.
fn last_grant(job: &JobFacts<'_>, found: &mut Findings) {
    let mut tokens = BTreeSet::new();
    if let Some((twice, _)) = job.started.iter().find(|(attempt, _)| !tokens.insert(*attempt)) {
        found.push((Invariant::I3, format!("attempt {twice} was granted twice")));
    }
    let Some(dump) = job.dump else { return };
    let granted = dump.number("attempt");
    if let Some(above) = tokens.last().filter(|attempt| **attempt > granted) {
        found.push((Invariant::I3, format!("attempt {above} started, but only {granted} were granted")));
    }
    let ended = |outcome: Outcome| matches!(outcome, Outcome::Completed | Outcome::Failed);
    if let Some((stale, _)) =
        job.settled.iter().find(|(attempt, outcome)| ended(*outcome) && *attempt != granted)
    {
        found.push((Invariant::I3, format!("attempt {stale} settled it, the last grant is {granted}")));
    }
    if dump.status() == "completed" && granted == 0 {
        found.push((Invariant::I3, "completed without any grant".to_owned()));
    }
}

/// I4.
fn cancel_holds(job: &JobFacts<'_>, rules: Rules, found: &mut Findings) {
    let Some(cancelled_us) = job.cancelled_us else { return };
    let mut breach = |what: String| found.push((Invariant::I4, what));
    if let Some(dump) =
        job.dump.filter(|dump| dump.status() != "cancelled" || dump.fields.contains_key("result"))
    {
        let result = if dump.fields.contains_key("result") { " with a result" } else { "" };
        breach(format!("cancelled, but {:?}{result} at the end", dump.status()));
    }
    let later = |record: &Record| record.began_us > cancelled_us;
    let other = job
        .observed
        .iter()
        .find(|(at, status, body)| *status == 200 && later(at) && body["status"] != "cancelled");
    if let Some((_, _, body)) = other {
        breach(format!("cancelled, and then read as {}", body["status"]));
    }
    let log_delay_us = u64::try_from(rules.log_delay.as_micros()).unwrap_or(u64::MAX);
    if let Some((attempt, at)) =
        job.started.iter().find(|(_, at)| *at > cancelled_us.saturating_add(log_delay_us))
    {
        breach(format!("attempt {attempt} started {} us after the cancel", at - cancelled_us));
    }
    let ended = |outcome: Outcome| matches!(outcome, Outcome::Completed | Outcome::Failed);
    if let Some((attempt, outcome)) = job.settled.iter().find(|(_, outcome)| ended(*outcome)) {
        breach(format!("cancelled, yet attempt {attempt} ended it as {outcome:?}"));
    }
    // Both spans began when the job was accepted, and are Redis's own.
    let by_redis = job.dump.map(|dump| (dump.number("waited_ms"), dump.number("took_ms")));
    if let Some((waited, took)) = by_redis.filter(|(waited, took)| *took > 0 && waited > took) {
        breach(format!("started after {waited} ms, and had ended after {took} ms"));
    }
}

/// I5. Each grant ends in one of: released, lease lost, cancelled, completed, or a failure.
fn within_limits(job: &JobFacts<'_>, rules: Rules, found: &mut Findings) {
    let Some(dump) = job.dump else { return };
    let (granted, released, lost) = (dump.number("attempt"), dump.number("released"), dump.number("lost"));
    let no_failure = released + lost + u64::from(dump.status() == "completed");
    let Some(failures) = granted.checked_sub(no_failure) else {
        found.push((Invariant::I5, format!("{granted} grants, yet {released} released and {lost} lost")));
        return;
    };
    if failures > rules.max_attempts {
        found.push((Invariant::I5, format!("{failures} failures, allowed are {}", rules.max_attempts)));
    }
    if lost > rules.max_lost_leases {
        found.push((Invariant::I5, format!("{lost} lost leases, allowed are {}", rules.max_lost_leases)));
    }
}
