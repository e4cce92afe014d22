//! Redis comes back without jobs that it had: nothing can be brought back, but it must be seen, with numbers.

use std::fs::OpenOptions;

use serde_json::json;
use tepal_shared::{job::JobId, queue::work::Settlement};
use tepal_tests::{
    fault_proxy::FaultProxy,
    process::Proxy,
    redis::{Fsync, RedisServer},
    wait::eventually,
};

use crate::gateway::{Gateway, SETOSA, SOON, flower, store};

const HEALTHY: &str = r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"}}"#;

async fn healthy(gateway: &Gateway) {
    gateway.heartbeat("w1", "onnx", true, None);
    gateway.health_is(200, HEALTHY).await;
}

async fn count(gateway: &Gateway, metric: &str) -> u64 {
    gateway.get("/metrics").await.metric(metric) as u64
}

/// Waits until the proxy has seen in Redis that so many jobs wait.
async fn knows(gateway: &Gateway, jobs: u64) {
    let seen = async || count(gateway, "tepal_queue_length").await == jobs;
    eventually(SOON, "the proxy to see the jobs", seen).await;
}

/// Waits until the probe has read the state of Redis so many times.
async fn looked(gateway: &Gateway, times: u64) {
    let looks = || gateway.redis.calls("xinfo|stream");
    let before = looks();
    eventually(SOON, "the proxy to look", async || looks() >= before + times).await;
}

