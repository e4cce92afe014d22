//! The tables of docs/models.md.

use super::{Cost, Engine, Model, Outcome};

/// One row for each model and engine.
#[must_use]
pub fn outcomes(all: &[(Model, Engine, Outcome)]) -> String {
    let mut text =
        "| model | engine | right | largest difference | ms a call | over onnxruntime |\n".to_owned();
    text += "| --- | --- | --- | --- | --- | --- |\n";
    for (model, engine, outcome) in all {
        let cells = match outcome {
            Outcome::Right { sizes, difference, milliseconds } => {
                let ratio = milliseconds / model.cases[0].milliseconds;
                format!("yes, {sizes} sizes | {difference:.0e} | {milliseconds:.2} | {ratio:.1}")
            }
            Outcome::Lacking(why) => format!("no: {} | | |", lacking(why)),
            Outcome::Wrong(why) => format!("**no**: {why} | | |"),
        };
        text += &format!("| {} | {engine} | {cells} |\n", model.name);
    }
    text
}

/// The part of the engine's message that says what it lacks.
fn lacking(why: &str) -> &str {
    let starts = ["does not have ", "Translating node "];
    let after = starts.iter().find_map(|start| why.split_once(start)).map_or(why, |(_, after)| after);
    after.split([';', '.']).next().unwrap_or(after)
}

/// One row for each measurement.
#[must_use]
pub fn costs(all: &[Cost]) -> String {
    let mut text =
        "| model | rows a call | onnxruntime directly, rows/s | through Tepal, rows/s | ratio |\n".to_owned();
    text += "| --- | --- | --- | --- | --- |\n";
    let rates = |rates: &[f64]| rates.iter().map(|rate| format!("{rate:.1}")).collect::<Vec<_>>().join(", ");
    for cost in all {
        let Cost { model, rows, direct, through } = cost;
        let line =
            format!("| {model} | {rows} | {} | {} | {:.2} |\n", rates(direct), rates(through), cost.ratio());
        text += &line;
    }
    text
}
