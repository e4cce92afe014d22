//! Options about the reports.

use std::path::PathBuf;

use clap::Args;

/// Objectives and outputs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Report")]
pub(crate) struct ReportSettings {
    /// Objectives, such as 'submit_p99_ms<20,errors_ratio<0.001'; `--help` lists the names
    #[arg(long, value_name = "TERMS", default_value = "")]
    pub(crate) slo: String,
    /// Write all numbers as JSON to this file (`-`: to standard output, instead of the text)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with charts to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}
