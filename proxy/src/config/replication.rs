//! The settings of replication.

use clap::Args;
use tepal_shared::{process::settings::Mistakes, queue::link::ReplicationSettings};

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Redis")]
pub(super) struct ReplicationArgs {
    /// Replicas of Redis that must hold a job before it is acknowledged; 0 = the primary is enough
    #[arg(long, env, default_value = "0", value_name = "N")]
    replicas_required: String,
    /// Longest wait for those replicas, ms
    #[arg(long, env, default_value = "1000", value_name = "MS")]
    replication_timeout_ms: String,
}

impl ReplicationArgs {
    /// The policy; `None` when the primary is enough.
    pub(super) fn check(&self, mistakes: &mut Mistakes) -> Option<ReplicationSettings> {
        let replicas = mistakes.number("REPLICAS_REQUIRED", &self.replicas_required, 0..=100);
        // WAIT takes 0 for "for ever".
        let timeout = mistakes.millis("REPLICATION_TIMEOUT_MS", &self.replication_timeout_ms, 1..=60_000);
        (replicas > 0).then_some(ReplicationSettings { replicas, timeout })
    }
}
