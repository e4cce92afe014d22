//! The setting that says how many workers there should be.

use clap::Args;
use tepal_shared::process::settings::Mistakes;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service")]
pub(super) struct WorkersArgs {
    /// Live workers below which /health reports that some are missing; 0 = none is needed, because an autoscaler starts them
    #[arg(long, env, default_value = "1", value_name = "N")]
    workers_expected: String,
}

impl WorkersArgs {
    /// Number of live workers that are expected; 0 = having none is healthy.
    pub(super) fn check(&self, mistakes: &mut Mistakes) -> usize {
        mistakes.number("WORKERS_EXPECTED", &self.workers_expected, 0..=1_000_000)
    }
}
