//! Redis comes back without its data: nothing can be brought back, but it must be seen.

use serde_json::json;
use tepal_tests::{redis::RedisServer, wait::eventually};

use crate::gateway::{Gateway, SOON};

const HEALTHY: &str = r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"}}"#;

async fn healthy(gateway: &Gateway) {
    gateway.heartbeat("w1", "onnx", true, None);
    gateway.health_is(200, HEALTHY).await;
}

async fn losses(gateway: &Gateway) -> f64 {
    gateway.get("/metrics").await.metric("tepal_data_loss_total")
}

/// Waits until the loss shows in /health beside the specified body, and in the metric.
async fn shows(gateway: &Gateway, times: f64) {
    gateway.heartbeat("w1", "onnx", true, None);
    let counted = async || losses(gateway).await >= times;
    eventually(SOON, "the loss to be counted", counted).await;
    assert!((losses(gateway).await - times).abs() < f64::EPSILON);

    let warned = async || {
        let answer = gateway.get("/health").await;
        let body = answer.json();
        if answer.status == 200 && body["warnings"].is_array() { Ok(body) } else { Err(answer.text()) }
    };
    let body = eventually(SOON, "the warning", warned).await;
    let detail = body["warnings"][0]["detail"].as_str().unwrap_or_default().to_owned();
    let expected = json!({
        "status": "healthy",
        "components": {"redis": "ok", "onnx": "ok"},
        "warnings": [{"code": "redis_data_lost", "detail": detail}],
    });
    assert_eq!(body, expected);
    let time = detail.strip_prefix("Redis lost its data, noticed at ").and_then(|rest| rest.split_once(';'));
    let (time, rest) = time.unwrap_or_else(|| panic!("{detail}"));
    assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    assert_eq!(rest, " jobs that were accepted before are gone");
}

#[tokio::test]
async fn everything_is_flushed() {
    let gateway = Gateway::start().await;
    healthy(&gateway).await;
    let lost = gateway.submit().await;

    gateway.redis.cli(&["FLUSHALL"]);
    shows(&gateway, 1.0).await;

    assert_eq!(gateway.get(&format!("/job/{lost}")).await.status, 404);
    gateway.proxy.wait_for_log("redis_data_lost", SOON).await;
    let new = gateway.submit().await;
    assert_eq!(gateway.take_one().await.job_id, new, "the service goes on");

    gateway.redis.cli(&["FLUSHALL"]);
    shows(&gateway, 2.0).await;
}

#[tokio::test]
async fn a_new_empty_redis_takes_the_old_ones_place() {
    let gateway = Gateway::start().await;
    healthy(&gateway).await;
    gateway.submit().await;

    gateway.redis.kill9();
    std::fs::remove_dir_all(gateway.redis.dir().join("appendonlydir")).unwrap();
    gateway.redis.restart().await;

    shows(&gateway, 1.0).await;
    gateway.submit().await;
}

#[tokio::test]
async fn a_loss_is_still_told_while_redis_is_away() {
    let gateway = Gateway::start().await;
    healthy(&gateway).await;
    gateway.redis.cli(&["FLUSHALL"]);
    shows(&gateway, 1.0).await;

    gateway.redis.kill9();
    let missed = async || gateway.get("/metrics").await.metric("tepal_redis_up") < 0.5;
    eventually(SOON, "Redis to be missed", missed).await;
    let health = gateway.get("/health").await.json();
    assert_eq!(health["components"], json!({"redis": "down"}));
    assert_eq!(health["warnings"][0]["code"], "redis_data_lost");
}

#[tokio::test]
async fn a_restart_that_keeps_the_data_is_no_loss() {
    let gateway = Gateway::on(RedisServer::shipped().start().await, &[]).await;
    healthy(&gateway).await;
    let id = gateway.submit().await;
    for _ in 0..2 {
        gateway.redis.kill9();
        gateway.health_is(503, r#"{"status":"unhealthy","components":{"redis":"down"}}"#).await;
        gateway.redis.restart().await;
        healthy(&gateway).await;
    }
    assert!(losses(&gateway).await < f64::EPSILON);
    assert_eq!(gateway.get(&format!("/job/{id}")).await.json()["status"], "pending");
}
