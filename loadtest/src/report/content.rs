//! The content of a report. Text, JSON and page print this one structure.

use std::time::Duration;

use serde::Serialize;

use crate::http::failure::FailureKind;
use crate::jobs::verify::Change;
use crate::load::arrivals::Spacing;
use crate::measure::recorder::Recorder;
use crate::measure::summary::{PhaseSummary, Summary};
use crate::measure::timeline::Window;
use crate::measure::totals::Operation;
use crate::slo::{Slo, Verdict};

/// Everything about a run. The JSON report has exactly these fields.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: &'static str,
    pub(crate) title: String,
    pub(crate) url: String,
    pub(crate) started_at: String,
    pub(crate) seed: u64,
    pub(crate) arrivals: Spacing,
    pub(crate) interrupted: bool,
    /// The verdict on the whole run.
    pub(crate) outcome: Outcome,
    /// Whether it is [`Outcome::Passed`].
    pub(crate) passed: bool,
    pub(crate) slo: Vec<Verdict>,
    pub(crate) summary: Summary,
    /// The steps of a run that has several. In a ramp, the last ones failed.
    pub(crate) phases: Vec<PhaseSummary>,
    pub(crate) failures: Vec<FailureCount>,
    /// Sentences to read before trusting the numbers.
    pub(crate) notes: Vec<String>,
    pub(crate) lost_examples: Vec<String>,
    pub(crate) changed_examples: Vec<Change>,
    pub(crate) timeline: Vec<Window>,
    /// The charts draw the limits of these.
    #[serde(skip)]
    pub(super) objectives: Slo,
}

/// The verdict on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// All objectives hold.
    Passed,
    /// All objectives held until the run was interrupted. The rest is unknown.
    Interrupted,
    /// At least one objective is broken. The run may also have been interrupted.
    Broken,
}

/// The number of failures of one kind of request.
#[derive(Debug, Serialize)]
pub(crate) struct FailureCount {
    pub(crate) operation: &'static str,
    pub(crate) kind: String,
    pub(crate) count: u64,
    #[serde(skip)]
    pub(crate) failure: FailureKind,
}

/// The plan of a run, as far as a report shows it.
#[derive(Debug)]
pub(crate) struct Run {
    /// The load in a few words.
    pub(crate) title: String,
    pub(crate) url: String,
    pub(crate) seed: u64,
    pub(crate) arrivals: Spacing,
    pub(crate) is_ramp: bool,
    pub(crate) objectives: Slo,
}

/// Results of a run that are not in the counters.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) started_at: String,
    pub(crate) interrupted: bool,
    /// A note of the check before the run.
    pub(crate) note: Option<String>,
    /// The best step of a ramp.
    pub(crate) knee: Option<PhaseSummary>,
    pub(crate) lost: Vec<String>,
    pub(crate) changes: Vec<Change>,
}

impl Report {
    /// Judges a run. A ramp continues until an objective breaks, so its requests are judged at its knee.
    pub(super) fn new(run: Run, recorder: &Recorder, findings: Findings) -> Self {
        let mut summary = recorder.summary();
        summary.knee_rps = findings.knee.as_ref().map(|knee| knee.rate);
        let slo = match (&findings.knee, run.is_ramp) {
            (Some(knee), _) => run.objectives.judge(&summary.seen_in(knee)),
            (None, true) => run.objectives.judge(&summary.seen_in(&PhaseSummary::default())),
            (None, false) => run.objectives.judge(&summary),
        };
        let outcome = Outcome::of(&slo, findings.interrupted);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            title: run.title,
            url: run.url,
            started_at: findings.started_at,
            seed: run.seed,
            arrivals: run.arrivals,
            interrupted: findings.interrupted,
            outcome,
            passed: outcome == Outcome::Passed,
            slo,
            summary,
            phases: if run.is_ramp || recorder.phases().len() > 1 { recorder.phases() } else { Vec::new() },
            failures: recorder.failures().into_iter().map(FailureCount::new).collect(),
            notes: findings.note.into_iter().collect(),
            lost_examples: findings.lost,
            changed_examples: findings.changes,
            timeline: recorder.timeline(),
            objectives: run.objectives,
        }
    }

    /// URL, time and settings of the run, in one line.
    pub(super) fn conditions(&self) -> String {
        let Self { url, started_at, arrivals, seed, .. } = self;
        let tenths = (self.summary.rates.total_seconds * 10.0).round() as u64;
        let took = humantime::format_duration(Duration::from_millis(tenths * 100));
        let arrivals = format!("{arrivals:?}").to_lowercase();
        format!("{url} at {started_at}, took {took}, {arrivals} arrivals, seed {seed}")
    }
}

impl Outcome {
    /// The outcome in words.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Passed => "all hold",
            Self::Interrupted => "interrupted, not judged to the end",
            Self::Broken => "broken",
        }
    }

    fn of(slo: &[Verdict], interrupted: bool) -> Self {
        match (slo.iter().all(|verdict| verdict.passed), interrupted) {
            (true, false) => Self::Passed,
            (true, true) => Self::Interrupted,
            (false, _) => Self::Broken,
        }
    }
}

impl FailureCount {
    fn new((operation, failure, count): (Operation, FailureKind, u64)) -> Self {
        Self { operation: operation.name(), kind: failure.to_string(), count, failure }
    }
}
