//! A whole Tepal under load: Redis, two proxies, a worker with the in-process model and one with a model server.

use std::time::Duration;

use serde_json::json;
use tepal_tests::http::Client;
use tepal_tests::model_server::{ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tokio::task::AbortHandle;

/// Between two requests of the load.
const PACE: Duration = Duration::from_millis(20);

/// Everything, stopped when dropped.
pub(crate) struct Stack {
    pub(crate) redis: RedisServer,
    pub(crate) proxies: [Proxy; 2],
    pub(crate) workers: [Worker; 2],
    pub(crate) model_server: ModelServer,
    load: AbortHandle,
}

impl Stack {
    /// Starts everything and the load.
    pub(crate) async fn start() -> Self {
        let redis = RedisServer::shipped().start().await;
        let model_server = ModelServer::start(ServerSpec::iris()).await;
        let port = model_server.addr().port().to_string();
        let serving = [("MODEL_BACKEND", "tensorflow_serving"), ("TF_SERVING_GRPC_PORT", &port)];
        let (proxy, worker) = (redis.proxy_url(), redis.worker_url());
        let proxies = [Proxy::start(&proxy, &[]).await, Proxy::start(&proxy, &[]).await];
        let workers = [Worker::start(&worker, &[]).await, Worker::start(&worker, &serving).await];
        let clients = [proxies[0].client(), proxies[1].client()];
        let load = tokio::spawn(async move {
            loop {
                for client in &clients {
                    one_round(client).await;
                }
            }
        });
        Self { redis, proxies, workers, model_server, load: load.abort_handle() }
    }

    /// Ends the load.
    pub(crate) fn rest(&self) {
        self.load.abort();
    }

    /// The targets of Prometheus: the job and the address of each service.
    pub(crate) fn targets(&self) -> Vec<(&'static str, String)> {
        let proxies = self.proxies.iter().map(|proxy| ("tepal-proxy", proxy.addr().to_owned()));
        let workers = self.workers.iter().map(|worker| ("tepal-worker", worker.metrics_addr().to_owned()));
        proxies.chain(workers).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Sends some of each kind of request. Failures appear in the metrics, which the tests check.
async fn one_round(client: &Client) {
    for priority in ["high", "normal", "low"] {
        let body = json!({ "data": [[5.1, 3.5, 1.4, 0.2]], "priority": priority });
        let job = client.post_json("/predict", &body).await.json();
        let id = job["job_id"].as_str().unwrap_or_default().to_owned();
        client.get(&format!("/job/{id}")).await;
        client.delete(&format!("/job/{id}")).await;
        tokio::time::sleep(PACE).await;
    }
    client.post_json("/predict", &json!({ "data": [[5.1, 3.5, 1.4, 99.0]] })).await;
    client.get("/nowhere").await;
    client.post_json("/predict", &json!({ "data": [[6.1, 2.5, 1.4, 0.2], [5.0, 3.0, 2.0, 1.0]] })).await;
}
