//! What survives the end of Redis as it is shipped: SIGTERM, `kill -9`, power loss, a full disk. `make test-topologies`
//! runs these tests on every server that is supported.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

mod acknowledged;
mod full_disk;
mod power_loss;

use std::time::Duration;

use serde_json::{Value, json};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;

use crate::acknowledged::same_jobs;

const SOON: Duration = Duration::from_secs(30);

fn row() -> Value {
    json!([[5.1, 3.5, 1.4, 0.2]])
}

/// Redis replays its append-only file as the default user. One without rights would drop every transaction in it.
#[tokio::test]
async fn all_jobs_survive_sigterm_and_kill_of_redis() {
    let redis = RedisServer::shipped().start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let client = proxy.client();
    let mut jobs = Vec::new();
    let worker = Worker::start(&redis.worker_url(), &[]).await;
    for _ in 0..10 {
        let id = client.predict(&row()).await;
        jobs.push(client.finished(&id, SOON).await);
    }
    worker.sigterm();
    worker.wait_exit(SOON).await;
    for _ in 0..10 {
        let id = client.predict(&row()).await;
        jobs.push(client.job(&id).await);
    }

    redis.stop().await;
    redis.restart().await;
    same_jobs(&client, &jobs).await;
    redis.kill9();
    redis.restart().await;
    same_jobs(&client, &jobs).await;

    assert_eq!(redis.log().matches("NOPERM").count(), 0, "{}", redis.log());
    let _worker = Worker::start(&redis.worker_url(), &[]).await;
    for job in &jobs {
        let id = job["job_id"].as_str().unwrap();
        assert_eq!(client.finished(id, SOON).await["status"], "completed");
    }
}
