//! The settings of calls.

use std::time::Duration;

use clap::Args;
use tepal_shared::process::settings::Mistakes;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Protocols")]
pub(crate) struct CallArgs {
    /// How long a call of the Open Inference Protocol or of TensorFlow Serving's API waits for its job, seconds. Then it gets 504, and
    /// the job goes on. Clients give up after 60 seconds by default
    #[arg(long, env, default_value = "55", value_name = "SECONDS")]
    v2_wait_seconds: String,
}

impl CallArgs {
    /// The longest wait.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Duration {
        let seconds = mistakes.number("V2_WAIT_SECONDS", &self.v2_wait_seconds, 1..=86_400);
        Duration::from_secs(seconds)
    }
}
