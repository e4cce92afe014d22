//! Options about the load that all commands share.

use std::path::PathBuf;

use clap::Args;
use fastrand::Rng;
use hyper::body::Bytes;

use super::arrivals::Spacing;
use crate::mistakes::{HIGHEST_NUMBER, Mistakes};

/// The example of the specification, section 4.2.
const SAMPLE_ROW: &str = "[5.1,3.5,1.4,0.2]";
/// A proxy answers five probes a second on one connection in the long run. In 30 s, this rate gives enough probes for a p99
/// that is not simply the maximum.
const HEALTH_RATE: f64 = 4.0;

/// The requests of a run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadSettings {
    /// File whose bytes are the body of every submission
    #[arg(long, value_name = "FILE", conflicts_with = "rows")]
    pub(crate) body: Option<PathBuf>,
    /// Rows of the built-in sample in every submission
    #[arg(long, default_value_t = 1)]
    pub(crate) rows: usize,
    /// Distribution of the gaps between arrivals
    #[arg(long, value_enum, default_value_t = Spacing::Poisson)]
    pub(crate) arrivals: Spacing,
    /// Plain reads of a recent job for each submission; no effect on `run`
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    pub(crate) get_ratio: f64,
    /// Probes of /health per second
    #[arg(long, value_name = "RATE", default_value_t = HEALTH_RATE)]
    pub(crate) health_rate: f64,
    /// Seed of all random choices; the same seed repeats a run
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Most requests that wait for an answer; a request beyond is dropped and counts as an error
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) max_outstanding: u32,
    /// Connections for these requests; when all are busy, a request waits and its latency includes the wait
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) connections: usize,
}

impl LoadSettings {
    /// Adds what is wrong. The body is checked where it is read.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) {
        mistakes.number("--rows", self.rows);
        mistakes.rate_or_zero("--get-ratio", self.get_ratio);
        mistakes.rate_or_zero("--health-rate", self.health_rate);
        mistakes.check(self.max_outstanding > 0, "--max-outstanding must be above 0");
        mistakes.number("--connections", self.connections);
    }

    /// The body of every submission.
    ///
    /// # Errors
    /// The file of `--body` cannot be read.
    pub(crate) fn read_body(&self) -> Result<Bytes, String> {
        let Some(path) = &self.body else {
            // A number of rows beyond the limit is refused elsewhere and must not cost memory here.
            let rows = vec![SAMPLE_ROW; self.rows.min(HIGHEST_NUMBER)];
            return Ok(format!("{{\"data\":[{}]}}", rows.join(",")).into());
        };
        let body = std::fs::read(path);
        body.map(Bytes::from).map_err(|error| format!("--body: cannot read {}: {error}", path.display()))
    }

    /// The random number generator for one part of the run. The same seed and part always give the same numbers.
    pub(crate) fn random(&self, part: u64) -> Rng {
        Rng::with_seed(self.seed ^ Rng::with_seed(part).u64(..))
    }
}
