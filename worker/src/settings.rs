//! The worker's settings.

mod model_server;

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use tepal_shared::{
    process::{
        doctor::Command,
        settings::{ConfigError, Mistakes},
    },
    settings::{Common, CommonArgs},
};

use self::model_server::ModelServerArgs;
pub use self::model_server::{ModelServer, ModelServerTls};
use crate::backend::Kind;

/// Half of the largest value that Redis accepts by default (`proto-max-bulk-len`).
const MOST_RESULT_BYTES: usize = 256 << 20;

/// Claims jobs from the queue, calls the model with batches of them, and settles each outcome.
///
/// Set each setting with its flag or with the environment variable beside it.
#[derive(Parser, Clone, Debug)]
#[command(name = "tepal-worker", version)]
pub struct Args {
    /// What to do; without it, the worker runs
    #[arg(value_enum, value_name = "COMMAND")]
    command: Option<Command>,
    #[command(flatten)]
    common: CommonArgs,
    /// Number of consumers in this process
    #[arg(long, env = "NUM_WORKERS", default_value = "2", value_name = "N", help_heading = "Work")]
    num_workers: String,
    /// Most batches that one consumer runs at a time
    #[arg(long, env = "MAX_IN_FLIGHT", default_value = "4", value_name = "N", help_heading = "Work")]
    max_in_flight: String,
    /// Most rows of one model call; a job with more rows is called alone
    #[arg(long, env = "BATCH_MAX_ROWS", default_value = "256", value_name = "N", help_heading = "Work")]
    batch_max_rows: String,
    /// Bytes after which no more jobs are added to a call. A call carries, and a consumer claims, at most so many plus one job
    #[arg(
        long,
        env = "BATCH_MAX_BYTES",
        default_value = "1048576",
        value_name = "BYTES",
        help_heading = "Work"
    )]
    batch_max_bytes: String,
    /// Largest result of a job, bytes of JSON; a job with a larger one fails as result_too_large
    #[arg(
        long,
        env = "MAX_RESULT_BYTES",
        default_value = "8388608",
        value_name = "BYTES",
        help_heading = "Work"
    )]
    max_result_bytes: String,
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
    /// Number of retries after a failed attempt
    #[arg(long, env = "MAX_RETRIES", default_value = "3", value_name = "N", help_heading = "Retries")]
    max_retries: String,
    /// Longest pause before the first retry, ms; doubles with each one, at most the lease
    #[arg(long, env = "RETRY_BASE_MS", default_value = "500", value_name = "MS", help_heading = "Retries")]
    retry_base_ms: String,
    /// Longest model call, ms
    #[arg(
        long,
        env = "INFERENCE_TIMEOUT_MS",
        default_value = "10000",
        value_name = "MS",
        help_heading = "Model"
    )]
    inference_timeout_ms: String,
    /// What runs the model: onnx (in this process) or tensorflow_serving
    #[arg(long, env = "MODEL_BACKEND", default_value = "onnx", value_name = "KIND", help_heading = "Model")]
    model_backend: String,
    #[command(flatten)]
    model_server: ModelServerArgs,
    /// How long running jobs may go on after SIGTERM before they are released, s
    #[arg(
        long,
        env = "DRAIN_TIMEOUT_SECONDS",
        default_value = "25",
        value_name = "S",
        help_heading = "Service"
    )]
    drain_timeout_seconds: String,
    /// Address of /metrics and /livez
    #[arg(
        long,
        env = "METRICS_ADDR",
        default_value = "0.0.0.0:9100",
        value_name = "ADDR",
        help_heading = "Service"
    )]
    metrics_addr: String,
}

