//! HTTP servers that others wrote, behind the whole product. Prints the table of docs/models.md.
//!
//! `make test-servers`
#![allow(clippy::expect_used, reason = "a run that cannot be made has no result")]

use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tepal_tests::http_servers::{Outcome, Server, run};

/// HTTP servers that others wrote.
#[derive(Parser, Clone, Debug)]
#[command(name = "tepal-http-servers")]
struct Args {
    /// The folder that tests/servers/http/prepare.sh made
    #[arg(long)]
    folder: PathBuf,
    /// Only servers whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Jobs of each run
    #[arg(long, default_value_t = 1000)]
    jobs: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut outcomes = Vec::new();
    for server in Server::ALL.into_iter().filter(|server| server.name().contains(&args.only)) {
        let outcome = run(server, &args.folder, args.jobs).await;
        outcome.mistakes().iter().for_each(|mistake| say(mistake));
        outcomes.push(outcome);
    }
    say(Outcome::HEAD);
    outcomes.iter().for_each(|outcome| say(&outcome.row()));
    if outcomes.iter().all(Outcome::is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(text: &str) {
    writeln!(stdout(), "{text}").expect("standard output");
}
