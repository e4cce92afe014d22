//! What must hold with each server.

use serde_json::{Value, json};

use super::faults;
use super::product::{Product, rows};
use super::server::{Kind, Server};
use crate::model_server::ServerSpec;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Flowers,
    Outputs,
    Texts,
    WrongShape,
    BadRow,
    TooLarge,
    FullQueue,
    Restart,
    Killed,
}

impl Case {
    pub(super) const ALL: [Self; 9] = [
        Self::Flowers,
        Self::Outputs,
        Self::Texts,
        Self::WrongShape,
        Self::BadRow,
        Self::TooLarge,
        Self::FullQueue,
        Self::Restart,
        Self::Killed,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Flowers => "150 flowers, one to a job and 50 to a job",
            Self::Outputs => "several outputs",
            Self::Texts => "BYTES both ways",
            Self::WrongShape => "wrong shape",
            Self::BadRow => "one bad row among 40",
            Self::TooLarge => "10 MB of jobs that share calls",
            Self::FullQueue => "full queue",
            Self::Restart => "restart in the middle",
            Self::Killed => "server killed",
        }
    }

    /// The others have no queue of their own.
    pub(super) fn is_for(self, kind: Kind) -> bool {
        self != Self::FullQueue || kind == Kind::Triton
    }

    /// What was seen, or what is wrong.
    pub(super) async fn run(self, product: &Product, server: &Server) -> Result<String, String> {
        match self {
            Self::Flowers => flowers(product).await,
            Self::Outputs => outputs(product).await,
            Self::Texts => texts(product).await,
            Self::WrongShape => wrong_shape(product).await,
            Self::BadRow => bad_row(product).await,
            Self::TooLarge => too_large(product).await,
            Self::FullQueue => faults::full_queue(product).await,
            Self::Restart => faults::restart(product, server).await,
            Self::Killed => faults::killed(product, server).await,
        }
    }
}

/// The largest difference between the probabilities of a prediction and the right ones.
fn difference(row: &[f32], prediction: &Value) -> f64 {
    let right = (ServerSpec::iris().compute)(row);
    let given = prediction["probabilities"].as_array().cloned().unwrap_or_default();
    if given.len() != right.len() {
        return f64::INFINITY;
    }
    let differences = right
        .iter()
        .zip(&given)
        .map(|(right, given)| (f64::from(*right) - given.as_f64().unwrap_or(f64::INFINITY)).abs());
    differences.fold(0.0, f64::max)
}

async fn flowers(product: &Product) -> Result<String, String> {
    let rows = rows();
    let single = product.submit_each("iris", rows.iter().map(|row| json!(row))).await;
    let single = product.completed(&single).await?;
    let mut together = Vec::new();
    // Triton takes 64 rows a call.
    for rows in rows.chunks(50) {
        let id = product.submit("iris", &json!(rows)).await;
        let results = product.completed(&[id]).await?;
        together.extend(results[0]["predictions"].as_array().cloned().unwrap_or_default());
    }
    let largest = |predictions: &[Value]| {
        rows.iter().zip(predictions).map(|(row, prediction)| difference(row, prediction)).fold(0.0, f64::max)
    };
    let found = largest(&single).max(largest(&together));
    let is_right = single.len() == 150 && together.len() == 150 && found < 1e-5;
    if is_right { Ok(format!("right, within {found:.0e}")) } else { Err(format!("differs by {found}")) }
}

async fn outputs(product: &Product) -> Result<String, String> {
    let id = product.submit("iris", &json!([rows()[0], rows()[149]])).await;
    let result = product.completed(&[id]).await?.remove(0);
    let outputs = &result["outputs"];
    let names = [&outputs[0]["name"], &outputs[1]["name"]];
    if names == ["output", "label"] && outputs[1]["data"] == json!(["setosa", "virginica"]) {
        Ok("right".to_owned())
    } else {
        Err(result.to_string())
    }
}

async fn texts(product: &Product) -> Result<String, String> {
    let row = |text: &str| json!([text]);
    let ids = product.submit_each("texts", ["abc", "", "caf\u{e9} ole"].map(row)).await;
    let results = product.completed(&ids).await?;
    let upper: Vec<_> = results.iter().map(|result| result["outputs"][0]["data"][0].clone()).collect();
    let lengths: Vec<_> = results.iter().map(|result| result["outputs"][1]["data"][0].clone()).collect();
    // Python changes only ASCII letters of bytes.
    if upper == ["ABC", "", "CAF\u{e9} OLE"] && lengths == [3, 0, 9] {
        Ok("right".to_owned())
    } else {
        Err(format!("{results:?}"))
    }
}

/// The end of a job that fails: its code and number of attempts.
async fn failed(product: &Product, id: &str) -> Result<String, String> {
    let job = product.ended(id).await;
    let code = job["error_code"].as_str().unwrap_or_default();
    let is_expected = job["status"] == "failed" && ["model_rejected", "model_error"].contains(&code);
    let what = format!("`{code}`, attempts: {}", job["attempts"]);
    if is_expected { Ok(what) } else { Err(job.to_string()) }
}

async fn wrong_shape(product: &Product) -> Result<String, String> {
    let right = product.submit_each("strict", [json!([1, 2]), json!([3, 4])]).await;
    let wrong = product.submit("strict", &json!([[1, 2, 3]])).await;
    let end = failed(product, &wrong).await?;
    product.completed(&right).await?;
    Ok(end)
}

async fn bad_row(product: &Product) -> Result<String, String> {
    let row = |number: usize| json!([[if number == 17 { 9.5 } else { 5.1 }, 3.5, 1.4, 0.2]]);
    let mut ids = product.submit_together("iris", (0..40).map(row)).await;
    let bad = ids.remove(17);
    let end = failed(product, &bad).await?;
    // Triton may put a good call into one batch with the bad one; such a job uses more attempts.
    let mut more = 0;
    for id in &ids {
        let job = product.ended(id).await;
        if job["status"] != "completed" {
            return Err(job.to_string());
        }
        more += usize::from(job["attempts"] != 1);
    }
    Ok(format!("{end}; 39 right, {more} of them after retries"))
}

async fn too_large(product: &Product) -> Result<String, String> {
    const WORDS: &str = "\"verdict\":\"too_large\"";
    let before = product.logged(WORDS);
    let job = || json!(vec![vec![0.5; 4096]; 50]);
    let ids = product.submit_together("wide", (0..12).map(|_| job())).await;
    let results = product.completed(&ids).await?;
    let is_right = |prediction: &Value| {
        let value = if prediction["prediction"].is_array() {
            &prediction["prediction"][0]
        } else {
            &prediction["prediction"]
        };
        value.as_f64() == Some(2048.0)
    };
    for result in &results {
        let predictions = result["predictions"].as_array().cloned().unwrap_or_default();
        if predictions.len() != 50 || !predictions.iter().all(is_right) {
            return Err(result.to_string());
        }
    }
    Ok(format!("right, {} calls were too large", product.logged(WORDS) - before))
}
