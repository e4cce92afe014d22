//! The report as one HTML page that needs nothing else: style and plots are in it, scripts there are none.

use std::fmt::{self, Display, Formatter, Write};

use super::text::{measured, rows, total_time};
use super::{Outcome, Report, plots};
use crate::summary::{PhaseSummary, RequestSummary};

const STYLE: &str = include_str!("page.css");

/// Prints a report as a page.
pub(crate) struct Page<'a>(pub(crate) &'a Report);

/// Prints a value so that it is only text in HTML, in attributes too.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut Formatter<'b>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|character| match character {
                    '&' => self.0.write_str("&amp;"),
                    '<' => self.0.write_str("&lt;"),
                    '>' => self.0.write_str("&gt;"),
                    '"' => self.0.write_str("&quot;"),
                    '\'' => self.0.write_str("&#39;"),
                    other => self.0.write_char(other),
                })
            }
        }
        write!(Escape(out), "{}", self.0)
    }
}

impl Display for Page<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
        writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        writeln!(
            out,
            "<title>Load test: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>",
            Escaped(&report.title)
        )?;
        head(report, out)?;
        cards(report, out)?;
        verdicts(report, out)?;
        writeln!(out, "<section class=\"charts\">")?;
        plots::charts(report).iter().try_for_each(|chart| write!(out, "{chart}"))?;
        writeln!(out, "</section>")?;
        latencies(report, out)?;
        requests(report, out)?;
        phases(&report.phases, out)?;
        jobs(report, out)?;
        writeln!(out, "<footer>tepal-loadtest {}</footer>\n</body>\n</html>", report.version)
    }
}

fn head(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let (class, word) = match report.outcome {
        Outcome::Passed => ("ok", "all objectives hold"),
        Outcome::Interrupted => ("bad", "interrupted, not judged to the end"),
        Outcome::Broken => ("bad", "objectives broken"),
    };
    writeln!(out, "<header><h1>{} <span class=\"badge {class}\">{word}</span></h1>", Escaped(&report.title))?;
    let arrivals = format!("{:?}", report.arrivals).to_lowercase();
    let (url, at) = (Escaped(&report.url), Escaped(&report.started_at));
    writeln!(
        out,
        "<p>{url} &middot; {at} &middot; {arrivals} arrivals &middot; seed {} &middot; took {}</p></header>",
        report.seed,
        total_time(report)
    )?;
    report.notes.iter().try_for_each(|note| writeln!(out, "<p class=\"note\">{}</p>", Escaped(note)))
}

fn cards(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let all = &report.summary;
    let p99 = |requests: &RequestSummary| {
        requests.latency.as_ref().map_or("-".to_owned(), |l| format!("{:.2} ms", l.p99_ms))
    };
    let mut cards = vec![
        ("accepted", format!("{:.1}/s", all.rates.submit_rps)),
        ("completed", format!("{:.1}/s", all.rates.complete_rps)),
        ("submit p99", p99(&all.submit)),
        ("get p99", p99(&all.get)),
        ("health p99", p99(&all.health)),
        ("errors", all.errors().to_string()),
        ("lost", all.jobs.lost.to_string()),
        ("changed", all.jobs.changed.to_string()),
    ];
    cards.extend(all.rates.generator_busy.map(|busy| ("generator busy", format!("{:.0} %", busy * 100.0))));
    cards.extend(all.knee_rps.map(|rate| ("knee", format!("{rate:.0}/s"))));
    writeln!(out, "<section class=\"cards\">")?;
    cards
        .iter()
        .try_for_each(|(name, value)| writeln!(out, "<div><b>{value}</b><span>{name}</span></div>"))?;
    writeln!(out, "</section>")
}

fn verdicts(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    table(out, "Objectives", &["objective", "measured", "verdict"])?;
    for verdict in &report.slo {
        let (class, word) = if verdict.passed { ("ok", "holds") } else { ("bad", "broken") };
        let (term, value) = (Escaped(&verdict.term), measured(verdict.value));
        writeln!(
            out,
            "<tr><td>{term}</td><td>{value}</td><td><span class=\"badge {class}\">{word}</span></td></tr>"
        )?;
    }
    writeln!(out, "</table>")
}