/// [`Args`] after checking.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings of both services.
    pub common: Common,
    /// This process's name among the workers.
    pub worker_id: String,
    /// This machine's name.
    pub host: String,
    /// Number of consumers.
    pub num_workers: usize,
    /// Most batches that one consumer runs at a time.
    pub max_in_flight: usize,
    /// Most rows of one model call.
    pub batch_max_rows: usize,
    /// Bytes after which no further job is added to a call, or claimed.
    pub batch_max_bytes: usize,
    /// Largest result of a job, bytes of JSON.
    pub max_result_bytes: usize,
    /// How long a batch that is not full waits for more jobs.
    pub batch_max_wait: Duration,
    /// How often the worker searches for entries that are due again.
    pub reclaim_interval: Duration,
    /// When to try again and when to give up.
    pub retry: Retry,
    /// What runs the model.
    pub backend: Kind,
    /// Address and TLS of TensorFlow Serving.
    pub model_server: ModelServer,
    /// How long running jobs may go on after the shutdown began.
    pub drain_timeout: Duration,
    /// Address of /metrics and /livez.
    pub metrics_addr: SocketAddr,
}

/// When to try again and when to give up.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Tries after the first one.
    pub max_retries: u64,
    /// Longest pause before the first retry.
    pub base: Duration,
    /// Longest model call.
    pub inference_timeout: Duration,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let mut mistakes = Mistakes::default();
        // Everything is checked before an error is returned, so that one start reports every mistake.
        let common = args.common.check(&mut mistakes);
        let retry = args.retry(&mut mistakes);
        let num_workers = mistakes.number("NUM_WORKERS", &args.num_workers, 1..=256);
        let max_in_flight = mistakes.number("MAX_IN_FLIGHT", &args.max_in_flight, 1..=1024);
        let batch_max_rows = mistakes.number("BATCH_MAX_ROWS", &args.batch_max_rows, 1..=4096);
        let batch_max_bytes = mistakes.number("BATCH_MAX_BYTES", &args.batch_max_bytes, 1..=1 << 30);
        let max_result_bytes =
            mistakes.number("MAX_RESULT_BYTES", &args.max_result_bytes, 1..=MOST_RESULT_BYTES);
        let batch_max_wait = mistakes.millis("BATCH_MAX_WAIT_MS", &args.batch_max_wait_ms, 0..=60_000);
        // Leases of jobs that wait for a full batch are not renewed yet.
        if let Some(common) = common.as_ref().filter(|common| batch_max_wait > common.policy.lease / 3) {
            let lease_ms = common.policy.lease.as_millis();
            mistakes.add(
                "BATCH_MAX_WAIT_MS",
                format!("must be at most a third of LEASE_MS, which is {lease_ms}"),
            );
        }
        let reclaim_interval = mistakes.millis("RECLAIM_INTERVAL_MS", &args.reclaim_interval_ms, 10..=2_000);
        let backend = mistakes.parsed("MODEL_BACKEND", &args.model_backend, Kind::Onnx);
        let model_server = args.model_server.check(&mut mistakes);
        let drain_timeout = mistakes.seconds("DRAIN_TIMEOUT_SECONDS", &args.drain_timeout_seconds, 0..=3600);
        let fallback_addr = SocketAddr::from(([0, 0, 0, 0], 9100));
        let metrics_addr = mistakes.parsed("METRICS_ADDR", &args.metrics_addr, fallback_addr);
        let host = host_name();
        let config = common.map(|common| Self {
            common,
            worker_id: format!("{host}-{}-{:06x}", std::process::id(), rand_suffix()),
            host,
            num_workers,
            max_in_flight,
            batch_max_rows,
            batch_max_bytes,
            max_result_bytes,
            batch_max_wait,
            reclaim_interval,
            retry,
            backend,
            model_server,
            drain_timeout,
            metrics_addr,
        });
        mistakes.unless_any(config)
    }
}

impl Args {
    /// What to do instead of running.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        self.command
    }

    fn retry(&self, mistakes: &mut Mistakes) -> Retry {
        Retry {
            max_retries: mistakes.number("MAX_RETRIES", &self.max_retries, 0..=1000),
            base: mistakes.millis("RETRY_BASE_MS", &self.retry_base_ms, 1..=3_600_000),
            inference_timeout: mistakes.millis(
                "INFERENCE_TIMEOUT_MS",
                &self.inference_timeout_ms,
                1..=3_600_000,
            ),
        }
    }
}

/// The host name from the kernel; empty if there is none.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "worker".to_owned() } else { name.to_owned() }
}

/// Distinguishes workers that have the same process id in different containers.
fn rand_suffix() -> u32 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}
