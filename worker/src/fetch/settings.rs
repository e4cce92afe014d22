//! Settings of the consumer.

use std::time::Duration;

use clap::Args;
use tepal_shared::process::settings::Mistakes;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
pub struct FetchArgs {
    /// A process runs up to NUM_WORKERS x MAX_IN_FLIGHT batches at a time
    #[arg(long, env = "NUM_WORKERS", default_value = "2", value_name = "N", help_heading = "Work")]
    num_workers: String,
    /// Most batches at a time for each of NUM_WORKERS
    #[arg(long, env = "MAX_IN_FLIGHT", default_value = "4", value_name = "N", help_heading = "Work")]
    max_in_flight: String,
    /// How long an incomplete batch waits for more jobs, ms, at most a third of the lease; 0 = it does not wait
    #[arg(long, env = "BATCH_MAX_WAIT_MS", default_value = "0", value_name = "MS", help_heading = "Work")]
    batch_max_wait_ms: String,
    /// Interval of the search for due retries and for jobs of lost workers, ms
    #[arg(
        long,
        env = "RECLAIM_INTERVAL_MS",
        default_value = "250",
        value_name = "MS",
        help_heading = "Work"
    )]
    reclaim_interval_ms: String,
    /// How long running jobs may go on after SIGTERM before they are released, s
    #[arg(
        long,
        env = "DRAIN_TIMEOUT_SECONDS",
        default_value = "25",
        value_name = "S",
        help_heading = "Service"
    )]
    drain_timeout_seconds: String,
}

/// [`FetchArgs`] after checking.
#[derive(Clone, Copy, Debug)]
pub struct FetchSettings {
    /// Most batches that the process runs at a time.
    pub slots: usize,
    /// How long a batch that is not full waits for more jobs.
    pub batch_max_wait: Duration,
    /// How often the worker searches for entries that are due again.
    pub reclaim_interval: Duration,
    /// How long running jobs may go on after the shutdown began.
    pub drain_timeout: Duration,
}

impl FetchArgs {
    /// `lease` is the length of a lease, if that setting is right.
    pub(crate) fn check(&self, lease: Option<Duration>, mistakes: &mut Mistakes) -> FetchSettings {
        FetchSettings {
            slots: self.slots(mistakes),
            batch_max_wait: self.batch_max_wait(lease, mistakes),
            reclaim_interval: mistakes.millis("RECLAIM_INTERVAL_MS", &self.reclaim_interval_ms, 10..=2_000),
            drain_timeout: mistakes.seconds("DRAIN_TIMEOUT_SECONDS", &self.drain_timeout_seconds, 0..=3600),
        }
    }

    fn slots(&self, mistakes: &mut Mistakes) -> usize {
        let workers: usize = mistakes.number("NUM_WORKERS", &self.num_workers, 1..=256);
        workers * mistakes.number::<usize>("MAX_IN_FLIGHT", &self.max_in_flight, 1..=1024)
    }

    fn batch_max_wait(&self, lease: Option<Duration>, mistakes: &mut Mistakes) -> Duration {
        let wait = mistakes.millis("BATCH_MAX_WAIT_MS", &self.batch_max_wait_ms, 0..=60_000);
        // Leases of jobs that wait for a full batch are not renewed yet.
        if let Some(lease) = lease.filter(|lease| wait > *lease / 3) {
            let lease_ms = lease.as_millis();
            mistakes.add(
                "BATCH_MAX_WAIT_MS",
                format!("must be at most a third of LEASE_MS, which is {lease_ms}"),
            );
        }
        wait
    }
}
