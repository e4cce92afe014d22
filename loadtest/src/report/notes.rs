//! Sentences to read before trusting the numbers.

use super::content::Report;
use crate::http::failure::FailureKind;

/// Above this p99, in milliseconds, the lag of the generator is visible in the latencies.
const LATE_MS: f64 = 5.0;
/// Above this share of a core, the generator may limit the rate.
const BUSY: f64 = 0.9;

/// All notes on a run.
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
            "The run was interrupted. Its objectives were not judged to the end, so it does not pass. {jobs} jobs had not \
             ended; they count neither as lost nor as ended."
        )
    })
}

fn late(report: &Report) -> Option<String> {
    let p99 = report.summary.lag.as_ref()?.p99_ms;
    (p99 > LATE_MS).then(|| {
        format!(
            "The load test sent requests up to {p99:.1} ms late (p99), and the latencies include this. The load test or its \
             machine was busy."
        )
    })
}

fn busy(report: &Report) -> Option<String> {
    let phases = report.phases.iter().filter(|phase| phase.generator_busy.is_some_and(|busy| busy > BUSY));
    let mut steps: Vec<_> = phases.map(|phase| format!("{:.0}/s", phase.rate)).collect();
    steps.dedup();
    if !steps.is_empty() {
        return Some(format!("At {} the load test was at its limit, not only the server.", steps.join(", ")));
    }
    let busy = report.summary.rates.generator_busy.filter(|busy| *busy > BUSY)?;
    Some(format!("The load test was at its limit: it needed a core {:.0} % of the time.", busy * 100.0))
}

fn limited(report: &Report) -> Option<String> {
    let limited = report.failures.iter().filter(|count| count.failure == FailureKind::Status(429));
    let count: u64 = limited.map(|count| count.count).sum();
    (count > 0).then(|| {
        format!(
            "{count} requests were answered 429: the proxy limits the rate per client. For a load test, start the proxy with \
             RATE_LIMIT_PER_MINUTE=0 or use a key with a higher limit."
        )
    })
}

fn unfinished(report: &Report) -> Option<String> {
    let jobs = report.summary.jobs.unfinished;
    (jobs > 0).then(|| {
        format!(
            "{jobs} jobs had not ended when the drain timed out, so they count as lost. If the workers were only slow, \
             increase --drain-timeout."
        )
    })
}

fn unverified(report: &Report) -> Option<String> {
    let jobs = report.summary.jobs.unverified;
    (jobs > 0)
        .then(|| format!("{jobs} ended jobs could not be read again, so it is unknown whether they changed."))
}

fn expired(report: &Report) -> Option<String> {
    let jobs = report.summary.jobs.expired;
    (jobs > 0).then(|| {
        format!("{jobs} sampled jobs had expired before the second read, so they were not compared.")
    })
}

fn knee(report: &Report) -> String {
    match (report.summary.knee_rps, report.phases.iter().rev().find_map(|phase| phase.violation.as_ref())) {
        (Some(rate), Some(reason)) => {
            format!(
                "The knee is at {rate:.0}/s. Objectives on requests are judged there. At the next rate, {reason}."
            )
        }
        (Some(rate), None) => {
            format!("No knee was found: at {rate:.0}/s, the last rate, all objectives on requests held.")
        }
        (None, reason) => {
            let reason = reason.map_or("the run was interrupted before its end", String::as_str);
            format!("The first step failed: {reason}.")
        }
    }
}
