//! The target: Redis as it is shipped, a proxy with the composition's settings, a worker with the in-process model, and enough
//! jobs to read.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::field::Seeds;
use super::held::Held;
use super::usage::Watched;
use crate::http::Client;
use crate::ports::free_port;
use crate::process::{Proxy, Sink, Worker};
use crate::redis::RedisServer;
use crate::wait::eventually;

/// Jobs with a result of 100 KB. A lookup of all would take 8 MiB.
const LARGE_JOBS: usize = 80;
const ROWS: usize = 1024;
/// Jobs of one batch.
const BATCH: usize = 1000;
/// The limits of clients that the composition sets.
const COMPOSITION: [(&str, &str); 3] =
    [("RATE_LIMIT_PER_MINUTE", "100"), ("MAX_CONNECTIONS", "3000"), ("GRPC_MAX_CONNECTIONS", "200")];
const SEEDED_WITHIN: std::time::Duration = std::time::Duration::from_secs(120);

/// The running services.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) redis: RedisServer,
    pub(super) proxy: Proxy,
    grpc: SocketAddr,
    pub(super) worker: Worker,
    pub(super) held: Held,
    pub(super) seeds: Seeds,
}

impl Stack {
    /// Starts everything, with this many small jobs for a listing to scan. `settings` of the proxy replace the composition's.
    pub(super) async fn start(small_jobs: usize, settings: &[(&str, String)]) -> Self {
        let redis = RedisServer::shipped().start().await;
        let models = link_models(redis.dir()).display().to_string();
        // Another proxy without a limit fills the queue, and is gone before the attack.
        let filler =
            Proxy::start(&redis.proxy_url(), &[("LOG_LEVEL", "warn"), ("MODELS_DIR", &models)]).await;
        let client = filler.client();
        let held = Held::submit(&redis, &client, large_job("low")).await;
        let worker =
            Worker::start(&redis.worker_url(), &[("LOG_LEVEL", "info"), ("MODELS_DIR", &models)]).await;
        let large = seed_large(&client).await;
        let small = seed_small(&client, small_jobs).await;
        let outstanding = || async { redis.cli(&["XLEN", "{predict_queue:0}:stream:iris:normal"]) == "0" };
        eventually(SEEDED_WITHIN, "the seeded jobs to end", outstanding).await;
        drop(filler);

        let limited = COMPOSITION.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let limited: Vec<_> = limited.chain([("LOG_LEVEL", "info".to_owned())]).collect();
        let grpc = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let port = [("GRPC_LISTEN_ADDR", grpc.to_string()), ("MODELS_DIR", models)];
        let limited: Vec<_> = limited.into_iter().chain(port).collect();
        let env: Vec<(&str, &str)> =
            limited.iter().chain(settings).map(|(name, value)| (*name, value.as_str())).collect();
        let proxy = Proxy::start_writing_to(Sink::Nothing, &redis.proxy_url(), &env).await;
        let seeds = Seeds { small, large, held: held.id.clone() };
        Self { redis, proxy, grpc, worker, held, seeds }
    }

    pub(super) fn target(&self) -> SocketAddr {
        self.proxy.addr().parse().expect("an address")
    }

    /// The port for gRPC.
    pub(super) fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// The processes, beside those of the clients. `threads`: of a multi-threaded one.
    pub(super) fn processes(&self, threads: usize) -> [Watched; 3] {
        let of = |pid, threads| Watched { pid, threads };
        [of(self.proxy.pid(), threads), of(self.redis.pid(), 1), of(self.worker.pid(), threads)]
    }
}

/// A folder with the composition's models, and one that takes texts.
fn link_models(dir: &Path) -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the project");
    let models = dir.join("models");
    std::fs::create_dir(&models).expect("a folder of models");
    for model in ["compose/models/iris", "compose/models/language", "tests/chaos-models/wide"] {
        let model = project.join(model);
        let name = model.file_name().expect("the name of a model");
        symlink(&model, models.join(name)).expect("a link to a model");
    }
    models
}

/// A body with as many rows as a job may have.
fn large_job(priority: &str) -> String {
    let row = json!([5.1, 3.5, 1.4, 0.2]);
    json!({ "data": vec![row; ROWS], "priority": priority }).to_string()
}

async fn seed_large(client: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..LARGE_JOBS {
        let answer = client.post_raw("/predict", large_job("normal")).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.push(id(&answer.json()));
    }
    ids
}

/// Returns the ids of the last batch.
async fn seed_small(client: &Client, count: usize) -> Vec<String> {
    let batch = json!(vec![json!({"data": [[5.1, 3.5, 1.4, 0.2]]}); BATCH]);
    let mut ids = Vec::new();
    for _ in 0..count.div_ceil(BATCH) {
        let answer = client.post_json("/predict/batch", &batch).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids = answer.json()["jobs"].as_array().expect("jobs").iter().map(id).collect();
    }
    ids
}

fn id(job: &Value) -> String {
    job["job_id"].as_str().expect("an accepted job has an id").to_owned()
}

#[cfg(test)]
mod tests {
    use super::COMPOSITION;

    #[test]
    fn the_limits_are_those_of_the_composition() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/compose.yaml");
        let composition = std::fs::read_to_string(path).unwrap();
        for (name, value) in COMPOSITION {
            assert!(composition.contains(&format!("{name}: ${{{name}:-{value}}}")), "{name}");
        }
    }
}
