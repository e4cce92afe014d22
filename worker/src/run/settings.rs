//! Settings of a running batch: its size, its results and its retries.

use std::{num::NonZeroUsize, time::Duration};

use clap::Args;
use tepal_shared::{model::Model, process::settings::Mistakes};

use crate::run::batch::Limits;

/// Half of the largest value that Redis accepts by default (`proto-max-bulk-len`).
const MOST_RESULT_BYTES: usize = 256 << 20;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
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
}

/// [`RunArgs`] after checking.
#[derive(Clone, Copy, Debug)]
pub struct RunSettings {
    /// Most rows of a call, and bytes after which no further job is added to a call, or claimed.
    pub limits: Limits,
    /// Largest result of a job, bytes of JSON.
    pub max_result_bytes: usize,
    /// Retries after a failed attempt.
    pub max_retries: u64,
    /// Longest pause before the first retry.
    pub retry_base: Duration,
    /// Longest model call.
    pub inference_timeout: Duration,
}

impl RunSettings {
    /// As the model's description changes them.
    #[must_use]
    pub fn of_model(self, model: &Model) -> Self {
        let Self { limits, max_result_bytes, max_retries, inference_timeout, .. } = self;
        let serving = &model.serving;
        Self {
            limits: Limits { rows: model.most_rows_of_call(limits.rows), ..limits },
            max_result_bytes: serving.max_result_bytes.map_or(max_result_bytes, NonZeroUsize::get),
            max_retries: serving.max_retries.unwrap_or(max_retries),
            inference_timeout: serving.inference_timeout().unwrap_or(inference_timeout),
            ..self
        }
    }
}

impl RunArgs {
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> RunSettings {
        const LONGEST_MS: u64 = 3_600_000;
        RunSettings {
            limits: Limits {
                rows: mistakes.number("BATCH_MAX_ROWS", &self.batch_max_rows, 1..=4096),
                bytes: mistakes.number("BATCH_MAX_BYTES", &self.batch_max_bytes, 1..=1 << 30),
            },
            max_result_bytes: mistakes.number(
                "MAX_RESULT_BYTES",
                &self.max_result_bytes,
                1..=MOST_RESULT_BYTES,
            ),
            max_retries: mistakes.number("MAX_RETRIES", &self.max_retries, 0..=1000),
            retry_base: mistakes.millis("RETRY_BASE_MS", &self.retry_base_ms, 1..=LONGEST_MS),
            inference_timeout: mistakes.millis(
                "INFERENCE_TIMEOUT_MS",
                &self.inference_timeout_ms,
                1..=LONGEST_MS,
            ),
        }
    }
}
