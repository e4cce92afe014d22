//! The report as plain text.

use std::fmt::{self, Display, Formatter};

use super::content::Report;
use super::tables::{Table, objectives, tables};

/// Prints a report as text.
pub(super) struct Text<'a>(pub(super) &'a Report);

impl Display for Text<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(out, "tepal-loadtest {}: {}\n{}\n", report.version, report.title, report.conditions())?;
        tables(report).iter().try_for_each(|rows| table(rows, out))?;
        rates(report, out)?;
        examples(report, out)?;
        writeln!(out)?;
        table(&objectives(report), out)?;
        writeln!(out, "objectives: {}", report.outcome.sentence())?;
        report.notes.iter().try_for_each(|note| writeln!(out, "\nNote: {note}"))
    }
}

/// Columns of numbers end on the right; one of sentences, which has no heading, begins on the left.
fn table(table: &Table, out: &mut Formatter<'_>) -> fmt::Result {
    let header: Vec<_> = [table.title].iter().chain(table.columns).map(|name| (*name).to_owned()).collect();
    let lines: Vec<_> = std::iter::once(&header).chain(&table.rows).collect();
    for line in &lines {
        let mut text = String::new();
        for (index, cell) in line.iter().enumerate() {
            let width = lines.iter().map(|line| line[index].len()).max().unwrap_or_default();
            text += &match (index, header[index].as_str()) {
                (0, _) => format!("{cell:<width$}"),
                (_, "") => format!("  {cell}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    writeln!(out)
}

fn rates(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    let rates = &report.summary.rates;
    writeln!(
        out,
        "per second  {:.1} intended, {:.1} accepted over {:.1} s; {:.1} completed over {:.1} s",
        rates.intended_rps, rates.submit_rps, rates.sending_seconds, rates.complete_rps, rates.total_seconds
    )?;
    let busy = rates.generator_busy.map(|busy| busy * 100.0);
    busy.map_or(Ok(()), |busy| writeln!(out, "generator   needed a core {busy:.0} % of the sending time"))
}

fn examples(report: &Report, out: &mut Formatter<'_>) -> fmt::Result {
    report.lost_examples.iter().try_for_each(|id| writeln!(out, "  not ended: {id}"))?;
    report.changed_examples.iter().try_for_each(|change| {
        let (id, before, after) = (&change.job_id, &change.before, &change.after);
        writeln!(out, "  changed: {id}\n    before {before}\n    after  {after}")
    })
}
