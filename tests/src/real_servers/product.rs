//! Redis, a proxy and a worker in front of a real server.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{Kind, Server};
use crate::http::{Client, is_terminal};
use crate::process::{Proxy, Worker};
use crate::redis::RedisServer;
use crate::wait::{eventually, poll};

/// A server imports gigabytes.
const WITHIN: Duration = Duration::from_secs(240);
/// The models that each server has, the default one first. `strict` is `pair` under another name.
const MODELS: [&str; 6] = ["iris", "texts", "pair", "wide", "slow", "strict"];
const CSV: &str = include_str!("../../../compose/models/iris/iris.csv");
const LABELS: &str = "labels = [\"setosa\", \"versicolor\", \"virginica\"]";

/// The whole product.
pub(super) struct Product {
    proxy: Proxy,
    worker: Worker,
    _redis: RedisServer,
    _models: TempDir,
}

impl Product {
    /// Starts all of it, and waits until the server has described the models.
    pub(super) async fn start(server: &Server) -> Self {
        let models = tempfile::tempdir().expect("a folder for models");
        describe(server.kind, models.path());
        let (folder, port, names) =
            (models.path().display().to_string(), server.port.to_string(), MODELS.join(","));
        let models_dir = [("MODELS_DIR", folder.as_str()), ("MODEL_NAME", MODELS[0])];
        let served = [
            ("MODEL_BACKEND", "open_inference"),
            ("OPEN_INFERENCE_GRPC_PORT", &port),
            ("MODELS", &names),
            ("RETRY_BASE_MS", "50"),
            ("BATCH_MAX_ROWS", "1024"),
            ("BATCH_MAX_BYTES", "67108864"),
            ("NUM_WORKERS", "4"),
        ];
        let redis = RedisServer::shipped().config("maxmemory 0").start().await;
        let proxy = Proxy::start(&redis.proxy_url(), &models_dir).await;
        let worker = Worker::start(&redis.worker_url(), &[&models_dir[..], &served].concat()).await;
        let product = Self { proxy, worker, _redis: redis, _models: models };
        for name in MODELS {
            product.served(name, server).await;
        }
        product
    }

    /// Waits until the worker serves the model.
    async fn served(&self, name: &str, server: &Server) {
        let look = async || {
            let answer = self.client().get(&format!("/models/{name}")).await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        };
        if let Err(gave_up) = poll(WITHIN, look).await {
            panic!("{name}: {gave_up}\n{}\n{}", server.tail(), self.worker.logs().tail(20));
        }
    }

    pub(super) fn client(&self) -> Client {
        self.proxy.client()
    }

    /// Submits rows of a model.
    pub(super) async fn submit(&self, model: &str, rows: &Value) -> String {
        let answer = self.client().post_json("/predict", &json!({"model": model, "data": rows})).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["job_id"].as_str().expect("an id").to_owned()
    }

    /// Submits a job for each of these rows.
    pub(super) async fn submit_each(
        &self,
        model: &str,
        rows: impl IntoIterator<Item = Value>,
    ) -> Vec<String> {
        let mut ids = Vec::new();
        for row in rows {
            ids.push(self.submit(model, &json!([row])).await);
        }
        ids
    }

    /// The same while the worker is frozen, so that the jobs share calls.
    pub(super) async fn submit_together(
        &self,
        model: &str,
        jobs: impl IntoIterator<Item = Value>,
    ) -> Vec<String> {
        self.worker.sigstop();
        let mut ids = Vec::new();
        for rows in jobs {
            ids.push(self.submit(model, &rows).await);
        }
        self.worker.sigcont();
        ids
    }

    /// Waits until a job has ended.
    pub(super) async fn ended(&self, id: &str) -> Value {
        eventually(WITHIN, "the job's end", async || {
            let job = self.client().job(id).await;
            if is_terminal(&job) { Ok(job) } else { Err(job.to_string()) }
        })
        .await
    }

    /// Waits until all jobs have completed with their first attempt. Returns their results.
    pub(super) async fn completed(&self, ids: &[String]) -> Result<Vec<Value>, String> {
        let mut results = Vec::new();
        for id in ids {
            let job = self.ended(id).await;
            if job["status"] != "completed" || job["attempts"] != 1 {
                return Err(job.to_string());
            }
            results.push(job["result"].clone());
        }
        Ok(results)
    }

    /// How often the log has these words.
    pub(super) fn logged(&self, words: &str) -> usize {
        self.worker.logs().lines().iter().filter(|line| line.contains(words)).count()
    }

    /// Waits until the worker logs these words again.
    pub(super) async fn logs(&self, words: &str, before: usize) {
        eventually(WITHIN, words, async || self.logged(words) > before).await;
    }
}

/// The rows of the 150 flowers.
pub(super) fn rows() -> Vec<Vec<f32>> {
    let row = |line: &str| line.split(',').take(4).map(|value| value.parse().expect("a number")).collect();
    CSV.lines().skip(1).map(row).collect()
}

/// Writes what the server does not say.
fn describe(kind: Kind, folder: &Path) {
    let write = |name: &str, text: &str| {
        std::fs::create_dir(folder.join(name)).expect("a folder of a model");
        std::fs::write(folder.join(name).join("model.toml"), text).expect("a description");
    };
    let output = |name: &str, datatype: &str, shape: &str, more: &str| {
        format!("[[outputs]]\nname = \"{name}\"\ndatatype = \"{datatype}\"\nshape = {shape}\n{more}\n")
    };
    let single = if kind == Kind::KServe { "[]" } else { "[1]" };
    let size = if kind == Kind::MlServer { "max_batch = 256\n" } else { "" };
    let flowers = [output("output", "FP32", "[3]", LABELS), output("label", "BYTES", single, "")];
    write("iris", &format!("{size}sample = [[5.1, 3.5, 1.4, 0.2]]\n{}", flowers.concat()));
    let whole = |columns: &str, max_batch: usize, sample: &str, served: &str| {
        let input = format!("inputs = [{{ name = \"x\", datatype = \"FP32\", shape = [{columns}] }}]");
        let output = output("y", "FP32", single, "");
        format!("max_batch = {max_batch}\n{sample}\n{input}\n{output}{served}")
    };
    // Only here, any number of columns is allowed.
    write("strict", &whole("-1", 64, "sample = [[1, 2]]", "[serving]\nserved_name = \"pair\"\n"));
    if kind == Kind::KServe {
        write("pair", &whole("2", 64, "", ""));
        write("wide", &whole("4096", 1024, "", ""));
        write("slow", &whole("1", 64, "", ""));
    }
}
