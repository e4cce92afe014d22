//! `/health` in every state, and `/livez` and `/readyz`.

use serde_json::json;
use tepal_tests::{http::Method, redis::RedisServer, wait::eventually};

use crate::{
    expect::{UNAVAILABLE, assert_text, unavailable},
    gateway::{FLOWER, Gateway, SOON},
};

const HEALTHY: &str = r#"{"status":"healthy","components":{"redis":"ok","tensorflow_serving":"ok"}}"#;
const BACKEND_DOWN: &str =
    r#"{"status":"unhealthy","components":{"redis":"ok","tensorflow_serving":"down"}}"#;
const NO_WORKER: &str = r#"{"status":"unhealthy","components":{"redis":"ok","worker":"down"}}"#;
const READ_ONLY: &str =
    r#"{"status":"unhealthy","components":{"redis":"read_only","tensorflow_serving":"ok"}}"#;
const FULL: &str = r#"{"status":"unhealthy","components":{"redis":"full","tensorflow_serving":"ok"}}"#;
const REDIS_DOWN: &str = r#"{"status":"unhealthy","components":{"redis":"down"}}"#;

#[tokio::test]
async fn everything_works() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
    assert_text(&gateway.get("/health").await, 200, "application/json", HEALTHY);
}

#[tokio::test]
async fn an_answer_has_a_tag_and_304_where_the_contract_says_so_and_nowhere_else() {
    let gateway = Gateway::start().await;
    let metadata = json!({"model_spec": {}, "metadata": {}});
    gateway.heartbeat("w1", "tensorflow_serving", true, Some(metadata));
    gateway.health_is(200, HEALTHY).await;
    let job = gateway.completed().await.to_string();
    let contract = gateway.get("/openapi.json").await.json();
    let mut tagged = Vec::new();
    for (path, item) in contract["paths"].as_object().unwrap() {
        let Some(operation) = item.get("get") else { continue };
        // No model is ready, and none has a label.
        if path.starts_with("/v2/models/") && path.ends_with("/ready") || path.contains("{label}") {
            continue;
        }
        let parameters = operation["parameters"].as_array();
        let takes_tag =
            parameters.into_iter().flatten().any(|parameter| parameter["name"] == "If-None-Match");
        let described = &operation["responses"];
        let names_tag = described["200"]["headers"]["ETag"].is_object();
        let target = path.replace("{id}", &job).replace("{name}", "iris").replace("{version}", "1");
        let answer = gateway.get(&target).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let has_tag = answer.header("etag").is_some();
        assert_eq!((takes_tag, names_tag), (has_tag, has_tag), "{path}");
        assert_eq!(described["304"].is_object(), has_tag, "{path}");
        let again = gateway.send(Method::GET, &target, &[("if-none-match", "*")], "").await;
        assert_eq!((again.status, again.body.is_empty()), if has_tag { (304, true) } else { (200, false) });
        if has_tag {
            tagged.push(path.as_str());
        }
    }
    let expected = [
        "/docs",
        "/health",
        "/job/{id}",
        "/livez",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
    ];
    tagged.sort_unstable();
    assert_eq!(tagged, expected);
}

#[tokio::test]
async fn no_worker_lives() {
    let gateway = Gateway::start().await;
    gateway.health_is(503, NO_WORKER).await;
    assert_text(&gateway.get("/health").await, 503, "application/json", NO_WORKER);

    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
    gateway.store.work.farewell("w1").await.unwrap();
    gateway.health_is(503, NO_WORKER).await;
}

#[tokio::test]
async fn a_worker_that_has_fallen_silent_is_dead() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;

    // As if its last heartbeat was long ago: "<when> <state>".
    let workers = gateway.store.queue.keys().workers();
    let record = gateway.redis.cli(&["HGET", &workers, "w1"]);
    let state = record.split_once(' ').unwrap().1;
    gateway.redis.cli(&["HSET", &workers, "w1", &format!("1700000000000 {state}")]);
    gateway.health_is(503, NO_WORKER).await;
}

#[tokio::test]
async fn the_model_server_is_down() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", false, None);
    gateway.health_is(503, BACKEND_DOWN).await;
    assert_text(&gateway.get("/health").await, 503, "application/json", BACKEND_DOWN);

    // One worker that can call it is enough.
    gateway.heartbeat("w2", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
}

#[tokio::test]
async fn each_backend_is_a_component() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", false, None);
    gateway.heartbeat("w2", "onnx", true, None);
    let body =
        r#"{"status":"unhealthy","components":{"redis":"ok","onnx":"ok","tensorflow_serving":"down"}}"#;
    gateway.health_is(503, body).await;
}

#[tokio::test]
async fn a_worker_of_an_unknown_version_is_no_backend() {
    let gateway = Gateway::start().await;
    gateway.store.work.heartbeat("w1", r#"{"something": "else"}"#).await.unwrap();
    gateway.health_is(503, NO_WORKER).await;
}

#[tokio::test]
async fn redis_may_throw_jobs_away() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
    gateway.redis.cli(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]);
    let body = r#"{"status":"unhealthy","components":{"redis":"misconfigured","tensorflow_serving":"ok"}}"#;
    gateway.health_is(503, body).await;
    gateway.redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    gateway.health_is(200, HEALTHY).await;
}

