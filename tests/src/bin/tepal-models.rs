//! Real models through the whole product, each with both engines, compared with onnxruntime. Prints the tables of docs/models.md.
//!
//! `make test-models`
#![allow(clippy::expect_used, reason = "a measurement that cannot be made has no result")]

use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tepal_tests::real_models::{Engine, Model, Outcome, costs, measure, outcomes, run};

/// The models whose cost is measured, and the rows of a call.
const MEASURED: [(&str, usize); 2] = [("text-detector", 4), ("sentence-encoder", 8)];

/// Real models through the whole product.
#[derive(Parser, Clone, Debug)]
#[command(name = "tepal-models")]
struct Args {
    /// The folder that tests/models/real/prepare.sh made
    #[arg(long)]
    models: PathBuf,
    /// Only models whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// How often each cost is measured; 0 measures none
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each measurement takes, s
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut models = Model::all(&args.models.join("models"));
    models.retain(|model| model.name.contains(&args.only));
    let mut all = Vec::new();
    for model in &models {
        for engine in Engine::ALL {
            all.push((model.clone(), engine, run(model, engine).await));
            say(&outcomes(&all[all.len() - 1..]));
        }
    }
    say(&outcomes(&all));
    let python = args.models.join("venv/bin/python");
    let mut measured = Vec::new();
    for (name, rows) in MEASURED {
        if let Some(model) = models.iter().find(|model| model.name == name && args.rounds > 0) {
            measured.push(measure(model, &python, rows, args.rounds, args.seconds).await);
        }
    }
    say(&costs(&measured));
    let is_right = |(_, engine, outcome): &(Model, Engine, Outcome)| match outcome {
        Outcome::Right { .. } => true,
        Outcome::Lacking(_) => *engine == Engine::Onnx,
        Outcome::Wrong(_) => false,
    };
    if all.iter().all(is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(text: &str) {
    writeln!(stdout(), "{text}").expect("standard output");
}
