//! Real models through the whole product: ONNX files with both engines, compared with onnxruntime, and SavedModels on TensorFlow,
//! compared with TensorFlow itself. Prints the tables of docs/models.md.
//!
//! `make test-models`
#![allow(clippy::expect_used, reason = "a measurement that cannot be made has no result")]

use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tepal_tests::real_models::{Engine, Model, Outcome, costs, measure, outcomes, run};
use tepal_tests::saved_models::{self, SavedModel, TensorFlow};

/// The models whose cost is measured, and the rows of a call.
const MEASURED: [(&str, usize); 2] = [("text-detector", 4), ("sentence-encoder", 8)];

/// Real models through the whole product.
#[derive(Parser, Clone, Debug)]
#[command(name = "tepal-models")]
struct Args {
    /// The folder that tests/models/real/prepare.sh made
    #[arg(long)]
    models: PathBuf,
    /// The folder that tests/models/saved/prepare.sh made; without it, SavedModels are left out
    #[arg(long)]
    saved: Option<PathBuf>,
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
    let is_saved_right = match &args.saved {
        Some(folder) => saved(folder, &args.only).await,
        None => true,
    };
    let is_onnx_right = onnx(&args).await;
    if is_saved_right && is_onnx_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all answers of TensorFlow arrive as they are.
async fn saved(folder: &Path, only: &str) -> bool {
    let folder_of_models = folder.join("models");
    let mut models = SavedModel::read(&folder_of_models.join("cases.json"));
    models.retain(|name, _| name.contains(only));
    if models.is_empty() {
        return true;
    }
    let server = TensorFlow::start(&folder.join("venv/bin/python"), &folder_of_models).await;
    let product = saved_models::Product::start(server.port(), &models, |_| ()).await;
    let all = saved_models::check(&product.client(), &models).await;
    say(&saved_models::table(&all));
    all.iter().all(|checked| checked.difference.is_ok())
}

/// Whether ONNX models are right on both engines, or the built-in one lacks something.
async fn onnx(args: &Args) -> bool {
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
    all.iter().all(|(_, engine, outcome)| match outcome {
        Outcome::Right { .. } => true,
        Outcome::Lacking(_) => *engine == Engine::Onnx,
        Outcome::Wrong(_) => false,
    })
}

fn say(text: &str) {
    writeln!(stdout(), "{text}").expect("standard output");
}
