//! The report of a run: as text, JSON and an HTML page.

use crate::measure::recorder::Recorder;
use content::{Findings, Report, Run};

mod chart;
mod charts;
pub(crate) mod content;
mod html;
mod notes;
pub(crate) mod output;
pub(crate) mod settings;
mod tables;
mod text;

/// Judges a run and adds the notes.
pub(crate) fn judge(run: Run, recorder: &Recorder, findings: Findings) -> Report {
    let is_ramp = run.is_ramp;
    let mut report = Report::new(run, recorder, findings);
    let notes = notes::notes(&report, is_ramp);
    report.notes.extend(notes);
    report
}
