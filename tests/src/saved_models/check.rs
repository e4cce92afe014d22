//! Runs all cases of all models, in every way, and compares the answers with TensorFlow's.

use std::time::Duration;

use serde_json::{Value, json};

use super::elements::from_raw;
use super::ways::HEADER_LENGTH;
use super::{SavedModels, Way};
use crate::http::{Client, Method};
use crate::real_models::Case;

const WITHIN: Duration = Duration::from_secs(60);

/// How the jobs of one model did that were sent in one way.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The model.
    pub model: String,
    /// How they were sent.
    pub way: Way,
    /// Number of jobs, each with inputs of another size.
    pub sizes: usize,
    /// The largest difference from TensorFlow's numbers, or what is wrong.
    pub difference: Result<f64, String>,
}

/// Submits every case in every way, all before the first answer is read, so that jobs of all sizes wait together.
pub async fn check(client: &Client, models: &SavedModels) -> Vec<Checked> {
    let mut jobs = Vec::new();
    for (name, model) in models {
        for case in &model.cases {
            for way in Way::all(case) {
                jobs.push((name, way, case, way.submit(client, name, case).await));
            }
        }
    }
    let mut all: Vec<Checked> = Vec::new();
    for (name, way, case, id) in jobs {
        let found = difference(client, way, case, &id).await;
        match all.iter_mut().find(|checked| checked.model == *name && checked.way == way) {
            Some(checked) => checked.add(found),
            None => all.push(Checked { model: name.clone(), way, sizes: 1, difference: found }),
        }
    }
    all
}

impl Checked {
    fn add(&mut self, found: Result<f64, String>) {
        self.sizes += 1;
        if let Ok(largest) = self.difference {
            self.difference = found.map(|found| largest.max(found));
        }
    }
}

/// The rows of a table in docs/models.md.
#[must_use]
pub fn table(all: &[Checked]) -> String {
    let mut text = "| model | sent as | right | largest difference |\n| --- | --- | --- | --- |\n".to_owned();
    for Checked { model, way, sizes, difference } in all {
        text += &match difference {
            Ok(difference) => format!("| {model} | {way} | yes, {sizes} sizes | {difference:.0e} |\n"),
            Err(why) => format!("| {model} | {way} | **no**: {why} | |\n"),
        };
    }
    text
}

/// The difference of a job's result, of tensors also in binary form.
async fn difference(client: &Client, way: Way, case: &Case, id: &str) -> Result<f64, String> {
    let job = client.finished(id, WITHIN).await;
    if job["status"] != "completed" {
        return Err(job["error"].to_string());
    }
    if !way.is_tensors() {
        return case.difference(&job["result"]);
    }
    let (json, binary) = (&job["result"], binary(client, id).await);
    has_shapes(case, json)?;
    has_shapes(case, &binary)?;
    Ok(case.difference(json)?.max(case.difference(&binary)?))
}

/// The result of a job in binary form, converted to its JSON.
async fn binary(client: &Client, id: &str) -> Value {
    let headers = [("accept", "application/octet-stream")];
    let answer = client.request(Method::GET, &format!("/job/{id}"), &headers, "").await;
    let length =
        answer.header(HEADER_LENGTH).and_then(|length| length.parse().ok()).expect("a binary answer");
    let (json, mut raw) = answer.body.split_at(length);
    let mut job: Value = serde_json::from_slice(json).expect("JSON before the tensors");
    for output in job["result"]["outputs"].as_array_mut().expect("outputs") {
        let size = output["parameters"]["binary_data_size"].as_u64().expect("a size");
        let (own, rest) = raw.split_at(usize::try_from(size).expect("a length"));
        output["data"] = from_raw(output["datatype"].as_str().unwrap_or_default(), own).into();
        raw = rest;
    }
    assert!(raw.is_empty(), "{} surplus bytes", raw.len());
    job["result"].take()
}

/// Whether the outputs are those of TensorFlow in name, datatype, shape and order.
fn has_shapes(case: &Case, result: &Value) -> Result<(), String> {
    let heads = |name: &Value, datatype: &Value, shape: &Value| json!([name, datatype, shape]);
    let outputs = result["outputs"].as_array().map_or(&[][..], Vec::as_slice);
    let given: Vec<_> =
        outputs.iter().map(|output| heads(&output["name"], &output["datatype"], &output["shape"])).collect();
    let expected = case.outputs.iter();
    let expected: Vec<_> = expected
        .map(|output| heads(&json!(output.name), &json!(output.datatype), &json!(output.shape)))
        .collect();
    if given == expected { Ok(()) } else { Err(format!("{given:?} instead of {expected:?}")) }
}