/// Waits until the loss shows in the metrics, and beside the specified body of /health.
async fn shows(gateway: &Gateway, times: u64, jobs: u64, detail: &str) {
    gateway.heartbeat("w1", "onnx", true, None);
    let counted = async || count(gateway, "tepal_data_loss_total").await >= times;
    eventually(SOON, "the loss to be counted", counted).await;

    let warned = async || {
        let answer = gateway.get("/health").await;
        let body = answer.json();
        if answer.status == 200 && body["warnings"].is_array() { Ok(body) } else { Err(answer.text()) }
    };
    let body = eventually(SOON, "the warning", warned).await;
    let seen = body["warnings"][0]["detail"].as_str().unwrap_or_default().to_owned();
    let expected = json!({
        "status": "healthy",
        "components": {"redis": "ok", "onnx": "ok"},
        "warnings": [{"code": "redis_data_lost", "detail": seen}],
    });
    assert_eq!(body, expected);
    let rest = seen.strip_prefix("Redis lost jobs, noticed at ").and_then(|rest| rest.split_once(": "));
    let (time, rest) = rest.unwrap_or_else(|| panic!("{seen}"));
    assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    assert_eq!(rest, detail);

    // One loss is one event, also after further looks.
    looked(gateway, 3).await;
    let seen = ["tepal_data_loss_total", "tepal_jobs_lost_total"];
    assert_eq!([count(gateway, seen[0]).await, count(gateway, seen[1]).await], [times, jobs]);
    let line = gateway.proxy.wait_for_log(detail, SOON).await;
    assert!(line.contains(r#""action":"redis_data_lost""#), "{line}");
}

#[tokio::test]
async fn everything_is_flushed() {
    let gateway = Gateway::start().await;
    healthy(&gateway).await;
    let lost = gateway.submit().await;
    gateway.submit().await;
    knows(&gateway, 2).await;

    gateway.redis.cli(&["FLUSHALL"]);
    let detail = "at least 2 of 2 remembered jobs are gone; the log of accepted jobs went back by 2 entries";
    shows(&gateway, 1, 2, detail).await;

    assert_eq!(gateway.get(&format!("/job/{lost}")).await.status, 404);
    let new = gateway.submit().await;
    assert_eq!(gateway.take_one().await.job_id, new, "the service goes on");
    let runs = async || count(&gateway, "tepal_jobs_in_flight").await == 1;
    eventually(SOON, "the proxy to see the job", runs).await;

    gateway.redis.cli(&["FLUSHALL"]);
    let detail = "at least 1 of 1 remembered jobs are gone; the log of accepted jobs went back by 1 entries";
    shows(&gateway, 2, 3, detail).await;
}

#[tokio::test]
async fn jobs_that_no_replica_confirmed_are_not_missed() {
    let redis = RedisServer::shipped().start().await;
    let settings = [("REPLICAS_REQUIRED", "1"), ("REPLICATION_TIMEOUT_MS", "10")];
    let gateway = Gateway::on(redis, &settings).await;
    healthy(&gateway).await;
    let answer = gateway.proxy.client().try_predict(&json!([[5.1, 3.5, 1.4, 0.2]]), &[]).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("not_replicated"), "{}", answer.text());
    knows(&gateway, 1).await;

    gateway.redis.cli(&["FLUSHALL"]);
    knows(&gateway, 0).await;
    looked(&gateway, 2).await;
    assert_eq!(count(&gateway, "tepal_data_loss_total").await, 0);
}

#[tokio::test]
async fn a_new_empty_redis_takes_the_old_ones_place() {
    let gateway = Gateway::start().await;
    healthy(&gateway).await;
    gateway.submit().await;
    knows(&gateway, 1).await;

    gateway.redis.kill9();
    std::fs::remove_dir_all(gateway.redis.dir().join("appendonlydir")).unwrap();
    gateway.redis.restart().await;

    let detail = "at least 1 of 1 remembered jobs are gone; the log of accepted jobs went back by 1 entries";
    shows(&gateway, 1, 1, detail).await;
    gateway.submit().await;
}

#[tokio::test]
async fn the_end_of_the_append_only_file_is_lost() {
    let gateway = Gateway::on(RedisServer::shipped().start().await, &[]).await;
    healthy(&gateway).await;
    gateway.submit().await;
    let kept = gateway.redis.aof_file().metadata().unwrap().len();
    for _ in 0..3 {
        gateway.submit().await;
    }
    knows(&gateway, 4).await;

    gateway.redis.kill9();
    OpenOptions::new().write(true).open(gateway.redis.aof_file()).unwrap().set_len(kept).unwrap();
    gateway.redis.restart().await;

    let detail = "at least 3 of 4 remembered jobs are gone; the log of accepted jobs went back by 3 entries";
    shows(&gateway, 1, 3, detail).await;
}

#[tokio::test]
async fn a_redis_that_drops_the_transactions_of_its_file_is_noticed() {
    // A default user without rights: Redis replays its file as that user.
    let users = "user default off\nuser tester on >secret ~* &* +@all\n";
    let redis = RedisServer::options().aof(Fsync::Always).acl_file(users, "tester", "secret");
    let gateway = Gateway::on(redis.start().await, &[]).await;
    healthy(&gateway).await;
    let ids = [gateway.submit().await, gateway.submit().await];
    knows(&gateway, 2).await;
    gateway.redis.cli(&["SET", "lone", "write"]);

    gateway.redis.restart().await;
    assert_eq!(gateway.redis.cli(&["GET", "lone"]), "write");

    let exists = gateway.redis.cli(&["EXISTS", &gateway.store.queue.keys().job(ids[0])]) == "1";
    if exists {
        // This server replays its file whatever the default user may do.
        healthy(&gateway).await;
        looked(&gateway, 2).await;
        return assert_eq!(count(&gateway, "tepal_data_loss_total").await, 0);
    }
    let detail = "at least 2 of 2 remembered jobs are gone; the log of accepted jobs went back by 2 entries";
    shows(&gateway, 1, 2, detail).await;
}

#[tokio::test]
async fn jobs_that_only_the_old_primary_had_are_counted_after_a_failover() {
    let primary = RedisServer::shipped().config("repl-diskless-sync-delay 0").start().await;
    let replica = RedisServer::shipped().replica_of(&primary).start().await;
    let online = async || primary.cli(&["INFO", "replication"]).contains("state=online");
    eventually(SOON, "the replica", online).await;
    let faults = FaultProxy::start(&primary.addr()).await;
    let url = primary.proxy_url_at(&faults.addr());
    let gateway = Gateway::through(primary, &url, &[]).await;
    for _ in 0..3 {
        gateway.submit().await;
    }
    let log = gateway.store.queue.keys().log(0);
    eventually(SOON, "the replica to have them", async || replica.cli(&["XLEN", &log]) == "3").await;

    // The primary freezes and a Sentinel promotes the replica. Then the primary thaws, and does not know of it yet.
    gateway.redis.sigstop();
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    gateway.redis.sigcont();
    for _ in 0..20 {
        gateway.submit().await;
    }
    // More are accepted elsewhere meanwhile, so that the log alone shows nothing.
    let others = store(&replica);
    for _ in 0..50 {
        let job = flower();
        others.intake.submit(JobId::new(0), job).await.unwrap();
    }
    faults.lead_to(&replica.addr());
    gateway.redis.cli(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]);

    gateway.proxy.wait_for_log("at least 20 of 23 remembered jobs are gone", SOON).await;
    let counted = async || count(&gateway, "tepal_jobs_lost_total").await == 20;
    eventually(SOON, "the lost jobs to be counted", counted).await;
    assert_eq!(count(&gateway, "tepal_data_loss_total").await, 1);
}

