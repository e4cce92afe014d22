//! `make bench`: compares Tepal with bare Redis and a bare HTTP server on the same machine, in one run.
//!
//! - `rows` has one module for each group of table rows; it measures the limit and Tepal in turns;
//! - `parts` starts the programs: the real binaries in release mode, a Redis with the shipped settings, and this program
//!   again as a bare axum server;
//! - `tools` runs wrk and redis-benchmark; `series` is a median with its range;
//! - `machine` and `page` write the measured part of `docs/performance.md`.
//!
//! It prints figures and judges them against the targets. It never fails because of a missed target: a slow machine is no error.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that cannot run must end at once, with a clear text"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

mod bare;
mod machine;
mod page;
mod parts;
mod queue;
mod rows;
mod series;
mod tools;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Tepal and its limits, and writes the figures into a page.
#[derive(Debug, Parser)]
#[command(name = "tepal-bench")]
struct Options {
    #[command(subcommand)]
    child: Option<Child>,
    /// Length of one measurement, if it has one
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds; each measures the limit and Tepal
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Jobs of a backlog; the deepest one has five times as many
    #[arg(long, default_value_t = 200_000)]
    jobs: usize,
    /// Measure only these groups of rows
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<rows::Group>,
    /// The page with the measured part to replace
    #[arg(long, default_value_os_t = parts::repository().join("docs/performance.md"))]
    out: PathBuf,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// The role of this program when it starts itself.
#[derive(Debug, Subcommand)]
enum Child {
    /// A server that parses the JSON and answers a constant
    #[command(hide = true)]
    Axum {
        /// Address to listen on
        addr: SocketAddr,
    },
}

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Length of one measurement.
    pub(crate) length: Duration,
    /// Rounds.
    pub(crate) rounds: usize,
    /// Jobs of a backlog.
    pub(crate) jobs: usize,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    match options.child {
        Some(Child::Axum { addr }) => bare::serve(addr).await,
        None => bench(options).await,
    }
}

async fn bench(options: Options) {
    assert!(options.rounds > 0 && options.jobs >= 1_000, "at least 1 round and 1,000 jobs");
    let scale = Scale {
        length: Duration::from_secs_f64(options.seconds),
        rounds: options.rounds,
        jobs: options.jobs,
    };
    tools::require();
    let started = machine::Started::now();
    let measured = rows::measure(&options.only, scale).await;
    let text = page::measured(&measured, &started, scale);
    println!("\n{text}");
    page::write(&options.out, &text);
}
