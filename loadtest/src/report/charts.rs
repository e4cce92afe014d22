//! The list of charts on the page, with their values.

use super::chart::{Chart, Line};
use super::content::Report;
use crate::measure::latency::Percentiles;
use crate::measure::timeline::Window;

type Percentile = fn(Percentiles) -> f64;
type Number = fn(&Window) -> f64;

/// All charts in reading order. A latency that was never measured has none.
pub(super) fn charts(report: &Report) -> Vec<Chart> {
    let mut charts = vec![
        latency(report, "POST /predict latency", "submit_p99_ms", |window| window.submit),
        numbers(
            report,
            ("Throughput", "per second"),
            &[
                ("intended", |window| window.per_second(window.intended)),
                ("accepted", |window| window.per_second(window.accepted)),
                ("ended", |window| window.per_second(window.ended)),
            ],
        ),
        latency(report, "GET /job latency", "get_p99_ms", |window| window.get),
        latency(report, "GET /health latency", "health_p99_ms", |window| window.health),
        latency(report, "Submission to end of job", "complete_p99_ms", |window| window.complete),
        numbers(report, ("Queue depth", "jobs"), &[("backlog", |window| window.backlog as f64)]),
        numbers(
            report,
            ("Errors", "requests"),
            &[("errors", |window| window.errors as f64), ("dropped", |window| window.dropped as f64)],
        ),
    ];
    charts.retain(|chart| chart.lines.iter().any(|(_, values)| values.iter().any(Option::is_some)));
    charts
}

fn latency(
    report: &Report,
    title: &'static str,
    objective: &str,
    pick: fn(&Window) -> Option<Percentiles>,
) -> Chart {
    let lines: [(&str, Percentile); 3] =
        [("p50", |all| all.p50_ms), ("p95", |all| all.p95_ms), ("p99", |all| all.p99_ms)];
    let values =
        |percentile: Percentile| report.timeline.iter().map(move |window| pick(window).map(percentile));
    Chart {
        title,
        unit: "ms",
        is_log: true,
        times: times(report),
        lines: lines.map(|(name, percentile)| (name, values(percentile).collect())).into(),
        limit: report.objectives.limit_of(objective),
    }
}

fn numbers(
    report: &Report,
    (title, unit): (&'static str, &'static str),
    lines: &[(&'static str, Number)],
) -> Chart {
    let line = |(name, number): &(&'static str, Number)| -> Line {
        (name, report.timeline.iter().map(|window| Some(number(window))).collect())
    };
    Chart {
        title,
        unit,
        is_log: false,
        times: times(report),
        lines: lines.iter().map(line).collect(),
        limit: None,
    }
}

/// The end of each window: its numbers were complete then.
fn times(report: &Report) -> Vec<f64> {
    report.timeline.iter().map(|window| window.start + window.seconds).collect()
}