#[tokio::test]
async fn redis_takes_no_changes() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    let id = gateway.submit().await;
    gateway.health_is(200, HEALTHY).await;

    gateway.redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    gateway.health_is(503, READ_ONLY).await;
    let line = gateway.proxy.wait_for_log("read_only", SOON).await;
    assert!(line.contains("health_changed") && line.contains("NOREPLICAS"), "{line}");
    // What is there can be read.
    assert_eq!(gateway.get(&format!("/job/{id}")).await.status, 200);
    assert_text(&gateway.get("/readyz").await, 200, "text/plain; charset=utf-8", "ok");

    gateway.redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    gateway.health_is(200, HEALTHY).await;
}

#[tokio::test]
async fn redis_is_down() {
    let gateway = Gateway::on(RedisServer::shipped().start().await, &[]).await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;

    gateway.redis.kill9();
    gateway.health_is(503, REDIS_DOWN).await;
    assert_text(&gateway.get("/health").await, 503, "application/json", REDIS_DOWN);
    unavailable().assert(&gateway.get("/readyz").await, "/readyz", UNAVAILABLE);
    assert_text(&gateway.get("/livez").await, 200, "text/plain; charset=utf-8", "ok");

    gateway.redis.restart().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
    assert_text(&gateway.get("/readyz").await, 200, "text/plain; charset=utf-8", "ok");
}

#[tokio::test]
async fn redis_is_a_replica() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
    let nobody = tepal_tests::ports::free_port().to_string();
    gateway.redis.cli(&["REPLICAOF", "127.0.0.1", &nobody]);

    gateway.health_is(503, REDIS_DOWN).await;
    // It stays so while requests and the proxy's own looks meet a Redis that answers.
    for _ in 0..2 {
        unavailable().assert(&gateway.predict(FLOWER).await, "/predict", UNAVAILABLE);
        assert_text(&gateway.get("/health").await, 503, "application/json", REDIS_DOWN);
        unavailable().assert(&gateway.get("/readyz").await, "/readyz", UNAVAILABLE);
    }
    let line = gateway.proxy.wait_for_log("redis_unreachable", SOON).await;
    assert!(line.contains("Redis is a read-only replica; wait until it is promoted"), "{line}");
    let connections = || {
        let lines = gateway.proxy.logs().lines();
        lines.iter().filter(|line| line.contains("redis_connected")).count()
    };
    assert_eq!(connections(), 1);

    gateway.redis.cli(&["REPLICAOF", "NO", "ONE"]);
    gateway.health_is(200, HEALTHY).await;
    assert_text(&gateway.get("/readyz").await, 200, "text/plain; charset=utf-8", "ok");
    gateway.submit().await;
    assert_eq!(connections(), 2);
}

#[tokio::test]
async fn redis_accepts_connections_but_does_not_answer() {
    let gateway = Gateway::start().await;
    gateway.health_is(503, NO_WORKER).await;
    gateway.redis.sigstop();
    gateway.health_is(503, REDIS_DOWN).await;
    gateway.redis.sigcont();
    gateway.health_is(503, NO_WORKER).await;
}

#[tokio::test]
async fn redis_is_full() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    let id = gateway.submit().await;
    gateway.health_is(200, HEALTHY).await;

    gateway.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    gateway.health_is(503, FULL).await;
    assert_eq!(gateway.predict(FLOWER).await.json()["code"], "redis_out_of_memory");
    let line = gateway.proxy.wait_for_log("full", SOON).await;
    assert!(line.contains("health_changed") && line.contains("at its memory limit"), "{line}");
    assert!(gateway.proxy.logs().find("probe_failed").is_none());
    // What is there can be read.
    assert_eq!(gateway.get(&format!("/job/{id}")).await.status, 200);
    assert_text(&gateway.get("/readyz").await, 200, "text/plain; charset=utf-8", "ok");

    gateway.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    gateway.health_is(200, HEALTHY).await;
    gateway.submit().await;
}

#[tokio::test]
async fn redis_has_room_for_a_small_job_only() {
    let gateway = Gateway::start().await;
    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.submit().await;
    gateway.health_is(200, HEALTHY).await;
    // A command counts as soon as Redis has read it.
    let used: usize = gateway.redis.info("used_memory").unwrap().parse().unwrap();
    let limit = used + (128 << 10);
    gateway.redis.cli(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    gateway.submit().await;

    let large = json!({"data": vec![[1.234_567_8; 4]; 1024]});
    let body = json!(vec![large; 16]).to_string();
    let json = [("content-type", "application/json")];
    let answer = gateway.send(Method::POST, "/predict/batch", &json, &body).await;
    assert_eq!(answer.json()["jobs"][15]["problem"]["code"], "redis_out_of_memory", "{}", answer.text());
    gateway.health_is(503, FULL).await;
    gateway.submit().await;
    gateway.health_is(200, HEALTHY).await;
}

#[tokio::test]
async fn a_redis_that_would_forget_its_jobs_is_named_at_the_start() {
    let forgetful = RedisServer::shipped().config("appendonly no").start().await;
    let forgetful = Gateway::on(forgetful, &[]).await;
    let line = forgetful.proxy.wait_for_log("redis_not_durable", SOON).await;
    assert!(line.contains(r#""level":"WARN""#) && line.contains("appendonly must be yes"), "{line}");

    let durable = Gateway::on(RedisServer::shipped().start().await, &[]).await;
    durable.is_ready().await;
    let is_seen = r#"tepal_redis_aof_ok{check="enabled"} 1"#;
    eventually(SOON, "the probe sees the file", || async {
        durable.get("/metrics").await.text().contains(is_seen)
    })
    .await;
    assert!(durable.proxy.logs().find("redis_not_durable").is_none());
    durable.redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
    durable.proxy.wait_for_log("redis_not_durable", SOON).await;
}
