//! The report as plain text.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{Outcome, Report};
use crate::latency::LatencySummary;
use crate::summary::{PhaseSummary, RequestSummary};

/// Prints a report as text.
pub(crate) struct Text<'a>(pub(crate) &'a Report);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(out, "tepal-loadtest {}: {}", report.version, report.title)?;
        writeln!(
            out,
            "{} at {}, {:?} arrivals, seed {}\n",
            report.url, report.started_at, report.arrivals, report.seed
        )?;
        requests(report, out)?;
        latencies(report, out)?;
        jobs(report, out)?;
        phases(&report.phases, out)?;
        failures(report, out)?;
        verdicts(report, out)?;
        report.notes.iter().try_for_each(|note| writeln!(out, "\nNote: {note}"))
    }
}

fn requests(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let all = &report.summary;
    writeln!(
        out,
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "requests", "intended", "ok", "failed", "refused", "dropped"
    )?;
    for (name, requests) in
        [("submit", &all.submit), ("get", &all.get), ("health", &all.health), ("follow", &all.follow)]
    {
        let RequestSummary { intended, succeeded, failed, refused, dropped, .. } = requests;
        writeln!(out, "{name:<12}{intended:>10}{succeeded:>10}{failed:>10}{refused:>10}{dropped:>10}")?;
    }
    writeln!(out)
}

fn latencies(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    writeln!(
        out,
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "latency, ms", "mean", "p50", "p95", "p99", "p99.9", "max"
    )?;
    for (name, latency) in rows(report) {
        let Some(LatencySummary { mean_ms, p50_ms, p95_ms, p99_ms, p999_ms, max_ms, .. }) = latency else {
            continue;
        };
        writeln!(
            out,
            "{name:<12}{mean_ms:>10.2}{p50_ms:>10.2}{p95_ms:>10.2}{p99_ms:>10.2}{p999_ms:>10.2}{max_ms:>10.2}"
        )?;
    }
    writeln!(out)
}

/// Every distribution with the name that SLO terms use, in the order of the tables.
pub(super) fn rows(report: &Report) -> [(&'static str, Option<&LatencySummary>); 7] {
    let all = &report.summary;
    [
        ("submit", all.submit.latency.as_ref()),
        ("get", all.get.latency.as_ref()),
        ("health", all.health.latency.as_ref()),
        ("follow", all.follow.latency.as_ref()),
        ("complete", all.complete.as_ref()),
        ("turnaround", all.turnaround.as_ref()),
        ("lag", all.lag.as_ref()),
    ]
}

fn jobs(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let (jobs, rates) = (&report.summary.jobs, &report.summary.rates);
    writeln!(
        out,
        "jobs        {} accepted: {} completed, {} failed, {} cancelled, {} lost, {} duplicated, {} mixed up; {} of {} changed",
        jobs.accepted,
        jobs.completed,
        jobs.failed,
        jobs.cancelled,
        jobs.lost,
        jobs.duplicated,
        jobs.mixed_up,
        jobs.changed,
        jobs.verified
    )?;
    writeln!(
        out,
        "per second  {:.1} intended, {:.1} accepted over {:.1} s; {:.1} completed over {:.1} s",
        rates.intended_rps, rates.submit_rps, rates.sending_seconds, rates.complete_rps, rates.total_seconds
    )?;
    if let Some(busy) = rates.generator_busy {
        writeln!(out, "generator   needed a core {:.0} % of the sending time", busy * 100.0)?;
    }
    report.lost_examples.iter().try_for_each(|id| writeln!(out, "  not ended: {id}"))?;
    for change in &report.changed_examples {
        writeln!(
            out,
            "  changed: {}\n    before {}\n    after  {}",
            change.job_id, change.before, change.after
        )?;
    }
    Ok(())
}

fn phases(phases: &[PhaseSummary], out: &mut Formatter<'_>) -> fmt::Result {
    if phases.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<12}{:>10}{:>10}{:>10}{:>12}{:>12}{:>12}",
        "step, /s", "accepted", "seconds", "failed", "submit p99", "get p99", "health p99"
    )?;
    for phase in phases {
        let p99 = |requests: &RequestSummary| {
            requests.latency.as_ref().map_or("-".to_owned(), |l| format!("{:.2}", l.p99_ms))
        };
        let failed = phase.submit.failed + phase.get.failed + phase.health.failed;
        write!(out, "{:<12.1}{:>10.1}{:>10.1}{failed:>10}", phase.rate, phase.submit_rps, phase.seconds)?;
        write!(out, "{:>12}{:>12}{:>12}", p99(&phase.submit), p99(&phase.get), p99(&phase.health))?;
        writeln!(out, "{}", phase.violation.as_ref().map_or(String::new(), |reason| format!("  {reason}")))?;
    }
    Ok(())
}

fn failures(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    if report.failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nfailures")?;
    report
        .failures
        .iter()
        .try_for_each(|row| writeln!(out, "  {:<10}{:<20}{:>8}", row.operation, row.kind, row.count))
}

fn verdicts(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let word = match report.outcome {
        Outcome::Passed => "all hold",
        Outcome::Interrupted => "interrupted, not judged to the end",
        Outcome::Broken => "BROKEN",
    };
    writeln!(out, "\nobjectives: {word}")?;
    for verdict in &report.slo {
        let word = if verdict.passed { "ok" } else { "FAIL" };
        writeln!(out, "  {word:<6}{:<28}{}", verdict.term, measured(verdict.value))?;
    }
    Ok(())
}

/// A measured value with as many digits as it deserves.
pub(super) fn measured(value: Option<f64>) -> String {
    match value {
        None => "not measured".to_owned(),
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) if value.abs() < 1.0 => format!("{value:.4}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// How long the run took.
pub(super) fn total_time(report: &Report) -> String {
    let tenths = report.summary.rates.total_seconds * 10.0;
    humantime::format_duration(Duration::from_millis(tenths.round() as u64 * 100)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_as_many_digits_as_they_deserve() {
        let shown = [None, Some(3.0), Some(0.00051), Some(12.345)].map(measured);
        assert_eq!(shown, ["not measured", "3", "0.0005", "12.35"]);
    }
}
