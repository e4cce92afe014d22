//! `tepal-loadtest`: an open-loop load generator for the Tepal HTTP API.
//!
//! | module | owns |
//! | --- | --- |
//! | `session` | one run: check the server, send, drain, read a sample again, report |
//! | `plan` | the command line, its defaults, and the list of mistakes in it |
//! | `report` | text, JSON and HTML page |
//! | `load` | the schedule of requests, and sending them without waiting for answers |
//! | `slo` | objectives and verdicts |
//! | `jobs` | the accepted jobs: following each to its end, reading a sample again |
//! | `measure` | counters, latency histograms, and the summary of a run |
//! | `http` | the HTTP client and the API calls |
//!
//! A module imports only modules below it in this list, and `stop` and `mistakes`. Each part declares its own options;
//! `plan` gathers them for `--help`.
//!
//! The crate knows the HTTP API and nothing else of Tepal. It never slows down when the server does: that would hide the
//! stalls that it must measure.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is a failed test"))]

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};

use plan::Plan;
use plan::options::Options;
use report::output::Outputs;

mod http;
mod jobs;
mod load;
mod measure;
mod mistakes;
mod plan;
mod report;
mod session;
mod slo;
mod stop;

/// All objectives hold.
const PASSED: u8 = 0;
/// At least one objective is broken, or the run was interrupted.
const BROKEN: u8 = 1;
/// Wrong usage, no server, or a report that could not be written.
const UNUSABLE: u8 = 2;

/// Runs the command line `args`, whose first item is the program's name, and returns the exit code: 0 if all objectives
/// hold; 1 if one is broken or the run was interrupted; 2 for wrong usage, no server, or a report that cannot be written.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let options = match Options::read(args) {
        Ok(options) => options,
        Err(error) => return usage(&error),
    };
    match execute(options) {
        Ok(true) => PASSED,
        Ok(false) => BROKEN,
        Err(error) => {
            print_error(&error);
            UNUSABLE
        }
    }
}

/// Clap reports `--help` and `--version` as errors.
fn usage(error: &clap::Error) -> u8 {
    let _ = error.print();
    if error.use_stderr() { UNUSABLE } else { PASSED }
}

fn execute(options: Options) -> Result<bool, Box<dyn std::error::Error>> {
    let plan = Plan::new(options)?;
    // Before the run: an hour of load must not end in "permission denied".
    let outputs = Outputs::open(&plan.report)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(session::execute(plan))?;
    outputs.write(&report)?;
    Ok(report.passed)
}

fn print_error(error: &dyn Display) {
    let _ = writeln!(io::stderr(), "{error}");
}
