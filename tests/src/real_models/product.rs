//! Runs a model through Redis, a proxy and a worker.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::case::{Case, Model, Tensor};
use crate::process::{Proxy, Service, Worker};
use crate::redis::RedisServer;
use crate::{onnxruntime, wait::eventually};

const WITHIN: Duration = Duration::from_secs(120);
/// How often the first case is run to measure its time.
const RUNS: usize = 20;

/// What runs the model in the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The default.
    Onnx,
    /// ONNX Runtime.
    OnnxRuntime,
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OnnxRuntime, Self::Onnx];

    pub(super) fn settings(self) -> [(&'static str, String); 2] {
        [
            ("MODEL_BACKEND", self.to_string()),
            (onnxruntime::SETTING, onnxruntime::library().display().to_string()),
        ]
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Onnx => "onnx",
            Self::OnnxRuntime => "onnxruntime",
        })
    }
}

/// How a model did with an engine.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All answers are right.
    Right {
        /// Number of jobs of different sizes.
        sizes: usize,
        /// The largest difference from onnxruntime.
        difference: f64,
        /// Time of a call with the first case.
        milliseconds: f64,
    },
    /// The built-in engine lacks an operator or a type; the text names it.
    Lacking(String),
    /// Anything else.
    Wrong(String),
}

/// Redis, a proxy and a worker that serve one model.
pub(super) struct Product {
    pub(super) redis: RedisServer,
    pub(super) proxy: Proxy,
}

impl Product {
    pub(super) async fn start(model: &Model) -> Self {
        // The inputs of a measurement are more than the composition's limit holds.
        let redis = RedisServer::shipped().config("maxmemory 0").start().await;
        let env = settings(model);
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let proxy = Proxy::start(&redis.proxy_url(), &env).await;
        Self { redis, proxy }
    }

    pub(super) async fn worker(
        &self,
        model: &Model,
        engine: Engine,
        further: &[(&'static str, String)],
    ) -> Worker {
        let env = [&settings(model)[..], &engine.settings(), further].concat();
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Worker::start(&self.redis.worker_url(), &env).await
    }

    pub(super) async fn submit(&self, case: &Case) -> String {
        self.proxy.client().predict(&Value::from(case.rows())).await
    }

    /// Waits until all jobs have ended.
    pub(super) async fn drained(&self) {
        eventually(WITHIN, "all jobs to end", async || {
            let listed = self.proxy.client().get("/models").await.json();
            let queue = &listed["models"][0]["queue"];
            if queue["waiting"] == 0 && queue["running"] == 0 { Ok(()) } else { Err(queue.to_string()) }
        })
        .await;
    }

    pub(super) async fn finished(&self, id: &str) -> Value {
        self.proxy.client().finished(id, WITHIN).await
    }
}

fn settings(model: &Model) -> Vec<(&'static str, String)> {
    let models = model.folder.parent().unwrap_or_else(|| Path::new("."));
    vec![
        ("MODELS_DIR", models.display().to_string()),
        ("MODEL_NAME", model.name.clone()),
        ("ONNXRUNTIME_THREADS", "1".to_owned()),
    ]
}

/// Runs all cases of a model in one queue, and measures the time of the first.
pub async fn run(model: &Model, engine: Engine) -> Outcome {
    describe(model);
    let product = Product::start(model).await;
    if let Err(why) = loads(model, engine, &product).await {
        let is_lacking = engine == Engine::Onnx && why.starts_with("WRONG  model");
        return if is_lacking { Outcome::Lacking(why) } else { Outcome::Wrong(why) };
    }
    let worker = product.worker(model, engine, &[]).await;
    let mut ids = Vec::new();
    for case in &model.cases {
        ids.push(product.submit(case).await);
    }
    let mut difference = 0.0_f64;
    for (case, id) in model.cases.iter().zip(ids) {
        let job = product.finished(&id).await;
        match case.difference(&job["result"]) {
            Ok(found) => difference = difference.max(found),
            Err(why) if job["status"] == "completed" => return Outcome::Wrong(why),
            Err(_) => return Outcome::Wrong(job["error"].to_string()),
        }
    }
    let milliseconds = time(&product, &worker, &model.cases[0]).await;
    Outcome::Right { sizes: model.cases.len(), difference, milliseconds }
}

/// Whether the worker can load the model, as its doctor says.
async fn loads(model: &Model, engine: Engine, product: &Product) -> Result<(), String> {
    let env =
        [&settings(model)[..], &engine.settings(), &[("REDIS_URL", product.redis.worker_url())]].concat();
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let doctor = Service::binary("tepal-worker").envs(&env).arg("doctor").start();
    doctor.wait_exit(WITHIN).await;
    let lines = doctor.logs().lines();
    match lines.iter().find(|line| line.starts_with("WRONG")) {
        Some(line) => Err(line.clone()),
        None => Ok(()),
    }
}

/// Mean time of a model call with this case alone.
async fn time(product: &Product, worker: &Worker, case: &Case) -> f64 {
    let before = calls(worker).await;
    for _ in 0..RUNS {
        let id = product.submit(case).await;
        product.finished(&id).await;
    }
    let after = eventually(WITHIN, "all calls to be counted", async || {
        let after = calls(worker).await;
        if after.0 >= before.0 + RUNS as f64 { Ok(after) } else { Err(after.0.to_string()) }
    })
    .await;
    1000.0 * (after.1 - before.1) / (after.0 - before.0)
}

/// Number of model calls and their time, s.
async fn calls(worker: &Worker) -> (f64, f64) {
    let metrics = worker.metrics().await;
    let of = |suffix: &str| {
        let name = format!("tepal_inference_seconds_{suffix}");
        let lines = metrics.text();
        let values =
            lines.lines().filter(|line| line.starts_with(&name)).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    };
    (of("count"), of("sum"))
}

/// Describes outputs that the file describes as maps. All else is derived from the file.
fn describe(model: &Model) {
    if !model.name.ends_with("-zipmap") {
        return;
    }
    let tables: Vec<_> = model.cases[0].outputs.iter().map(Tensor::table).collect();
    let text = format!("outputs = [{}]\n", tables.join(", "));
    std::fs::write(model.folder.join("model.toml"), text).expect("the folder of prepare.sh is writable");
}
