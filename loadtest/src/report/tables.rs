//! The tables of a report. The text and the page show the same.

use super::content::Report;
use crate::measure::latency::LatencySummary;
use crate::measure::summary::{PhaseSummary, RequestSummary};

/// Rows of cells. The first column has names, the others have numbers; a column without a heading has sentences.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) columns: &'static [&'static str],
    pub(super) rows: Vec<Vec<String>>,
}

/// Every table but the objectives, if it has rows.
pub(super) fn tables(report: &Report) -> Vec<Table> {
    let all = [latencies(report), requests(report), failures(report), steps(report), jobs(report)];
    all.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// The verdicts on the objectives.
pub(super) fn objectives(report: &Report) -> Table {
    let rows = report.slo.iter().map(|verdict| {
        let word = if verdict.passed { "holds" } else { "broken" };
        vec![verdict.term.clone(), measured(verdict.value), word.to_owned()]
    });
    Table { title: "Objectives", columns: &["measured", "verdict"], rows: rows.collect() }
}

fn latencies(report: &Report) -> Table {
    let all = &report.summary;
    let rows = [
        ("submit", &all.submit.latency),
        ("get", &all.get.latency),
        ("health", &all.health.latency),
        ("follow", &all.follow.latency),
        ("complete", &all.complete),
        ("turnaround", &all.turnaround),
        ("lag", &all.lag),
    ];
    let row = |(name, latency): (&str, &Option<LatencySummary>)| {
        let LatencySummary { count, mean_ms, p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms } =
            latency.as_ref()?;
        let times = [mean_ms, p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms];
        let cells = [name.to_owned(), count.to_string()];
        Some(cells.into_iter().chain(times.map(|time| format!("{time:.2}"))).collect())
    };
    Table {
        title: "Latency in ms",
        columns: &["count", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"],
        rows: rows.into_iter().filter_map(row).collect(),
    }
}

fn requests(report: &Report) -> Table {
    let all = &report.summary;
    let rows = [("submit", &all.submit), ("get", &all.get), ("health", &all.health), ("follow", &all.follow)];
    let row = |(name, row): (&str, &RequestSummary)| {
        let counts = [row.intended, row.succeeded, row.failed, row.refused, row.dropped];
        std::iter::once(name.to_owned()).chain(counts.map(|count| count.to_string())).collect()
    };
    Table {
        title: "Requests",
        columns: &["intended", "ok", "failed", "refused", "dropped"],
        rows: rows.into_iter().map(row).collect(),
    }
}

fn failures(report: &Report) -> Table {
    let rows = report
        .failures
        .iter()
        .map(|row| vec![format!("{}: {}", row.operation, row.kind), row.count.to_string()]);
    Table { title: "Failures", columns: &["count"], rows: rows.collect() }
}

fn steps(report: &Report) -> Table {
    let row = |phase: &PhaseSummary| {
        let failed = phase.submit.failed + phase.get.failed + phase.health.failed;
        vec![
            format!("{:.1}/s", phase.rate),
            format!("{:.1}", phase.submit_rps),
            format!("{:.1}", phase.seconds),
            failed.to_string(),
            p99(&phase.submit),
            p99(&phase.get),
            p99(&phase.health),
            phase.violation.clone().unwrap_or_default(),
        ]
    };
    Table {
        title: "Steps",
        columns: &["accepted/s", "seconds", "failed", "submit p99", "get p99", "health p99", ""],
        rows: report.phases.iter().map(row).collect(),
    }
}

fn jobs(report: &Report) -> Table {
    let jobs = &report.summary.jobs;
    let rows = [
        ("accepted", jobs.accepted),
        ("completed", jobs.completed),
        ("failed", jobs.failed),
        ("cancelled", jobs.cancelled),
        ("lost: unknown to the server", jobs.not_found),
        ("lost: not ended in time", jobs.unfinished),
        ("not ended when interrupted", jobs.abandoned),
        ("id issued twice", jobs.duplicated),
        ("read as another job", jobs.mixed_up),
        ("read again", jobs.verified),
        ("changed since their end", jobs.changed),
        ("could not be read again", jobs.unverified),
        ("expired before they were read again", jobs.expired),
    ];
    let rows = rows.map(|(name, count)| vec![name.to_owned(), count.to_string()]);
    Table { title: "Jobs", columns: &["count"], rows: rows.into() }
}

/// The p99 in milliseconds, or a dash.
pub(super) fn p99(requests: &RequestSummary) -> String {
    requests.latency.as_ref().map_or("-".to_owned(), |latency| format!("{:.2}", latency.p99_ms))
}

/// A measured value with as many digits as it deserves.
fn measured(value: Option<f64>) -> String {
    match value {
        None => "not measured".to_owned(),
        Some(value) if value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) if value.abs() < 1.0 => format!("{value:.4}"),
        Some(value) => format!("{value:.2}"),
    }
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
