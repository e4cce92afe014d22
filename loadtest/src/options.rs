//! The command line, exactly as typed. What it means together is decided in `plan.rs`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use humantime::parse_duration;
use hyper::header::HeaderValue;

use crate::arrivals::Spacing;
use crate::follow::Mode;
use crate::slo::metric;

/// Open-loop load generator for the Tepal API.
///
/// Requests are sent when the schedule says so, whether or not earlier ones were answered, and latency counts from
/// the intended send time: a stalled server cannot hide its stall. Every accepted job is followed to its end. Of its id a
/// hash is kept for the whole run, to notice an id that is given twice: 10 to 21 bytes a job.
///
/// Exit code: 0 all objectives hold, 1 an objective is broken or the run was interrupted, 2 wrong usage or no server.
#[derive(Debug, Parser)]
#[command(name = "tepal-loadtest", version, after_long_help = metric::reference())]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Options {
    /// Reads what was typed, and the environment. A variable that is empty counts as one that is not given.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        let mut command = Self::command().mut_args(|arg| {
            if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg }
        });
        let mut matches = command.try_get_matches_from_mut(args)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// How load is laid over time.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A constant rate for a fixed time
    Constant {
        /// Submissions per second
        #[arg(long, default_value_t = 100.0)]
        rate: f64,
        /// How long to send
        #[arg(long, default_value = "30s", value_parser = parse_duration)]
        duration: Duration,
    },
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
        /// Each step's rate is the last one's times this
        #[arg(long, default_value_t = 1.25)]
        growth: f64,
        /// Stop here even if everything still holds
        #[arg(long, default_value_t = 20_000.0)]
        max_rate: f64,
        /// How long each step lasts
        #[arg(long, default_value = "5s", value_parser = parse_duration)]
        step_duration: Duration,
    },
    /// A constant rate for a long time, in memory that grows by 10 to 21 bytes a job
    Soak {
        /// Submissions per second
        #[arg(long, default_value_t = 50.0)]
        rate: f64,
        /// How long to send
        #[arg(long, default_value = "1h", value_parser = parse_duration)]
        duration: Duration,
    },
    /// Submit and follow a number of jobs as fast as the server lets (closed loop)
    Run {
        /// How many jobs
        #[arg(long, default_value_t = 1_000)]
        jobs: u64,
        /// How many jobs are under way at once
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
        /// Which one
        name: Preset,
        /// How long to send
        #[arg(long, default_value = "30s", value_parser = parse_duration)]
        duration: Duration,
    },
}

/// The ready-made loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// The performance targets of the specification, section 8
    Specification,
}

/// What every command takes, before or after its name.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where the proxy is
    #[arg(
        long,
        global = true,
        env = "TEPAL_URL",
        default_value = "http://127.0.0.1:8000",
        help_heading = "Server"
    )]
    pub(crate) url: String,
    /// Sent as X-API-Key with every request
    #[arg(
        long = "api-key",
        alias = "key",
        global = true,
        env = "TEPAL_API_KEY",
        hide_env_values = true,
        value_parser = parse_key,
        help_heading = "Server"
    )]
    pub(crate) key: Option<HeaderValue>,
    /// Longest time until a whole answer; a long poll gets it on top of its wait
    #[arg(long, global = true, default_value = "10s", value_parser = parse_duration, help_heading = "Server")]
    pub(crate) timeout: Duration,

    /// File whose bytes are the body of every submission
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "rows", help_heading = "Load")]
    pub(crate) body: Option<PathBuf>,
    /// Rows of the built-in sample in every submission
    #[arg(long, global = true, default_value_t = 1, help_heading = "Load")]
    pub(crate) rows: usize,
    /// How the gaps between arrivals are chosen
    #[arg(long, global = true, value_enum, default_value_t = Spacing::Poisson, help_heading = "Load")]
    pub(crate) arrivals: Spacing,
    /// Plain reads of a recent job for each submission (default 1); no effect on `run`
    #[arg(long, global = true, value_name = "RATIO", help_heading = "Load")]
    pub(crate) get_ratio: Option<f64>,
    /// Probes of /health per second (default 4)
    #[arg(long, global = true, value_name = "RATE", help_heading = "Load")]
    pub(crate) health_rate: Option<f64>,
    /// Decides arrivals and samples, so that a run can be repeated
    #[arg(long, global = true, default_value_t = 1, help_heading = "Load")]
    pub(crate) seed: u64,
    /// Requests waiting for an answer; a request beyond is dropped and counts as an error
    #[arg(long, global = true, default_value_t = 10_000, value_name = "N", help_heading = "Load")]
    pub(crate) max_outstanding: u32,
    /// Connections for them; a request waits when all are busy, and the wait counts
    #[arg(long, global = true, default_value_t = 256, value_name = "N", help_heading = "Load")]
    pub(crate) connections: usize,

    /// How jobs are followed
    #[arg(long, global = true, value_enum, default_value_t = Mode::Wait, help_heading = "Jobs")]
    pub(crate) follow: Mode,
    /// Jobs followed at once, oldest first, each over a connection of its own; `run` has as many as its concurrency
    #[arg(long, global = true, default_value_t = 128, value_name = "N", help_heading = "Jobs")]
    pub(crate) followers: usize,
    /// How long a follower stays with one job: the N of `Prefer: wait=N`
    #[arg(long, global = true, default_value = "5s", value_parser = parse_duration, help_heading = "Jobs")]
    pub(crate) wait: Duration,
    /// Time after the last submission until a job that has not ended counts as lost (default 2m; in the preset 4m)
    #[arg(long, global = true, value_parser = parse_duration, value_name = "TIME", help_heading = "Jobs")]
    pub(crate) drain_timeout: Option<Duration>,
    /// Ended jobs that are read again at the end and must not differ in one byte
    #[arg(long, global = true, default_value_t = 1_000, value_name = "N", help_heading = "Jobs")]
    pub(crate) verify_sample: usize,

    /// Objectives, such as 'submit_p99_ms<20,errors_ratio<0.001'; `--help` lists the names
    #[arg(long, global = true, value_name = "TERMS", default_value = "", help_heading = "Report")]
    pub(crate) slo: String,
    /// Write all numbers here (`-`: standard output instead of the text)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Report")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots here
    #[arg(long, global = true, value_name = "FILE", help_heading = "Report")]
    pub(crate) html: Option<PathBuf>,
    /// No line a second on standard error
    #[arg(long, short, global = true, help_heading = "Report")]
    pub(crate) quiet: bool,
}

/// Sensitive: it prints as such, also in debug output.
fn parse_key(text: &str) -> Result<HeaderValue, String> {
    let mut key =
        HeaderValue::from_str(text).map_err(|_| "a key has only visible ASCII characters".to_owned())?;
    key.set_sensitive(true);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn common_options_may_stand_before_or_after_the_command() {
        let before = Options::try_parse_from(["x", "--seed", "7", "constant"]).unwrap();
        let after = Options::try_parse_from(["x", "constant", "--seed", "7"]).unwrap();
        assert_eq!((before.common.seed, after.common.seed), (7, 7));
    }

    #[test]
    fn a_key_does_not_show_in_debug_output() {
        let options = Options::try_parse_from(["x", "constant", "--api-key", "very-secret"]).unwrap();
        assert!(!format!("{options:?}").contains("very-secret"));
    }

    #[test]
    fn the_long_help_documents_the_names_of_objectives() {
        let help = Options::command().render_long_help().to_string();
        assert!(help.contains("errors_ratio") && help.contains("turnaround"), "{help}");
    }
}
