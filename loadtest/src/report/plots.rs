//! Which charts a report has, and where their points come from.

use super::Report;
use super::chart::{Chart, Scale, Series};
use crate::latency::Percentiles;
use crate::recorder::Window;

type Picked = fn(&Window) -> Option<Percentiles>;

/// All charts in reading order. Latencies that were never measured get none.
pub(super) fn charts(report: &Report) -> Vec<Chart> {
    let limits = &report.limits;
    let latencies: [(&'static str, Picked, Option<f64>); 4] = [
        ("POST /predict latency", |window| window.submit, limits.submit),
        ("GET /job latency", |window| window.get, limits.get),
        ("GET /health latency", |window| window.health, limits.health),
        ("Submission to end of job", |window| window.complete, limits.complete),
    ];
    let measured = latencies
        .into_iter()
        .filter(|(_, pick, _)| report.timeline.iter().any(|window| pick(window).is_some()));
    let mut charts: Vec<_> =
        measured.map(|(title, pick, limit)| latency(report, title, pick, limit)).collect();
    charts.insert(charts.len().min(1), throughput(report));
    charts.extend([backlog(report), errors(report)]);
    charts
}

fn latency(report: &Report, title: &'static str, pick: Picked, limit: Option<f64>) -> Chart {
    let line = |name, value: fn(Percentiles) -> f64| {
        let values = report.timeline.iter().map(|window| pick(window).map(value)).collect();
        Series { name, class: name, values }
    };
    let series = vec![line("p50", |p| p.p50_ms), line("p95", |p| p.p95_ms), line("p99", |p| p.p99_ms)];
    Chart { title, unit: "ms", scale: Scale::Log, times: times(report), series, limit }
}

fn throughput(report: &Report) -> Chart {
    let rate = |name, class, count: fn(&Window) -> u64| {
        line(report, name, class, |window| count(window) as f64 / window.seconds.max(0.001))
    };
    let series = vec![
        rate("intended", "intended", |window| window.intended),
        rate("accepted", "accepted", |window| window.accepted),
        rate("ended", "ended", |window| window.ended),
    ];
    linear(report, "Throughput", "per second", series)
}

fn backlog(report: &Report) -> Chart {
    let series = vec![line(report, "accepted, not ended", "accepted", |window| window.backlog as f64)];
    linear(report, "Queue depth", "jobs", series)
}

fn errors(report: &Report) -> Chart {
    let series = vec![
        line(report, "errors", "errors", |window| window.errors as f64),
        line(report, "of them dropped", "dropped", |window| window.dropped as f64),
    ];
    linear(report, "Errors", "requests", series)
}

fn line(report: &Report, name: &'static str, class: &'static str, value: impl Fn(&Window) -> f64) -> Series {
    Series { name, class, values: report.timeline.iter().map(|window| Some(value(window))).collect() }
}

fn linear(report: &Report, title: &'static str, unit: &'static str, series: Vec<Series>) -> Chart {
    Chart { title, unit, scale: Scale::Linear, times: times(report), series, limit: None }
}

/// The end of each window: its numbers were complete then.
fn times(report: &Report) -> Vec<f64> {
    report.timeline.iter().map(|window| window.start + window.seconds).collect()
}
