//! The measured part of `docs/performance.md`. The rest of the page stays as it is.

use std::fmt::Write as _;
use std::path::Path;

use crate::Scale;
use crate::machine::{self, Started};
use crate::rows::{Detail, Measured, Row, Target};
use crate::series::{Series, number};

const BEGIN: &str = "<!-- measured: written by make bench, do not edit -->";
const END: &str = "<!-- end of measured -->";

/// Everything measured, as Markdown.
pub(crate) fn measured(measured: &Measured, started: &Started, scale: Scale) -> String {
    let seconds = scale.length.as_secs_f64();
    let mut text = format!(
        "{}; {}.\nMeasured {} with `make bench SECONDS={seconds} ROUNDS={} JOBS={}`; load of the machine at the start: {}.\n\n",
        machine::machine(),
        machine::versions(),
        started.at,
        scale.rounds,
        scale.jobs,
        started.load,
    );
    text += "| what | limit | Tepal | figure | target | |\n| --- | --- | --- | --- | --- | --- |\n";
    measured.rows.iter().for_each(|row| line(row, &mut text));
    measured.details.iter().for_each(|detail| table(detail, &mut text));
    text
}

fn line(row: &Row, text: &mut String) {
    let with_unit = |(series, unit): &(Series, &str)| format!("{} {unit}", number(series.median()));
    let limit = row.limit.as_ref().map(with_unit).unwrap_or_default();
    let figure = row.judged.median();
    let (target, is_met) = match row.target {
        Target::AtLeast(least) => (format!(">= {}", short(least)), figure >= least),
        Target::AtMost(most) => (format!("<= {}", short(most)), figure <= most),
    };
    let verdict = if is_met { "met" } else { "**missed**" };
    let (what, tepal, judged) = (&row.what, with_unit(&row.tepal), &row.judged);
    let _ = writeln!(text, "| {what} | {limit} | {tepal} | {judged} | {target} | {verdict} |");
}

fn table(detail: &Detail, text: &mut String) {
    let _ = writeln!(text, "\n### {}\n", detail.title);
    if !detail.text.is_empty() {
        let _ = writeln!(text, "{}\n", detail.text);
    }
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<_> = detail.head.iter().map(ToString::to_string).collect();
    *text += &row(&head);
    *text += &row(&vec!["---".to_owned(); head.len()]);
    detail.lines.iter().for_each(|line| *text += &row(line));
}

/// A target as text.
fn short(value: f64) -> String {
    format!("{value}")
}

/// Replaces the measured part of the page at `path`.
pub(crate) fn write(path: &Path, measured: &str) {
    let old = std::fs::read_to_string(path).unwrap_or_else(|_| format!("{BEGIN}\n{END}\n"));
    let (before, rest) =
        old.split_once(BEGIN).unwrap_or_else(|| panic!("{} has no `{BEGIN}`", path.display()));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{} has no `{END}`", path.display()));
    let new = format!("{before}{BEGIN}\n{measured}{END}{after}");
    std::fs::write(path, new).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("written to {}", path.display());
}
