//! The commands that the doctor tries are those that the proxy and its scripts call, on the same kinds of keys.

use std::collections::BTreeSet;

use serde_json::json;
use tepal_shared::queue::{doctor::Service, keys::Keys};
use tepal_tests::{
    http::Method,
    process::Proxy,
    redis::{RedisServer, rights},
    wait::eventually,
};

use crate::gateway::{FLOWER, Gateway, JSON, SOON, accepted, model};

/// The doctor needs it, not the service.
const BY_THE_DOCTOR: &str = "PING";
/// `MONITOR` does not show it.
const NOT_SHOWN: &str = "ACL DRYRUN";
/// Called only in the middle of a recount, which a worker makes; on an empty queue; and for a model that nobody serves any more.
const RARE: [&str; 3] = ["HDEL $quota", "SET $format", "HSET $models"];
/// Of the connection itself: every user may do it, or does without it.
const CONNECTING: [&str; 3] = ["HELLO", "AUTH", "CLIENT SETINFO"];

/// The beginning of the keys of all models, from the key of one.
fn any_model(key: String) -> String {
    key.trim_end_matches(model().as_str()).to_owned()
}

/// The beginnings of a partition's keys and what they are.
fn kinds(keys: &Keys) -> Vec<(String, &'static str)> {
    let mut kinds = vec![
        (keys.job_prefix(0), "$job"),
        (keys.log_ahead(0), "$ahead"),
        (keys.input_prefix(0), "$input"),
        (keys.quota_prefix(0), "$quota"),
        (keys.log(0), "$log"),
        (any_model(keys.dead(0, model())), "$dead"),
        (any_model(keys.alone(0, model())), "$alone"),
        (keys.format(), "$format"),
        (keys.idempotency(0, ""), "$idem"),
        (keys.secret(), "$secret"),
        (keys.models(), "$models"),
        (keys.workers(), "$workers"),
        (keys.stream_prefix(0), "$stream"),
    ];
    // At the start, those of the partitions that the process does not use.
    kinds.extend((1..=u8::MAX).map(|partition| (keys.log(partition), "$log")));
    kinds
}

/// Everything that clients can make the proxy do.
async fn exercise(gateway: &Gateway) {
    gateway.heartbeat("w1", "onnx", true, None);
    for _ in 0..2 {
        assert_eq!(gateway.predict_once("key", FLOWER).await.status, 202);
    }
    let batch = format!("[{FLOWER}, {FLOWER}]");
    assert_eq!(gateway.send(Method::POST, "/predict/batch", &[JSON], &batch).await.status, 202);
    let cancelled = gateway.submit().await;
    assert_eq!(gateway.delete(&format!("/job/{cancelled}")).await.status, 200);
    assert_eq!(gateway.post(&format!("/job/{cancelled}/retry")).await.status, 202);
    let large = format!(r#"{{"data": [{}]}}"#, vec!["[5.1,3.5,1.4,0.2]"; 1000].join(","));
    let kept = accepted(&gateway.predict(&large).await);
    assert_eq!(gateway.predict(&large).await.status, 429);
    assert_eq!(gateway.delete(&format!("/job/{kept}")).await.status, 200);
    let running = gateway.submit().await;
    gateway.take(0).await;
    assert_eq!(gateway.delete(&format!("/job/{running}")).await.status, 200);
    let short = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "max_queue_seconds": 0.05}"#;
    let late = accepted(&gateway.predict(short).await);
    let failed = async || gateway.get(&format!("/job/{late}")).await.json()["status"] == "failed";
    eventually(SOON, "the job to miss its deadline", failed).await;
    let waiting = gateway.send(Method::POST, "/predict", &[JSON, ("prefer", "wait=1")], FLOWER).await;
    assert_eq!(waiting.status, 202);
    // As after a time when Redis's clock was far ahead.
    gateway.redis.cli(&["XSETID", &gateway.store.queue.keys().log(0), "9999999999999-0"]);
    gateway.submit().await;
    assert_eq!(gateway.get("/jobs?created_before=2100-01-01T00:00:00Z").await.status, 200);
    let ids = json!({ "job_ids": [late.to_string()] }).to_string();
    assert_eq!(gateway.send(Method::POST, "/jobs/lookup", &[JSON], &ids).await.status, 200);
}

#[tokio::test]
async fn the_doctor_tries_what_the_proxy_calls_and_nothing_else() {
    let redis = RedisServer::start().await;
    redis.cli(&["ACL", "SETUSER", "tepal-proxy", "on", ">secret", "~*", "&*", "+@all"]);
    let monitor = redis.monitor();
    let url = format!("redis://tepal-proxy:secret@{}", redis.addr());
    let gateway = Gateway::through(redis, &url, &[("OWNER_MAX_BYTES", "20000")]).await;
    let careful = [("REPLICAS_REQUIRED", "1"), ("REPLICATION_TIMEOUT_MS", "50")];
    let careful = Proxy::start(&url, &careful).await;
    exercise(&gateway).await;
    let refused =
        async || careful.client().post_raw("/predict", FLOWER).await.json()["code"] == "not_replicated";
    eventually(SOON, "a submission that asks for replicas", refused).await;

    let kinds = kinds(gateway.store.queue.keys());
    let needs = Service::Proxy.needs(gateway.store.queue.keys(), 0);
    let tried = rights(needs.iter().map(Vec::as_slice), &kinds);
    // Some commands come with the probe's next look.
    eventually(SOON, "the same commands", async || {
        let clients = gateway.redis.clients_of("tepal-proxy");
        let executed = monitor.executed();
        let of_proxy = executed.iter().filter(|executed| clients.contains(&executed.by));
        let mut called = rights(of_proxy.map(|executed| executed.words.as_slice()), &kinds);
        called.retain(|command| !CONNECTING.contains(&command.as_str()));
        called.extend([BY_THE_DOCTOR, NOT_SHOWN].into_iter().chain(RARE).map(str::to_owned));
        let difference = |a: &BTreeSet<String>, b| a.difference(b).cloned().collect::<Vec<_>>();
        let [unchecked, needless] = [difference(&called, &tried), difference(&tried, &called)];
        if unchecked.is_empty() && needless.is_empty() {
            Ok(())
        } else {
            Err(format!("called and not tried: {unchecked:?}; tried and not called: {needless:?}"))
        }
    })
    .await;
}
