//! The command line as typed. `plan.rs` decides what it means.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use humantime::parse_duration;

use crate::http::settings::ServerSettings;
use crate::jobs::settings::JobSettings;
use crate::load::settings::LoadSettings;
use crate::report::settings::ReportSettings;
use crate::slo::metric;

/// Open-loop load generator for the Tepal API.
///
/// Requests are sent on schedule, whether or not earlier ones were answered, and latency counts from the scheduled time: a
/// stalled server cannot hide its stall. Every accepted job is followed to its end. To detect an id that the server issues
/// twice, a hash of each id is kept for the whole run: 10 to 21 bytes a job.
///
/// Exit code: 0 all objectives hold, 1 an objective is broken or the run was interrupted, 2 wrong usage or no server.
#[derive(Debug, Parser)]
#[command(name = "tepal-loadtest", version, after_long_help = metric::reference())]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) server: ServerSettings,
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) jobs: JobSettings,
    #[command(flatten)]
    pub(crate) report: ReportSettings,
}

impl Options {
    /// Reads the command line and the environment. An empty variable counts as absent.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let mut matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// The options that all commands share may stand before and after the command's name.
fn command() -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    Options::command().mut_args(|arg| {
        let arg = arg.global(true);
        if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg }
    })
}

/// How the load changes over time.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A constant rate for a fixed time
    Constant(Steady),
    /// Several constant rates one after the other
    Steps {
        /// Submissions per second of each step
        #[arg(long, value_delimiter = ',', default_value = "100,200,400")]
        steps: Vec<f64>,
        /// How long each step lasts
        #[arg(long, default_value = "10s", value_parser = parse_duration)]
        step_duration: Duration,
    },
    /// A growing rate until an objective on requests breaks or under 95 % of the submissions are accepted: finds the knee
    Ramp {
        /// Submissions per second of the first step
        #[arg(long, default_value_t = 50.0)]
        from: f64,
        /// The rate of each step is that of the step before times this factor
        #[arg(long, default_value_t = 1.25)]
        growth: f64,
        /// Stop at this rate even if all objectives hold
        #[arg(long, default_value_t = 20_000.0)]
        max_rate: f64,
        /// How long each step lasts
        #[arg(long, default_value = "5s", value_parser = parse_duration)]
        step_duration: Duration,
    },
    /// A constant rate for a long time; memory grows by 10 to 21 bytes a job
    #[command(mut_arg("rate", |arg| arg.default_value("50")), mut_arg("duration", |arg| arg.default_value("1h")))]
    Soak(Steady),
    /// Submit and follow a number of jobs as fast as the server allows (closed loop)
    Run {
        /// Number of jobs
        #[arg(long, default_value_t = 1_000)]
        jobs: u64,
        /// Jobs in flight at once
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
    },
    /// A ready-made load with its objectives
    ///
    /// `specification` judges the targets of the specification, section 8, with 120 submissions per second: the p99
    /// of POST /predict, GET /job and GET /health below 20, 10 and 5 ms, the p99.9 of the first two below the
    /// tolerated 50 and 30 ms, more than 100 accepted submissions and at least 20 completed predictions per second,
    /// under one error in a thousand, and no job lost, changed, duplicated, mixed up or failed. A term of --slo replaces the
    /// preset's term on the same name.
    Preset {
        /// Name of the preset
        name: Preset,
        /// How long to send
        #[arg(long, default_value = "30s", value_parser = parse_duration)]
        duration: Duration,
    },
}

/// One constant rate.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Steady {
    /// Submissions per second
    #[arg(long, default_value = "100")]
    pub(crate) rate: f64,
    /// How long to send
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
}

/// The ready-made loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// The performance targets of the specification, section 8
    Specification,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Options {
        Options::read(format!("x {line}").split_whitespace().map(OsString::from)).unwrap()
    }

    fn steady(line: &str) -> (f64, Duration) {
        let (Command::Constant(steady) | Command::Soak(steady)) = read(line).command else {
            return (0.0, Duration::ZERO);
        };
        (steady.rate, steady.duration)
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn common_options_may_stand_before_or_after_the_command() {
        assert_eq!((read("--seed 7 constant").load.seed, read("constant --seed 7").load.seed), (7, 7));
    }

    #[test]
    fn a_constant_load_and_a_soak_differ_in_their_defaults() {
        assert_eq!(steady("constant"), (100.0, Duration::from_secs(30)));
        assert_eq!(steady("soak"), (50.0, Duration::from_secs(3_600)));
        assert_eq!(steady("soak --rate 2.5 --duration 1.5s"), (2.5, Duration::from_millis(1_500)));
    }

    #[test]
    fn lengths_of_time_need_a_unit() {
        for (text, ms) in [("250ms", 250), ("1.5s", 1_500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(steady(&format!("constant --duration {text}")).1, Duration::from_millis(ms));
        }
        for wrong in ["", "10", "s", "-1s", "1e400s"] {
            let args = ["x", "constant", "--duration", wrong].map(OsString::from);
            assert!(Options::read(args).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", read("constant --api-key very-secret")).contains("very-secret"));
    }

    #[test]
    fn the_long_help_documents_the_names_of_objectives() {
        let help = command().render_long_help().to_string();
        assert!(help.contains("errors_ratio") && help.contains("turnaround"), "{help}");
    }
}