fn latencies(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    table(
        out,
        "Latency in ms, from the intended send time",
        &["", "count", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"],
    )?;
    for (name, latency) in rows(report) {
        let Some(all) = latency else { continue };
        write!(out, "<tr><td>{name}</td><td>{}</td>", all.count)?;
        for value in [all.mean_ms, all.p50_ms, all.p90_ms, all.p95_ms, all.p99_ms, all.p999_ms, all.max_ms] {
            write!(out, "<td>{value:.2}</td>")?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</table>")
}

fn requests(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let all = &report.summary;
    table(out, "Requests", &["", "intended", "ok", "failed", "refused", "dropped"])?;
    for (name, row) in
        [("submit", &all.submit), ("get", &all.get), ("health", &all.health), ("follow", &all.follow)]
    {
        let cells = [row.intended, row.succeeded, row.failed, row.refused, row.dropped];
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        writeln!(out, "<tr><td>{name}</td>{cells}</tr>")?;
    }
    writeln!(out, "</table>")?;
    if report.failures.is_empty() {
        return Ok(());
    }
    table(out, "Failures", &["request", "what", "count"])?;
    for row in &report.failures {
        writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            row.operation,
            Escaped(&row.kind),
            row.count
        )?;
    }
    writeln!(out, "</table>")
}

fn phases(phases: &[PhaseSummary], out: &mut Formatter<'_>) -> fmt::Result {
    if phases.is_empty() {
        return Ok(());
    }
    table(
        out,
        "Steps",
        &["intended/s", "accepted/s", "seconds", "failed", "submit p99", "get p99", "health p99", ""],
    )?;
    for phase in phases {
        let p99 = |requests: &RequestSummary| {
            requests.latency.as_ref().map_or("-".to_owned(), |l| format!("{:.2}", l.p99_ms))
        };
        let failed = phase.submit.failed + phase.get.failed + phase.health.failed;
        write!(
            out,
            "<tr><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td><td>{failed}</td>",
            phase.rate, phase.submit_rps, phase.seconds
        )?;
        write!(
            out,
            "<td>{}</td><td>{}</td><td>{}</td>",
            p99(&phase.submit),
            p99(&phase.get),
            p99(&phase.health)
        )?;
        writeln!(
            out,
            "<td class=\"why\">{}</td></tr>",
            Escaped(phase.violation.as_deref().unwrap_or_default())
        )?;
    }
    writeln!(out, "</table>")
}

fn jobs(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let jobs = &report.summary.jobs;
    table(out, "Jobs", &["outcome", "count"])?;
    for (name, count) in [
        ("accepted", jobs.accepted),
        ("completed", jobs.completed),
        ("failed", jobs.failed),
        ("cancelled", jobs.cancelled),
        ("lost: unknown to the server", jobs.not_found),
        ("lost: not ended in time", jobs.unfinished),
        ("not ended when interrupted", jobs.abandoned),
        ("id given twice", jobs.duplicated),
        ("read as another job", jobs.mixed_up),
        ("read again", jobs.verified),
        ("changed since their end", jobs.changed),
        ("could not be read again", jobs.unverified),
        ("expired before they were read again", jobs.expired),
    ] {
        writeln!(out, "<tr><td>{name}</td><td>{count}</td></tr>")?;
    }
    writeln!(out, "</table>")?;
    examples(report, out)
}

fn examples(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    if !report.lost_examples.is_empty() {
        writeln!(
            out,
            "<h2>Jobs that did not end</h2><pre>{}</pre>",
            Escaped(report.lost_examples.join("\n"))
        )?;
    }
    for change in &report.changed_examples {
        let (id, before, after) = (Escaped(&change.job_id), Escaped(&change.before), Escaped(&change.after));
        writeln!(out, "<h2>Changed: {id}</h2><pre>before  {before}\nafter   {after}</pre>")?;
    }
    Ok(())
}

fn table(out: &mut Formatter<'_>, title: &str, columns: &[&str]) -> fmt::Result {
    let columns: String = columns.iter().map(|column| format!("<th>{column}</th>")).collect();
    writeln!(out, "<h2>{title}</h2>\n<table>\n<tr>{columns}</tr>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_sends_cannot_become_markup() {
        let escaped = Escaped("<script>alert(\"x\" & 'y')</script>").to_string();
        assert_eq!(escaped, "&lt;script&gt;alert(&quot;x&quot; &amp; &#39;y&#39;)&lt;/script&gt;");
    }
}
