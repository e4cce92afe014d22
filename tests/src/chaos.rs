//! Fault runs over real processes: proxies, workers, a Redis and model servers under a steady load of jobs, while
//! processes are killed and frozen, connections break and model calls fail, all at random moments.
//!
//! Afterwards everything is read back and the history checker decides. A run is repeatable in what it does, not in
//! its timing: the seed decides the jobs and the order of the faults, the operating system decides the rest.
//!
//! | module | owns |
//! | --- | --- |
//! | [`stack`](Stack) | the processes, and the fault proxies between them |
//! | `traffic`, `story`, `order` | what clients do: one story for each job |
//! | `lanes` | injects faults, several at a time |
//! | `process_faults`, `network_faults`, `model_faults`, `repository_faults` | what goes wrong, and whether it really hit |
//! | `rig` | what every fault needs |
//! | `models` | three models of different shapes, what clients send to each, and the right answers |
//! | `repository`, `versions` | the models of each process, and when each version was served |
//! | `holdings` | which jobs a worker holds, as Redis sees it |
//! | `justification` | names the fault that justifies each failed job |
//! | `evidence` | reads everything back and runs the checker |
//! | [`Report`] | the table, and the history of each job that broke a promise |

mod evidence;
mod holdings;
mod justification;
mod lanes;
mod model_faults;
mod models;
mod network_faults;
mod order;
mod process_faults;
mod recovery;
mod report;
mod repository;
mod repository_faults;
mod rig;
mod rng;
mod stack;
mod story;
mod tally;
mod traffic;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use justification::{Failures, justify};
pub use model_faults::{LARGE_BATCHES, NOT_READY, names as model_fault_names};
pub use models::oracle;
pub use recovery::Recovery;
pub use report::Report;
pub use stack::Stack;
pub use tally::{Injected, Tallied, Tally};

use crate::history::{Event, Recorder};
use crate::redis::Fsync;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long jobs are submitted and faults injected.
    pub length: Duration,
    /// Decides the jobs and the order of the faults.
    pub seed: u64,
    /// Jobs submitted a second.
    pub rate: f64,
    /// What goes wrong.
    pub faults: Faults,
    /// With [`Faults::All`]: inject only these faults of model servers. Empty = all faults.
    pub only: Vec<String>,
    /// The services' `LEASE_MS`.
    pub lease: Duration,
    /// When Redis syncs its append-only file.
    pub fsync: Fsync,
    /// How long after the last fault every job must have ended.
    pub settle_within: Duration,
    /// How much longer than the lease a job of a killed worker may wait for its next attempt.
    pub recovery_slack: Duration,
    /// Where the history, the logs and the dumps go.
    pub dir: PathBuf,
}

impl Options {
    /// A run of this length with all faults, writing to `dir`.
    #[must_use]
    pub fn new(length: Duration, seed: u64, dir: PathBuf) -> Self {
        Self {
            length,
            seed,
            rate: 250.0,
            faults: Faults::All,
            only: Vec::new(),
            lease: Duration::from_secs(2),
            fsync: Fsync::Always,
            settle_within: Duration::from_secs(120),
            recovery_slack: Duration::from_secs(1),
            dir,
        }
    }

    /// The same with other faults. Where no lease is to lapse, it is the services' default one: on a loaded machine a
    /// short one may lapse by itself.
    #[must_use]
    pub fn with(self, faults: Faults) -> Self {
        let lease = if faults == Faults::All { self.lease } else { Duration::from_secs(10) };
        Self { faults, lease, ..self }
    }

    /// The same with these faults of model servers only; jobs have no time limits of their own.
    ///
    /// # Panics
    /// When there is no such fault.
    #[must_use]
    pub fn only(self, names: &[&str]) -> Self {
        let known = model_fault_names();
        let unknown = names.iter().find(|name| !known.contains(name));
        assert!(unknown.is_none(), "there is no fault {unknown:?}, but {known:?}");
        let only = names.iter().map(|name| (*name).to_owned()).collect();
        Self { faults: Faults::All, lease: Duration::from_secs(10), only, ..self }
    }
}

/// What goes wrong during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    None,
    /// The workers get SIGTERM, one after the other, and are started again.
    RollingRestart,
    /// Everything.
    All,
}

/// Runs everything and checks it.
///
/// # Panics
/// When the harness itself fails: a process that cannot be started, a file that cannot be written.
pub async fn run(options: &Options) -> Report {
    run_with(options, async |_: &Stack| {}).await
}

/// [`run`], with something of the caller's own done to the stack when half of the time is over: to show that the
/// checker notices it.
///
/// # Panics
/// As [`run`].
pub async fn run_with(options: &Options, meddle: impl AsyncFnOnce(&Stack)) -> Report {
    std::fs::create_dir_all(&options.dir).expect("the directory can be created");
    let recorder = Recorder::open(&options.dir.join("history.jsonl")).expect("the history can be written");
    let tally = Arc::new(Tally::new(&options.dir));
    let stack = Arc::new(Stack::start(options).await);
    let until = Instant::now() + options.length;

    let traffic = tokio::spawn(traffic::run(Arc::clone(&stack), recorder.clone(), options.clone(), until));
    let versions = Arc::new(versions::Versions::new());
    let rig = rig::Rig { stack: Arc::clone(&stack), tally: Arc::clone(&tally), versions };
    let lanes = lanes::Lanes::new(rig.clone(), until);
    let faults = tokio::spawn(lanes.run(options.clone()));
    tokio::time::sleep(options.length / 2).await;
    let halfway = stack.dump().await;
    meddle(&stack).await;

    let mut problems = Vec::new();
    let kills = faults.await.unwrap_or_else(|failure| {
        problems.push(format!("injecting faults: {}", panic_text(failure)));
        Vec::new()
    });
    stack.heal();
    if let Err(failure) = traffic.await {
        problems.push(format!("a client: {}", panic_text(failure)));
    }
    for (kind, tallied) in tally.all() {
        recorder.note(Event::Fault { kind, hits: tallied.hit });
    }
    let mut found = evidence::gather(&stack, &recorder, options, halfway).await;
    found.problems.extend(problems);
    let report = Report::new(options, &rig, found, &kills);
    report.write_files(&stack);
    report
}

fn panic_text(failure: tokio::task::JoinError) -> String {
    let described = failure.to_string();
    failure.try_into_panic().map_or(described.clone(), |panic| {
        let owned = panic.downcast_ref::<String>().cloned();
        owned.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or(described)
    })
}
