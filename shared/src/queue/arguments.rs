//! The settings of the queue.

use std::time::Duration;

use clap::Args;

use crate::{
    job::MOST_PARTITIONS,
    process::settings::Mistakes,
    queue::{keys::Keys, policy::Policy},
};

/// A year, s.
const LONGEST_TTL: u64 = 31_536_000;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
pub(crate) struct QueueArgs {
    /// Name of the queue; services with the same name share its jobs
    #[arg(
        long,
        env = "QUEUE_NAME",
        default_value = "predict_queue",
        value_name = "NAME",
        help_heading = "Queue"
    )]
    queue_name: String,
    /// Number of partitions of the queue, 1 to 256; equal in all services; may grow
    #[arg(long, env = "PARTITIONS", default_value = "1", value_name = "N", help_heading = "Queue")]
    partitions: String,
    /// How long a worker owns a job without renewing its lease, ms; equal in all services
    #[arg(long, env = "LEASE_MS", default_value = "10000", value_name = "MS", help_heading = "Queue")]
    lease_ms: String,
    /// How long a finished job is kept, s
    #[arg(
        long,
        env = "RESULT_TTL_SECONDS",
        default_value = "86400",
        value_name = "S",
        help_heading = "Queue"
    )]
    result_ttl_seconds: String,
    /// How long the input of a failed or cancelled job is kept for POST /job/{id}/retry, s; at most RESULT_TTL_SECONDS. Default:
    /// half a day, or RESULT_TTL_SECONDS if that is less
    #[arg(long, env = "FAILED_INPUT_TTL_SECONDS", value_name = "S", help_heading = "Queue")]
    failed_input_ttl_seconds: Option<String>,
    /// Number of unfinished jobs of a partition at which new ones are refused; 0 = no limit
    #[arg(
        long,
        env = "MAX_QUEUE_DEPTH",
        default_value = "1000000",
        value_name = "N",
        help_heading = "Queue"
    )]
    max_queue_depth: String,
    /// A job fails when its worker was lost this many times
    #[arg(long, env = "MAX_LOST", default_value = "3", value_name = "N", help_heading = "Queue")]
    max_lost: String,
}

impl QueueArgs {
    /// `is_cluster`: Redis is a cluster, in which the keys have other names.
    pub(crate) fn check(&self, is_cluster: bool, mistakes: &mut Mistakes) -> (Keys, Policy) {
        if self.queue_name.is_empty() || self.queue_name.contains(['{', '}']) {
            mistakes.add("QUEUE_NAME", format!("`{}` must be a name without braces", self.queue_name));
        }
        let result_ttl = mistakes.seconds("RESULT_TTL_SECONDS", &self.result_ttl_seconds, 1..=LONGEST_TTL);
        let policy = Policy {
            lease: mistakes.millis("LEASE_MS", &self.lease_ms, 300..=3_600_000),
            result_ttl,
            failed_input_ttl: self.failed_input_ttl(result_ttl, mistakes),
            max_lost: mistakes.number("MAX_LOST", &self.max_lost, 2..=1000),
            max_queue_depth: mistakes.number("MAX_QUEUE_DEPTH", &self.max_queue_depth, 0..=u64::MAX),
            partitions: mistakes.number("PARTITIONS", &self.partitions, 1..=MOST_PARTITIONS),
            ..Policy::default()
        };
        let keys = if is_cluster { Keys::in_cluster } else { Keys::new };
        (keys(&self.queue_name), policy)
    }

    fn failed_input_ttl(&self, result_ttl: Duration, mistakes: &mut Mistakes) -> Duration {
        const NAME: &str = "FAILED_INPUT_TTL_SECONDS";
        let Some(text) = &self.failed_input_ttl_seconds else {
            return Policy::default().failed_input_ttl.min(result_ttl);
        };
        let ttl = mistakes.seconds(NAME, text, 1..=LONGEST_TTL);
        if ttl > result_ttl {
            let most = result_ttl.as_secs();
            mistakes.add(NAME, format!("`{text}` is more than RESULT_TTL_SECONDS, which is {most}"));
        }
        ttl
    }
}
