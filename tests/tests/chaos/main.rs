//! Short fault runs. `make chaos` runs the same for as long as one likes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing step fails the test")]

mod calm;
mod faults;
mod sensitivity;

use std::time::Duration;

use tempfile::TempDir;
use tepal_tests::chaos::Options;

/// A run that writes to a directory of its own, gentle enough for debug builds on a loaded machine.
fn options(seconds: u64, seed: u64) -> (TempDir, Options) {
    let dir = tempfile::Builder::new().prefix("tepal-chaos-").tempdir().unwrap();
    let mut options = Options::new(Duration::from_secs(seconds), seed, dir.path().to_owned());
    options.rate = 80.0;
    // How long recovery takes is measured by `make chaos`; here other tests may have the processor.
    options.recovery_slack = Duration::from_secs(20);
    (dir, options)
}
