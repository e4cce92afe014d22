//! `tepal-loadtest`: an open-loop load generator for the Tepal HTTP API.
//!
//! From the command line to the report:
//! - `options` is what was typed, `plan` what it means, `preset` the targets of the specification;
//! - `session` is one run: `preflight`, then `profile` lays load over time, then drain, `verify` and `report`;
//! - `arrivals` and `pacer` say when to send, `traffic` sends without waiting, `follow` takes each of the `jobs` to its end,
//!   and `seen` knows every id that was given;
//! - `client` and `api` speak HTTP; `busy` watches the generator itself; `recorder` counts, `summary` holds the numbers, `slo` judges them.
//!
//! It knows the API and nothing else of Tepal. It never slows down because the server does: that would hide exactly
//! what it is there to show.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is a failed test"))]

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};

use options::Options;
use plan::Plan;

mod api;
mod arrivals;
mod busy;
mod client;
mod failure;
mod follow;
mod jobs;
mod latency;
mod options;
mod output;
mod pacer;
mod plan;
mod preflight;
mod preset;
mod profile;
mod progress;
mod recorder;
mod report;
mod seen;
mod session;
mod slo;
mod stop;
mod summary;
mod target;
mod traffic;
mod verify;

/// All objectives hold.
const PASSED: u8 = 0;
/// At least one objective is broken, or the run was interrupted before they could be judged to the end.
const BROKEN: u8 = 1;
/// Wrong usage, no server, or a report that could not be written.
const UNUSABLE: u8 = 2;

/// Does what the command line `args` (the program's name first) asks for and returns the exit code: 0 if all
/// objectives hold, 1 if one is broken or the run was interrupted, 2 for wrong usage, no server, or a report that cannot
/// be written.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let options = match Options::read(args) {
        Ok(options) => options,
        Err(error) => return usage(&error),
    };
    match carry_out(options) {
        Ok(true) => PASSED,
        Ok(false) => BROKEN,
        Err(error) => {
            complain(&error);
            UNUSABLE
        }
    }
}

/// `--help` and `--version` are errors to clap, but not to the user.
fn usage(error: &clap::Error) -> u8 {
    let _ = error.print();
    if error.use_stderr() { UNUSABLE } else { PASSED }
}

fn carry_out(options: Options) -> Result<bool, Box<dyn std::error::Error>> {
    let plan = Plan::new(options)?;
    // Opened before the run: an hour of load must not end in "permission denied".
    let outputs = output::Outputs::open(&plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(session::execute(plan))?;
    outputs.write(&report)?;
    Ok(report.passed)
}

fn complain(error: &dyn Display) {
    let _ = writeln!(io::stderr(), "{error}");
}
