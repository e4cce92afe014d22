//! Acceptance only when replicas hold the job: `REPLICAS_REQUIRED`.

use serde_json::json;
use tepal_tests::{http::Method, process::Proxy, redis::RedisServer, wait::eventually};

use crate::{
    expect::{Problem, assert_json, problem},
    gateway::{FLOWER, Gateway, JSON, SOON},
};

/// With little patience, for replicas that never answer.
const ONE_REPLICA: [(&str, &str); 2] = [("REPLICAS_REQUIRED", "1"), ("REPLICATION_TIMEOUT_MS", "300")];
/// With much, for one that is there.
const PATIENT: [(&str, &str); 2] = [("REPLICAS_REQUIRED", "1"), ("REPLICATION_TIMEOUT_MS", "20000")];
const DETAIL: &str =
    "The job was not replicated in time; with an Idempotency-Key it can be sent again without a duplicate";

fn not_replicated() -> Problem {
    problem(503, "not_replicated", "Job not replicated").header("retry-after", "1")
}

async fn primary() -> RedisServer {
    // Replicas are not to wait for others that may join.
    RedisServer::shipped().config("repl-diskless-sync-delay 0").start().await
}

/// A replica that has caught up.
async fn replica_of(primary: &RedisServer) -> RedisServer {
    let replica = RedisServer::shipped().replica_of(primary).start().await;
    let online = async || primary.cli(&["INFO", "replication"]).contains("state=online");
    eventually(SOON, "the replica", online).await;
    replica
}

#[tokio::test]
async fn a_job_that_the_replica_holds_is_accepted() {
    let primary = primary().await;
    let replica = replica_of(&primary).await;
    let gateway = Gateway::on(primary, &PATIENT).await;
    let id = gateway.submit().await;
    let key = gateway.store.queue.keys().job(id);
    assert_eq!(replica.cli(&["HGET", &key, "status"]), "pending", "it was there before the answer");
}

#[tokio::test]
async fn many_jobs_share_their_confirmations() {
    let primary = primary().await;
    let _replica = replica_of(&primary).await;
    let gateway = Gateway::on(primary, &PATIENT).await;
    let client = gateway.proxy.client();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.post_raw("/predict", FLOWER).await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 202);
    }
    assert_eq!(gateway.log_length(), 50);
}

#[tokio::test]
async fn a_job_that_no_replica_confirms_is_not_acknowledged_but_may_run() {
    let primary = primary().await;
    let replica = replica_of(&primary).await;
    let gateway = Gateway::on(primary, &ONE_REPLICA).await;
    let other_proxy = Proxy::start(&gateway.redis.proxy_url(), &ONE_REPLICA).await;
    replica.sigstop();

    not_replicated().assert(&gateway.predict_once("order-1", FLOWER).await, "/predict", DETAIL);

    assert_eq!(gateway.log_length(), 1, "the primary has it");
    // A repetition finds the job, and does not confirm either what is not confirmed: not even through a proxy that wrote
    // nothing itself.
    not_replicated().assert(&gateway.predict_once("order-1", FLOWER).await, "/predict", DETAIL);
    let headers = [JSON, ("idempotency-key", "order-1"), ("x-request-id", "r-1")];
    let repeated = other_proxy.client().request(Method::POST, "/predict", &headers, FLOWER).await;
    not_replicated().assert(&repeated, "/predict", DETAIL);
    let running = gateway.take_one().await.job_id;

    replica.sigcont();
    let repeated = async || {
        let answer = gateway.predict_once("order-1", FLOWER).await;
        if answer.status == 202 { Ok(answer) } else { Err(answer.text()) }
    };
    let answer = eventually(SOON, "the confirmation", repeated).await;
    let body = json!({"job_id": running.to_string(), "status": "processing"});
    assert_json(&answer, 202, &[("location", &format!("/job/{running}"))], &body);
    assert_eq!(gateway.log_length(), 1);
}

#[tokio::test]
async fn a_retry_is_confirmed_too() {
    let gateway = Gateway::on(primary().await, &ONE_REPLICA).await;
    let path = format!("/job/{}/retry", gateway.failed().await);
    not_replicated().assert(&gateway.post(&path).await, &path, DETAIL);
    let _replica = replica_of(&gateway.redis).await;
    let confirmed = async || gateway.post(&path).await.status == 202;
    eventually(SOON, "a confirmed retry", confirmed).await;
}

#[tokio::test]
async fn a_refusal_needs_no_replica() {
    let mut settings = ONE_REPLICA.to_vec();
    settings.push(("MAX_QUEUE_DEPTH", "1"));
    let gateway = Gateway::on(primary().await, &settings).await;
    not_replicated().assert(&gateway.predict_once("order-1", FLOWER).await, "/predict", DETAIL);

    let full = problem(503, "queue_full", "Queue full").header("retry-after", "5");
    full.assert(&gateway.predict(FLOWER).await, "/predict", "The queue is full; try again later");
    let other = r#"{"data": [[6.1, 3.5, 1.4, 0.2]]}"#;
    assert_eq!(gateway.predict_once("order-1", other).await.json()["code"], "idempotency_conflict");
    let path = format!("/job/{}/retry", tepal_shared::job::JobId::new(0));
    assert_eq!(gateway.post(&path).await.status, 404);
}

#[tokio::test]
async fn the_primary_is_enough_unless_more_is_asked_for() {
    let gateway = Gateway::on(primary().await, &[]).await;
    gateway.submit().await;
}
