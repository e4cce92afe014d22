//! The report as one HTML page that needs no other file: style and charts are inside, and it has no script.

use std::fmt::{self, Display, Formatter};

use super::charts::charts;
use super::content::{Outcome, Report};
use super::tables::{Table, objectives, p99, tables};

const STYLE: &str = include_str!("page.css");

/// Prints a report as a page.
pub(super) struct Page<'a>(pub(super) &'a Report);

impl Display for Page<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
        writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        writeln!(out, "<title>Load test: {}</title>\n<style>\n{STYLE}</style>", escaped(&report.title))?;
        writeln!(out, "</head>\n<body>")?;
        head(report, out)?;
        cards(report, out)?;
        table(&objectives(report), out)?;
        writeln!(out, "<section class=\"charts\">")?;
        charts(report).iter().try_for_each(|chart| write!(out, "{chart}"))?;
        writeln!(out, "</section>")?;
        tables(report).iter().try_for_each(|rows| table(rows, out))?;
        examples(report, out)?;
        writeln!(out, "<footer>tepal-loadtest {}</footer>\n</body>\n</html>", report.version)
    }
}

/// The text so that HTML shows it as it is, in attributes too.
fn escaped(text: &str) -> String {
    let pairs = [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(*from, to))
}

fn head(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let class = if report.outcome == Outcome::Passed { "ok" } else { "bad" };
    let (title, word) = (escaped(&report.title), report.outcome.sentence());
    writeln!(out, "<header><h1>{title} <span class=\"badge {class}\">objectives: {word}</span></h1>")?;
    writeln!(out, "<p>{}</p></header>", escaped(&report.conditions()))?;
    report.notes.iter().try_for_each(|note| writeln!(out, "<p class=\"note\">{}</p>", escaped(note)))
}

fn cards(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let all = &report.summary;
    let mut cards = vec![
        ("accepted", format!("{:.1}/s", all.rates.submit_rps)),
        ("completed", format!("{:.1}/s", all.rates.complete_rps)),
        ("submit p99, ms", p99(&all.submit)),
        ("get p99, ms", p99(&all.get)),
        ("health p99, ms", p99(&all.health)),
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

fn table(table: &Table, out: &mut Formatter<'_>) -> fmt::Result {
    let columns: Vec<_> = [""].iter().chain(table.columns).collect();
    writeln!(out, "<h2>{}</h2>\n<table>\n<tr>", table.title)?;
    columns.iter().try_for_each(|column| write!(out, "<th>{column}</th>"))?;
    for row in &table.rows {
        writeln!(out, "</tr>\n<tr>")?;
        for (column, cell) in columns.iter().zip(row) {
            let class = if column.is_empty() { " class=\"words\"" } else { "" };
            write!(out, "<td{class}>{}</td>", cell_of(cell))?;
        }
    }
    writeln!(out, "</tr>\n</table>")
}

/// Verdicts stand out.
fn cell_of(text: &str) -> String {
    match text {
        "holds" => "<span class=\"badge ok\">holds</span>".to_owned(),
        "broken" => "<span class=\"badge bad\">broken</span>".to_owned(),
        other => escaped(other),
    }
}

fn examples(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    if !report.lost_examples.is_empty() {
        let ids = escaped(&report.lost_examples.join("\n"));
        writeln!(out, "<h2>Jobs that did not end</h2><pre>{ids}</pre>")?;
    }
    for change in &report.changed_examples {
        let [id, before, after] = [&change.job_id, &change.before, &change.after].map(|text| escaped(text));
        writeln!(out, "<h2>Changed: {id}</h2><pre>before  {before}\nafter   {after}</pre>")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_sends_cannot_become_markup() {
        let escaped = escaped("<script>alert(\"x\" & 'y')</script>");
        assert_eq!(escaped, "&lt;script&gt;alert(&quot;x&quot; &amp; &#39;y&#39;)&lt;/script&gt;");
    }
}
