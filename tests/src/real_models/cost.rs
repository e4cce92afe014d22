//! What Tepal costs: rows a second through the product at saturation, over those of onnxruntime called directly.

use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use super::product::Product;
use super::{Engine, Model};

/// Rows a second, of each round.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The model.
    pub model: String,
    /// Rows of a call.
    pub rows: usize,
    /// Of onnxruntime called directly from Python.
    pub direct: Vec<f64>,
    /// Through Tepal.
    pub through: Vec<f64>,
}

/// Measures both in turns, with calls of the same number of rows on the same number of threads.
///
/// # Panics
/// When a measurement fails.
pub async fn measure(model: &Model, python: &Path, rows: usize, rounds: usize, seconds: f64) -> Cost {
    let mut cost = Cost { model: model.name.clone(), rows, direct: Vec::new(), through: Vec::new() };
    for _ in 0..rounds {
        let direct = direct(model, python, rows, seconds);
        cost.direct.push(direct);
        let calls = (direct * seconds / rows as f64).ceil() as usize;
        cost.through.push(through(model, rows, calls.max(4) * rows).await);
    }
    cost
}

fn threads() -> String {
    thread::available_parallelism().map_or(1, usize::from).to_string()
}

fn direct(model: &Model, python: &Path, rows: usize, seconds: f64) -> f64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/real/direct.py");
    let mut command = Command::new(python);
    command.arg(script).args([model.folder.join("model.onnx"), model.folder.join("case.json")]);
    let output = command.args([rows.to_string(), seconds.to_string(), threads()]).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("rows a second")
}

/// Fills the queue with jobs of one row, then starts a worker. The results are read when it has ended, because a worker does not
/// read them.
async fn through(model: &Model, rows: usize, jobs: usize) -> f64 {
    let product = Product::start(model).await;
    let body = json!({"inputs": model.cases[0].first_row()});
    let mut ids = Vec::new();
    for _ in 0..jobs {
        let answer = product.proxy.client().post_json("/predict", &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.push(answer.json()["job_id"].as_str().expect("job_id is a string").to_owned());
    }
    let further = [
        ("BATCH_MAX_ROWS", rows.to_string()),
        ("BATCH_MAX_BYTES", (64 << 20).to_string()),
        ("NUM_WORKERS", "1".to_owned()),
        ("MAX_IN_FLIGHT", "2".to_owned()),
        ("ONNXRUNTIME_THREADS", threads()),
        ("INFERENCE_TIMEOUT_MS", "60000".to_owned()),
    ];
    let _worker = product.worker(model, Engine::OnnxRuntime, &further).await;
    product.drained().await;
    let (mut first, mut last) = (f64::INFINITY, 0.0_f64);
    for id in ids {
        let job = product.finished(&id).await;
        assert_eq!(job["status"], "completed", "{}", job["error"]);
        first = first.min(seconds(&job["started_at"]));
        last = last.max(seconds(&job["finished_at"]));
    }
    jobs as f64 / (last - first)
}

/// A time of a job, s.
fn seconds(time: &Value) -> f64 {
    let time = humantime::parse_rfc3339(time.as_str().unwrap_or_default()).expect("a time");
    time.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

impl Cost {
    /// Median over the rounds of the rate through Tepal over the direct one.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let mut ratios: Vec<_> =
            self.through.iter().zip(&self.direct).map(|(through, direct)| through / direct).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}
