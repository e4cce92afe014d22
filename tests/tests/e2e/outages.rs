//! Parts that stop and come back. No other part is restarted: accepted jobs complete without help.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use tepal_tests::model_server::{ModelServer, ServerSpec};
use tepal_tests::ports::free_port;
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::run::{Run, toy_proxy, toy_worker};
use crate::{SOON, health, healthy};

#[tokio::test]
async fn redis_killed_and_restarted_under_traffic_loses_no_accepted_job() {
    let redis = RedisServer::shipped().start().await;
    let proxy = toy_proxy(&redis.proxy_url()).await;
    let workers = [toy_worker(&redis.worker_url(), &[]).await, toy_worker(&redis.worker_url(), &[]).await];
    healthy(&proxy.client()).await;
    let run = Run::new(proxy.client());

    let traffic = run.traffic(4);
    run.more_accepted(100).await;
    redis.kill9();
    run.note_fault("kill -9 redis");
    run.more_refused(8).await;
    redis.restart().await;
    run.more_accepted(100).await;
    traffic.stop().await;
    run.all_completed().await;

    healthy(&proxy.client()).await;
    assert!(workers.iter().all(|worker| worker.is_running()) && proxy.is_running());
    let verdict = run.verdict(&redis, &[&workers[0], &workers[1]], Vec::new()).await;
    verdict.assert_holds();
    assert_eq!((verdict.all.accepted, verdict.all.lost, verdict.all.doubled), (verdict.all.completed, 0, 0));
}

#[tokio::test]
async fn the_services_start_before_redis_and_wait_for_it() {
    let redis = RedisServer::shipped().start().await;
    redis.kill9();
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let _worker = Worker::start(&redis.worker_url(), &[]).await;
    let client = proxy.client();

    assert_eq!(health(&client, 503).await, json!({"redis": "down"}));
    let refused = client.post_json("/predict", &json!({"data": [[5.1, 3.5, 1.4, 0.2]]})).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["detail"], "Service temporarily unavailable");
    assert!(refused.header("retry-after").is_some());
    redis.restart().await;

    healthy(&client).await;
    let id = client.predict(&json!([[5.1, 3.5, 1.4, 0.2]])).await;
    assert_eq!(client.finished(&id, SOON).await["result"]["class_name"], "setosa");
}

#[tokio::test]
async fn a_job_waits_for_the_model_server_and_completes_when_it_is_back() {
    wait_for_server("tensorflow_serving", "TF_SERVING_GRPC_PORT").await;
}

#[tokio::test]
async fn a_job_waits_for_a_server_of_the_open_inference_protocol_and_completes_when_it_is_back() {
    wait_for_server("open_inference", "OPEN_INFERENCE_GRPC_PORT").await;
}

async fn wait_for_server(backend: &str, setting: &str) {
    let redis = RedisServer::shipped().start().await;
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let port = addr.port().to_string();
    let settings = [("MODEL_BACKEND", backend), (setting, port.as_str())];
    let _worker = Worker::start(&redis.worker_url(), &settings).await;
    let client = proxy.client();
    healthy(&client).await;

    server.stop().await;
    let id = client.predict(&json!([[5.1, 3.5, 1.4, 0.2]])).await;
    let components = health(&client, 503).await;
    assert_eq!(components, json!({"redis": "ok", backend: "down"}));
    // The job waits, whether it was tried or not.
    let waits = async || is_waiting(&client.job(&id).await);
    eventually(SOON, "the job to wait", waits).await;

    let _server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let job = client.finished(&id, SOON).await;
    assert_eq!((&job["status"], &job["result"]["class_name"]), (&json!("completed"), &json!("setosa")));
    // Jobs were released, so the outage used no attempt.
    assert_eq!(job["attempts"], 1);
    healthy(&client).await;
}

#[tokio::test]
async fn a_proxy_killed_and_restarted_under_traffic_loses_no_accepted_job() {
    let redis = RedisServer::shipped().start().await;
    let proxy = toy_proxy(&redis.proxy_url()).await;
    let worker = toy_worker(&redis.worker_url(), &[]).await;
    healthy(&proxy.client()).await;
    let run = Run::new(proxy.client());

    let traffic = run.traffic(4);
    run.more_accepted(50).await;
    proxy.kill9();
    run.note_fault("kill -9 proxy");
    run.more_refused(8).await;
    proxy.restart().await;
    run.more_accepted(50).await;
    traffic.stop().await;
    run.all_completed().await;

    let verdict = run.verdict(&redis, &[&worker], Vec::new()).await;
    verdict.assert_holds();
    assert_eq!((verdict.all.accepted, verdict.lost_leases), (verdict.all.completed, 0));
}

fn is_waiting(job: &Value) -> Result<(), String> {
    if job["status"] == "pending" { Ok(()) } else { Err(job.to_string()) }
}
