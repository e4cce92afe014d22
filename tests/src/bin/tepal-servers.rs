//! The whole product in front of real servers of the Open Inference Protocol. Prints the table of docs/models.md.
//!
//! `make test-servers`
#![allow(clippy::expect_used, reason = "a program of the harness")]

use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tepal_tests::real_servers::{Kind, run, table};

/// The whole product in front of real servers.
#[derive(Parser, Clone, Debug)]
#[command(name = "tepal-servers")]
struct Args {
    /// The folder that tests/models/servers/prepare.sh made
    #[arg(long)]
    servers: PathBuf,
    /// Only servers whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut all = Vec::new();
    for kind in Kind::ALL {
        if kind.to_string().to_lowercase().contains(&args.only.to_lowercase()) {
            let checked = Box::pin(run(kind, &args.servers, &args.case)).await;
            say(&table(&checked));
            all.extend(checked);
        }
    }
    say(&table(&all));
    if all.iter().all(|checked| checked.outcome.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(text: &str) {
    writeln!(stdout(), "{text}").expect("standard output");
}
