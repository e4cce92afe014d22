//! Options about following jobs.

use std::time::Duration;

use clap::Args;
use humantime::parse_duration;

use super::follow::Mode;
use crate::mistakes::Mistakes;

/// How accepted jobs are followed and checked.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Jobs")]
pub(crate) struct JobSettings {
    /// How to follow jobs
    #[arg(long, value_enum, default_value_t = Mode::Wait)]
    pub(crate) follow: Mode,
    /// Jobs followed at once, oldest first, each over its own connection; `run` follows as many as its concurrency
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) followers: usize,
    /// How long a follower stays with one job; the N of `Prefer: wait=N`
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub(crate) wait: Duration,
    /// A job that has not ended this long after the last submission counts as lost [default: 2m; in the preset 4m]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) drain_timeout: Option<Duration>,
    /// Ended jobs to read again at the end; each must have the same bytes as before
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) verify_sample: usize,
}

impl JobSettings {
    /// Adds what is wrong.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) {
        mistakes.number("--followers", self.followers);
        mistakes.length("--wait", self.wait);
        mistakes.check(self.wait >= Duration::from_secs(1), "--wait must be at least 1s");
    }
}
