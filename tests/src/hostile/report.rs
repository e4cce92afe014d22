//! The table of a run in `docs/security.md`.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::io;
use std::path::Path;

use super::verdict::Measured;

const START: &str = "<!-- measured by make hostile -->";
const END: &str = "<!-- end of measured -->";
/// Outcomes of an attack that are shown, the most frequent ones.
const SHOWN: usize = 3;

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Command, machine and date.
    pub(super) made: String,
    pub(super) measured: Vec<Measured>,
}

impl Report {
    /// Whether no rule was broken.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.measured.iter().all(|measured| measured.broken().is_empty())
    }

    /// Puts the table into the page, between its two marks.
    ///
    /// # Errors
    /// When the page cannot be read or written, or lacks the marks.
    pub fn write_into(&self, page: &Path) -> io::Result<()> {
        let text = std::fs::read_to_string(page)?;
        let parts = text.split_once(START).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = parts.ok_or_else(|| io::Error::other(format!("no line {START}, {END}")))?;
        std::fs::write(page, format!("{before}{START}\n{self}{END}{after}"))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sizes: BTreeMap<usize, Vec<&Measured>> = BTreeMap::new();
        for measured in &self.measured {
            sizes.entry(measured.largest_body).or_default().push(measured);
        }
        writeln!(f, "{}", self.made)?;
        for (largest_body, measured) in sizes {
            writeln!(f, "\n`MAX_BODY_BYTES={largest_body}`:\n")?;
            writeln!(f, "{HEADER}")?;
            for measured in measured {
                writeln!(f, "{}", row(measured))?;
            }
        }
        writeln!(f)?;
        for measured in &self.measured {
            for rule in measured.broken() {
                writeln!(f, "* BROKEN: {} ({}): {rule}", measured.name, measured.largest_body)?;
            }
        }
        let (rounds, holds) =
            (self.measured.len(), if self.holds() { "No rule was broken" } else { "Rules were broken" });
        writeln!(f, "{holds} in {rounds} attacks.")
    }
}

const HEADER: &str = "\
| attack | attackers got | sent, MiB | answered, MiB | honest answers | p99 alone, ms | p99 attacked, ms | \
p99 control, ms | times | processor, s | proxy, MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

fn row(measured: &Measured) -> String {
    let Measured { name, what, attack, quiet, attacked, control, taken, burnt, memory, .. } = measured;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let p99 = |served: &super::honest::Served| served.quantile(0.99).as_secs_f64() * 1000.0;
    let done = attacked.jobs - attacked.failures.len();
    format!(
        "| `{name}`: {what} | {} | {:.1} | {:.1} | {done} of {} | {:.1} | {:.1} | {:.1} | {:.2} | {:.1}, {:.1} | {} |",
        outcomes(&attack.outcomes),
        mib(attack.bytes_sent),
        mib(attack.bytes_answered),
        attacked.jobs,
        p99(quiet),
        p99(attacked),
        p99(control),
        measured.times(),
        taken.as_secs_f64(),
        burnt.as_secs_f64(),
        memory >> 20,
    )
}

fn outcomes(counted: &BTreeMap<String, u64>) -> String {
    let mut counted: Vec<_> = counted.iter().collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let rest: u64 = counted.iter().skip(SHOWN).map(|(_, count)| *count).sum();
    let mut text = String::new();
    for (number, (name, count)) in counted.iter().take(SHOWN).enumerate() {
        let comma = if number > 0 { ", " } else { "" };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{count} x {name}");
    }
    if rest > 0 { text + &format!(", {rest} others") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let outcomes = [("202", 5), ("429 rate_limited", 70), ("a", 1), ("b", 1)];
        let mut measured =
            Measured { name: "flood".to_owned(), largest_body: 1 << 20, ..Measured::default() };
        measured.attack.outcomes = outcomes.map(|(name, count)| (name.to_owned(), count)).into();
        Report { made: "Made today.".to_owned(), measured: vec![measured] }
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_header() {
        let text = report().to_string();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(rows.iter().all(|row| row.matches('|').count() == rows[0].matches('|').count()), "{text}");
        assert!(rows[2].contains("| 70 x 429 rate_limited, 5 x 202, 1 x a, 1 others |"), "{text}");
    }

    #[test]
    fn only_the_measured_part_of_a_page_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page.md");
        std::fs::write(&page, format!("before\n{START}\nold\n{END}\nafter\n")).unwrap();
        report().write_into(&page).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with(&format!("{END}\nafter\n")), "{text}");
        assert!(text.contains("Made today.") && !text.contains("old"), "{text}");
        std::fs::write(&page, "no marks").unwrap();
        assert!(report().write_into(&page).is_err());
    }
}