#[tokio::test]
async fn a_loss_is_still_reported_while_redis_is_away() {
    let gateway = Gateway::start().await;
    healthy(&gateway).await;
    gateway.submit().await;
    gateway.redis.cli(&["FLUSHALL"]);
    let warned = async || gateway.get("/health").await.json()["warnings"].is_array();
    eventually(SOON, "the warning", warned).await;

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
    knows(&gateway, 1).await;
    for _ in 0..2 {
        gateway.redis.kill9();
        gateway.health_is(503, r#"{"status":"unhealthy","components":{"redis":"down"}}"#).await;
        gateway.redis.restart().await;
        healthy(&gateway).await;
        looked(&gateway, 2).await;
    }
    assert_eq!(count(&gateway, "tepal_data_loss_total").await, 0);
    assert_eq!(gateway.get(&format!("/job/{id}")).await.json()["status"], "pending");
}

#[tokio::test]
async fn jobs_that_ended_and_expired_are_no_loss() {
    let faults;
    let gateway = {
        let redis = RedisServer::shipped().start().await;
        faults = FaultProxy::start(&redis.addr()).await;
        let url = redis.proxy_url_at(&faults.addr());
        Gateway::through(redis, &url, &[("RESULT_TTL_SECONDS", "1")]).await
    };
    healthy(&gateway).await;
    let cancelled = gateway.submit().await;
    assert_eq!(gateway.delete(&format!("/job/{cancelled}")).await.status, 200);
    let completed = gateway.submit().await;
    gateway.settle(&gateway.take_one().await, Settlement::Complete(SETOSA.to_owned())).await;
    // As if the workers kept results for as long.
    gateway.redis.cli(&["PEXPIRE", &gateway.store.queue.keys().job(completed), "1"]);
    for id in [cancelled, completed] {
        let gone = async || gateway.get(&format!("/job/{id}")).await.status == 404;
        eventually(SOON, "the job to expire", gone).await;
    }

    faults.cut_all().await;
    looked(&gateway, 3).await;
    assert_eq!(count(&gateway, "tepal_data_loss_total").await, 0);
}

#[tokio::test]
async fn a_proxy_that_starts_after_the_loss_reports_none() {
    let gateway = Gateway::start().await;
    gateway.submit().await;
    gateway.redis.cli(&["FLUSHALL"]);
    let late = Proxy::start(&gateway.redis.proxy_url(), &[]).await;
    let client = late.client();
    let is_ready = async || client.get("/readyz").await.status == 200;
    eventually(SOON, "the other proxy", is_ready).await;
    looked(&gateway, 4).await;
    assert_eq!(client.get("/metrics").await.metric("tepal_data_loss_total") as u64, 0);
}
