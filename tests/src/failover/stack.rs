//! The services of a run: two proxies and two workers with the model in process.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::servers::Servers;
use super::{Kind, Options};
use crate::http::Client;
use crate::process::{Proxy, Worker};
use crate::redis::RedisServer;

/// Longer than a proxy waits for Redis.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// The most ids of a lookup.
const LOOKUP: usize = 1000;

#[derive(Debug)]
pub(super) struct Stack {
    pub(super) proxies: Vec<Proxy>,
    pub(super) workers: Vec<Worker>,
}

/// What a lookup found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) jobs: Vec<Value>,
    pub(super) not_found: Vec<String>,
}

impl Stack {
    pub(super) async fn start(options: &Options, servers: &Servers) -> Self {
        let replicas = options.replicas_required.to_string();
        let partitions = if options.kind == Kind::Cluster { "6" } else { "1" };
        let common = [("PARTITIONS", partitions), ("LEASE_MS", "3000")];
        let of_proxy = [&common[..], &[("REPLICAS_REQUIRED", &replicas)]].concat();
        let (mut proxies, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            workers.push(Worker::start(&servers.url_with(RedisServer::worker_url_at), &common).await);
            proxies.push(Proxy::start(&servers.url_with(RedisServer::proxy_url_at), &of_proxy).await);
        }
        Self { proxies, workers }
    }

    /// A client of one of the proxies.
    pub(super) fn client(&self, number: usize) -> Client {
        self.proxies[number % self.proxies.len()].client().with_timeout(CLIENT_PATIENCE)
    }

    /// Reads jobs through one of the proxies; those that cannot be read now are in neither list.
    pub(super) async fn look_up(&self, number: usize, ids: &[String]) -> Looked {
        let client = self.client(number);
        let mut looked = Looked::default();
        for some in ids.chunks(LOOKUP) {
            let body = json!({ "job_ids": some }).to_string();
            let header = [("content-type", "application/json")];
            let answer = client.try_request(crate::http::Method::POST, "/jobs/lookup", &header, body).await;
            let Some(answer) = answer.ok().filter(|answer| answer.status == 200) else { continue };
            let mut answer = answer.json();
            looked.jobs.extend(answer["jobs"].as_array_mut().map(std::mem::take).unwrap_or_default());
            let gone = answer["not_found"].as_array().into_iter().flatten();
            looked.not_found.extend(gone.filter_map(Value::as_str).map(str::to_owned));
        }
        looked
    }

    /// The lost jobs that each proxy has reported since its start, then each worker.
    pub(super) async fn reported(&self) -> (Vec<u64>, Vec<u64>) {
        let name = "tepal_jobs_lost_total";
        let (mut by_proxies, mut by_workers) = (Vec::new(), Vec::new());
        for proxy in &self.proxies {
            by_proxies.push(proxy.client().get("/metrics").await.metric(name) as u64);
        }
        for worker in &self.workers {
            by_workers.push(worker.metrics().await.metric(name) as u64);
        }
        (by_proxies, by_workers)
    }

    /// The `redis_data_lost` lines of all services.
    pub(super) fn loss_lines(&self) -> Vec<String> {
        let logs = self.proxies.iter().map(|proxy| proxy.logs()).chain(self.workers.iter().map(|w| w.logs()));
        let lines = logs.flat_map(|logs| logs.lines());
        lines.filter(|line| line.contains(r#""redis_data_lost""#)).collect()
    }

    pub(super) fn write_logs(&self, dir: &Path) {
        for (number, proxy) in self.proxies.iter().enumerate() {
            let _ = std::fs::write(dir.join(format!("proxy-{number}.log")), proxy.logs().lines().join("\n"));
        }
        for (number, worker) in self.workers.iter().enumerate() {
            let _ =
                std::fs::write(dir.join(format!("worker-{number}.log")), worker.logs().lines().join("\n"));
        }
    }
}
