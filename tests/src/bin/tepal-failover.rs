//! Kills, freezes and moves the primaries of a Sentinel group or a cluster under load, and counts what is lost.
//!
//! `make failover TOPOLOGY=cluster SECONDS=300 REPLICAS_REQUIRED=1`. Exit status 1 when a promise was broken.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tepal_tests::failover::{self, FaultKind, Kind, Options};

/// Fault run over several Redis servers, two proxies and two workers.
#[derive(Parser, Debug)]
#[command(name = "tepal-failover")]
struct Args {
    /// How the servers are operated
    #[arg(long, value_enum)]
    topology: Kind,
    /// How long faults are injected, s
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// `REPLICAS_REQUIRED` of the proxies; a Sentinel group has two replicas, each primary of a cluster has one
    #[arg(long, default_value_t = 0)]
    replicas_required: u32,
    /// `min-replicas-to-write` of the servers
    #[arg(long, default_value_t = 0)]
    min_replicas: u32,
    /// Decides the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Inject only these faults
    #[arg(long, value_enum)]
    only: Vec<FaultKind>,
    /// Jobs submitted a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Folder for the logs of all processes
    #[arg(long)]
    logs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { topology, seconds, replicas_required, min_replicas, seed, only, rate, logs } = Args::parse();
    let length = Duration::from_secs(seconds);
    let options = Options { kind: topology, length, replicas_required, min_replicas, seed, only, rate, logs };
    let report = failover::run(&options).await;
    let _ = writeln!(stdout(), "{report}");
    ExitCode::from(u8::from(!report.holds()))
}
