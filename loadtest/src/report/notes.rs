//! Sentences that a reader needs before trusting the numbers.

use super::content::Report;
use crate::failure::FailureKind;

/// A generator that is later than this at its p99 shows in the latencies that it reports.
const LATE_MS: f64 = 5.0;
/// A generator that needs a core for more of its time than this sets the pace itself.
const BUSY: f64 = 0.9;

/// Everything noteworthy about a run.
pub(super) fn notes(report: &Report, is_ramp: bool) -> Vec<String> {
    let all = [
        interrupted(report),
        late(report),
        busy(report),
        limited(report),
        unfinished(report),
        unverified(report),
        expired(report),
    ];
    all.into_iter().flatten().chain(is_ramp.then(|| knee(report))).collect()
}

fn interrupted(report: &Report) -> Option<String> {
    let jobs = report.summary.jobs.abandoned;
    report.interrupted.then(|| {
        format!(
            "The run was interrupted, so its objectives were not judged to the end and it does not pass; {jobs} jobs \
             had not ended and are counted neither as lost nor as ended."
        )
    })
}

fn late(report: &Report) -> Option<String> {
    let p99 = report.summary.lag.as_ref()?.p99_ms;
    (p99 > LATE_MS).then(|| {
        format!(
            "The generator itself sent up to {p99:.1} ms late (p99), which the latencies include: \
             it, or its machine, was busy."
        )
    })
}

fn busy(report: &Report) -> Option<String> {
    let phases = report.phases.iter().filter(|phase| phase.generator_busy.is_some_and(|busy| busy > BUSY));
    let mut steps: Vec<_> = phases.map(|phase| format!("{:.0}/s", phase.rate)).collect();
    steps.dedup();
    if !steps.is_empty() {
        return Some(format!(
            "At {} the generator itself was at its limit, not only the server.",
            steps.join(", ")
        ));
    }
    let busy = report.summary.rates.generator_busy.filter(|busy| *busy > BUSY)?;
    Some(format!(
        "The generator itself was at its limit: it needed a core {:.0} % of the time.",
        busy * 100.0
    ))
}

fn limited(report: &Report) -> Option<String> {
    let limited = report.failures.iter().filter(|count| count.failure == FailureKind::Status(429));
    let count: u64 = limited.map(|count| count.count).sum();
    (count > 0).then(|| {
        format!(
            "{count} requests were answered 429: the proxy limits the rate per client. For a load test, start it \
             with RATE_LIMIT_PER_MINUTE=0 or send a key whose limit is high enough."
        )
    })
}

fn unfinished(report: &Report) -> Option<String> {
    let jobs = report.summary.jobs.unfinished;
    (jobs > 0).then(|| {
        format!(
            "{jobs} jobs had not ended when the drain timed out and count as lost. If the workers were only slow, \
             raise --drain-timeout."
        )
    })
}

fn unverified(report: &Report) -> Option<String> {
    let jobs = report.summary.jobs.unverified;
    (jobs > 0)
        .then(|| format!("{jobs} ended jobs could not be read again, so nothing is known about their bytes."))
}

fn expired(report: &Report) -> Option<String> {
    let jobs = report.summary.jobs.expired;
    (jobs > 0).then(|| {
        format!("{jobs} sampled jobs had expired when they were to be read again, so they were not compared.")
    })
}

fn knee(report: &Report) -> String {
    match (report.summary.knee_rps, report.phases.iter().rev().find_map(|phase| phase.violation.as_ref())) {
        (Some(rate), Some(reason)) => {
            format!("The knee is at {rate:.0}/s, where objectives on requests are judged; past it, {reason}.")
        }
        (Some(rate), None) => format!("No knee was found: {rate:.0}/s, the last rate tried, still held."),
        (None, reason) => {
            let reason = reason.map_or("the run ended before its end", String::as_str);
            format!("Not even the first step held: {reason}.")
        }
    }
}
