//! The findings of a doctor, and its report.

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};

/// What the program does instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Command {
    /// Check Redis and the model, report what is wrong and how to fix it, and exit; with 1 if anything is wrong
    Doctor,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// Nothing is wrong.
    Ok,
    /// The check was not possible.
    Unknown,
    /// The operator must fix it.
    Wrong,
}

/// The finding of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The outcome.
    pub result: CheckResult,
    /// What was checked.
    pub subject: String,
    /// What was found, and how to fix it.
    pub detail: String,
}

impl Finding {
    /// Nothing is wrong.
    pub fn ok(subject: &str, detail: impl Into<String>) -> Self {
        Self { result: CheckResult::Ok, subject: subject.to_owned(), detail: detail.into() }
    }

    /// The check was not possible; `detail` gives the reason.
    pub fn unknown(subject: &str, detail: impl Into<String>) -> Self {
        Self { result: CheckResult::Unknown, subject: subject.to_owned(), detail: detail.into() }
    }

    /// Something is wrong: `detail`. `fix` says what to do.
    pub fn wrong(subject: &str, detail: impl fmt::Display, fix: impl fmt::Display) -> Self {
        let detail = format!("{detail}. To fix it: {fix}");
        Self { result: CheckResult::Wrong, subject: subject.to_owned(), detail }
    }
}

/// All findings. The text has one line for each.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether the operator must fix nothing.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.result != CheckResult::Wrong)
    }

    /// Prints the report. Returns the exit code: 1 if something is wrong.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&self) -> io::Result<ExitCode> {
        let printed = io::stdout().write_all(self.to_string().as_bytes());
        printed.map_err(|error| io::Error::new(error.kind(), format!("cannot print the report: {error}")))?;
        Ok(if self.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn count(&self, result: CheckResult) -> usize {
        self.findings.iter().filter(|finding| finding.result == result).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { result, subject, detail } in &self.findings {
            let word = match result {
                CheckResult::Ok => "ok",
                CheckResult::Unknown => "?",
                CheckResult::Wrong => "WRONG",
            };
            writeln!(f, "{word:5}  {subject}: {detail}")?;
        }
        let (wrong, unknown) = (self.count(CheckResult::Wrong), self.count(CheckResult::Unknown));
        let checks = self.findings.len();
        let noun = if checks == 1 { "check" } else { "checks" };
        writeln!(f, "{checks} {noun}, {wrong} wrong, {unknown} not possible")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_finding_and_is_unhealthy_only_if_something_is_wrong() {
        let mut report = Report { findings: vec![Finding::ok("a", "b"), Finding::unknown("c", "d")] };
        assert!(report.is_healthy());
        report.findings.push(Finding::wrong("e", "f", "g"));
        assert!(!report.is_healthy());
        let expected =
            "ok     a: b\n?      c: d\nWRONG  e: f. To fix it: g\n3 checks, 1 wrong, 1 not possible\n";
        assert_eq!(report.to_string(), expected);
    }
}
