//! What a run found, as text, JSON and an HTML page.

use crate::plan::Plan;
use crate::recorder::Recorder;
use content::{Findings, Report};

mod chart;
mod charts;
pub(crate) mod content;
pub(crate) mod html;
mod notes;
mod tables;
pub(crate) mod text;

/// Judges the numbers of a run.
pub(crate) fn report(plan: &Plan, recorder: &Recorder, findings: Findings) -> Report {
    let mut report = Report::new(plan, recorder, findings);
    let notes = notes::notes(&report, plan.profile.is_ramp());
    report.notes.extend(notes);
    report
}
