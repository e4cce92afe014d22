//! Short fault runs. `make chaos` runs the same for any time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failing step fails the test, and says why"
)]

mod calm;
mod failover;
mod faults;
mod sensitivity;

use std::time::Duration;

use tempfile::TempDir;
use tepal_tests::chaos::{self, Faults, Options, Report};
use tokio::sync::{Mutex, MutexGuard};

/// Runs measure time on a machine with few processors, so only one runs at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// A run, with its lock and its directory.
struct Run {
    options: Options,
    _dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Run {
    /// Writes to a directory of its own, and is gentle enough for debug builds on a loaded machine.
    async fn new(seconds: u64, seed: u64, faults: Faults) -> Self {
        Self::with(seconds, seed, |options| options.with(faults)).await
    }

    async fn with(seconds: u64, seed: u64, change: impl FnOnce(Options) -> Options) -> Self {
        let turn = TURN.lock().await;
        let dir = tempfile::Builder::new().prefix("tepal-chaos-").tempdir().unwrap();
        let mut options = Options::new(Duration::from_secs(seconds), seed, dir.path().to_owned());
        options.rate = 80.0;
        // `make chaos` measures the time of recovery; here other tests may use the processor.
        options.recovery_slack = Duration::from_secs(20);
        Self { options: change(options), _dir: dir, _turn: turn }
    }

    async fn report(&self) -> Report {
        chaos::run(&self.options).await
    }

    /// A run that keeps every promise and in which enough happened. A slow machine gets more time.
    async fn until(
        seconds: u64,
        seed: u64,
        faults: Faults,
        is_enough: impl Fn(&Report) -> bool,
    ) -> (Self, Report) {
        for seconds in [seconds, 2 * seconds, 4 * seconds] {
            let run = Self::new(seconds, seed, faults).await;
            let report = run.report().await;
            report.assert_holds();
            if is_enough(&report) {
                return (run, report);
            }
            println!("too little happened in {seconds} s to show anything:\n{report}");
        }
        panic!("too little happened to show anything, see above");
    }
}
