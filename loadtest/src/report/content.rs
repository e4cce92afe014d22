//! What a run found: the structure that text, JSON and page print.

use std::time::Duration;

use serde::Serialize;

use crate::arrivals::Spacing;
use crate::failure::FailureKind;
use crate::plan::Plan;
use crate::recorder::{Operation, Recorder, Window};
use crate::slo::{Slo, Verdict};
use crate::summary::{PhaseSummary, Summary};
use crate::verify::Change;

/// Everything about a run. The JSON report is exactly this.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) version: &'static str,
    pub(crate) title: String,
    pub(crate) url: String,
    pub(crate) started_at: String,
    pub(crate) seed: u64,
    pub(crate) arrivals: Spacing,
    pub(crate) interrupted: bool,
    /// How the run is judged as a whole.
    pub(crate) outcome: Outcome,
    /// Is that [`Outcome::Passed`]?
    pub(crate) passed: bool,
    pub(crate) slo: Vec<Verdict>,
    pub(crate) summary: Summary,
    /// The steps of a run that has several; of a ramp, the last ones failed.
    pub(crate) phases: Vec<PhaseSummary>,
    pub(crate) failures: Vec<FailureCount>,
    /// What a reader should know before trusting the numbers.
    pub(crate) notes: Vec<String>,
    pub(crate) lost_examples: Vec<String>,
    pub(crate) changed_examples: Vec<Change>,
    pub(crate) timeline: Vec<Window>,
    /// The objectives, whose limits the charts draw.
    #[serde(skip)]
    pub(crate) objectives: Slo,
}

/// A run as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// All objectives hold.
    Passed,
    /// They held until the run was interrupted; what would have come is not known.
    Interrupted,
    /// At least one objective is broken, whether or not the run was interrupted.
    Broken,
}

/// How often one kind of request failed in one way.
#[derive(Debug, Serialize)]
pub(crate) struct FailureCount {
    pub(crate) operation: &'static str,
    pub(crate) kind: String,
    pub(crate) count: u64,
    #[serde(skip)]
    pub(crate) failure: FailureKind,
}

/// What the run knows beside the plan and the counters.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) started_at: String,
    pub(crate) interrupted: bool,
    /// What the check before the run noticed.
    pub(crate) note: Option<String>,
    /// The best step of a ramp.
    pub(crate) knee: Option<PhaseSummary>,
    pub(crate) lost: Vec<String>,
    pub(crate) changes: Vec<Change>,
}

impl Report {
    /// Judges the numbers of a run. A ramp goes on until something breaks, so its requests are judged at its knee.
    pub(crate) fn new(plan: &Plan, recorder: &Recorder, findings: Findings) -> Self {
        let mut summary = recorder.summary();
        summary.knee_rps = findings.knee.as_ref().map(|knee| knee.rate);
        let is_ramp = plan.profile.is_ramp();
        let slo = match (&findings.knee, is_ramp) {
            (Some(knee), _) => plan.slo.judge(&summary.seen_in(knee)),
            (None, true) => plan.slo.judge(&summary.seen_in(&PhaseSummary::default())),
            (None, false) => plan.slo.judge(&summary),
        };
        let outcome = Outcome::of(&slo, findings.interrupted);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            title: plan.title.clone(),
            url: plan.target.to_string(),
            started_at: findings.started_at,
            seed: plan.mix.seed,
            arrivals: plan.mix.spacing,
            interrupted: findings.interrupted,
            outcome,
            passed: outcome == Outcome::Passed,
            slo,
            summary,
            phases: if is_ramp || recorder.phases().len() > 1 { recorder.phases() } else { Vec::new() },
            failures: recorder.failures().into_iter().map(FailureCount::new).collect(),
            notes: findings.note.into_iter().collect(),
            lost_examples: findings.lost,
            changed_examples: findings.changes,
            timeline: recorder.timeline(),
            objectives: plan.slo.clone(),
        }
    }
}

impl Report {
    /// Where, when and how the run was, in one line.
    pub(super) fn conditions(&self) -> String {
        let Self { url, started_at, arrivals, seed, .. } = self;
        let tenths = (self.summary.rates.total_seconds * 10.0).round() as u64;
        let took = humantime::format_duration(Duration::from_millis(tenths * 100));
        let arrivals = format!("{arrivals:?}").to_lowercase();
        format!("{url} at {started_at}, took {took}, {arrivals} arrivals, seed {seed}")
    }
}

impl Outcome {
    /// The same in words.
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
