//! Fault runs over the topologies of several servers: primaries of a Sentinel group or of a cluster are killed, frozen, cut off, replaced
//! in order and given other slots while clients submit jobs. Counts what is lost, and compares that with what the services report.

mod check;
mod faults;
mod ledger;
mod reader;
mod report;
mod servers;
mod stack;
mod traffic;

use std::io::{Write, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;

pub use faults::Fault as FaultKind;
pub use report::Report;

use check::Checked;
use faults::{Fault, Plan};
use ledger::Ledger;
use servers::Servers;
use stack::Stack;

/// How long clients submit between two faults.
const CALM: Duration = Duration::from_secs(3);

/// How the servers are operated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A primary, two replicas and three Sentinels.
    Sentinel,
    /// Three primaries with a replica each.
    Cluster,
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the servers are operated.
    pub kind: Kind,
    /// How long faults are injected.
    pub length: Duration,
    /// `REPLICAS_REQUIRED` of the proxies.
    pub replicas_required: u32,
    /// `min-replicas-to-write` of every server.
    pub min_replicas: u32,
    /// Decides the order of the faults, and where and how long they strike.
    pub seed: u64,
    /// Inject only these faults.
    pub only: Vec<Fault>,
    /// Jobs submitted a second.
    pub rate: f64,
    /// Where the logs are written.
    pub logs: Option<std::path::PathBuf>,
}

impl Options {
    /// Replicas of each primary.
    fn replicas(&self) -> u32 {
        match self.kind {
            Kind::Sentinel => 2,
            Kind::Cluster => 1,
        }
    }
}

/// Runs faults one after another. Each is followed by a recovery before the next one.
///
/// # Panics
/// When the servers or services do not start, or do not recover.
pub async fn run(options: &Options) -> Report {
    let mut servers = Servers::start(options).await;
    let stack = Arc::new(Stack::start(options, &servers).await);
    let ledger = Arc::new(Ledger::default());
    let traffic = traffic::start(&stack, &ledger, options);
    let reading = reader::start(&stack, &ledger);
    tokio::time::sleep(CALM).await;
    servers.learn_partitions();
    let mut plan = Plan::new(options, &servers);
    let (began, mut checked) = (Instant::now(), Vec::new());
    while began.elapsed() < options.length {
        let fault = plan.next();
        let struck = faults::inject(fault, &mut servers, &mut plan).await;
        let one = Checked::after(struck, &stack, &ledger).await;
        progress(began, &one);
        checked.push(one);
        tokio::time::sleep(CALM).await;
    }
    let stuck = traffic.stop().await;
    let last = check::last(&stack, &ledger, stuck).await;
    reading.abort();
    let report = Report::new(options, servers.version(), checked, last, &ledger, &stack).await;
    if let Some(dir) = &options.logs {
        stack.write_logs(dir);
        servers.write_logs(dir);
    }
    report
}

/// A line for each fault: a run takes minutes.
fn progress(began: Instant, one: &Checked) {
    // Nobody may read it.
    let _ = writeln!(stderr(), "{:>4} s {one}", began.elapsed().as_secs());
}
