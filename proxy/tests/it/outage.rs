//! Redis down, silent, full, or lost in the middle of a request: what clients get, and that everything recovers by itself.

use serde_json::json;
use tepal_shared::job::{JobId, JobStatus};
use tepal_tests::{fault_proxy::FaultProxy, http::Method, redis::RedisServer, wait::eventually};

use crate::{
    expect::{Problem, UNAVAILABLE, assert_json, problem, unavailable},
    gateway::{FLOWER, FLOWER_INPUT, Gateway, JSON, SOON, accepted, flower, store},
};

const REDIS_DOWN: &str = r#"{"status":"unhealthy","components":{"redis":"down"}}"#;

fn outcome_unknown() -> Problem {
    problem(503, "outcome_unknown", "Outcome unknown").header("retry-after", "1")
}

/// Waits until a submission is accepted.
async fn accepts(gateway: &Gateway) -> JobId {
    let submitted = async || {
        let answer = gateway.predict(FLOWER).await;
        if answer.status == 202 { Ok(accepted(&answer)) } else { Err(answer.text()) }
    };
    eventually(SOON, "a job to be accepted", submitted).await
}

#[tokio::test]
async fn every_operation_says_that_redis_is_down_and_works_again_by_itself() {
    let gateway = Gateway::on(RedisServer::shipped().start().await, &[]).await;
    let id = gateway.submit().await;
    let (job, retry) = (format!("/job/{id}"), format!("/job/{id}/retry"));

    // Until the first probe has ended, Redis counts as down.
    let probed = async || match gateway.get("/health").await.text() == REDIS_DOWN {
        true => Err("no probe has ended"),
        false => Ok(()),
    };
    eventually(SOON, "the first probe", probed).await;
    gateway.redis.kill9();
    gateway.health_is(503, REDIS_DOWN).await;
    for (method, path) in [
        (Method::POST, "/predict"),
        (Method::POST, "/predict/test"),
        (Method::GET, &job),
        (Method::DELETE, &job),
        (Method::POST, &retry),
        (Method::GET, "/jobs"),
        (Method::GET, "/metadata"),
        (Method::GET, "/readyz"),
    ] {
        unavailable().assert(&gateway.send(method, path, &[JSON], FLOWER).await, path, UNAVAILABLE);
    }
    // Mistakes in a request are reported all the same.
    assert_eq!(gateway.predict("{}").await.status, 422);
    assert_eq!(gateway.get("/job/x").await.status, 404);

    let pid = gateway.proxy.pid();
    gateway.redis.restart().await;
    accepts(&gateway).await;
    assert_eq!(gateway.get(&job).await.json()["status"], "pending");
    assert_eq!(gateway.log_length(), 2, "nothing of the refused submissions was stored");
    assert!(gateway.proxy.is_running());
    assert_eq!(gateway.proxy.pid(), pid);
}

#[tokio::test]
async fn a_proxy_that_starts_before_redis_works_as_soon_as_redis_is_there() {
    let redis = RedisServer::shipped().start().await;
    redis.kill9();
    let proxy = tepal_tests::process::Proxy::start(&redis.proxy_url(), &[]).await;
    let client = proxy.client();
    let answer = client.request(Method::POST, "/predict", &[JSON, ("x-request-id", "r-1")], FLOWER).await;
    unavailable().assert(&answer, "/predict", UNAVAILABLE);
    assert_eq!(client.get("/health").await.text(), REDIS_DOWN);

    redis.restart().await;
    let submitted = async || client.post_raw("/predict", FLOWER).await.status == 202;
    eventually(SOON, "a job to be accepted", submitted).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again() {
    let redis = RedisServer::shipped().start().await;
    let faults = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&faults.addr());
    let gateway = Gateway::through(redis, &url, &[]).await;
    // The proxy has a second for it, which a busy machine may not grant at once.
    let mut requests = 0;
    let asked_again = async || {
        requests += 1;
        let before = faults.hits().replies_dropped;
        faults.drop_no_replies();
        faults.drop_reply_to(FLOWER_INPUT);
        let answer = gateway.predict(FLOWER).await;
        let is_lost_once = faults.hits().replies_dropped == before + 1;
        if answer.status == 202 && is_lost_once { Ok(accepted(&answer)) } else { Err(answer.text()) }
    };
    eventually(SOON, "an answer although the first was lost", asked_again).await;

    assert!(gateway.log_length() <= requests, "one job for a request, although it was sent twice");
}

/// A gateway behind a fault proxy, with the answers to requests that hold `pattern` lost and Redis then unreachable.
async fn losing(pattern: impl FnOnce(&Gateway) -> Vec<u8>) -> (Gateway, FaultProxy) {
    let redis = RedisServer::shipped().start().await;
    let faults = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&faults.addr());
    let gateway = Gateway::through(redis, &url, &[]).await;
    // The connection that is open goes on until its answer is lost; no other can be made.
    faults.refuse();
    faults.drop_reply_to(pattern(&gateway));
    (gateway, faults)
}

#[tokio::test]
async fn a_submission_of_unknown_outcome_can_be_repeated_with_its_key() {
    let (gateway, faults) = losing(|_| FLOWER_INPUT.to_vec()).await;

    let answer = gateway.predict_once("order-1", FLOWER).await;

    outcome_unknown().assert(&answer, "/predict", UNAVAILABLE);
    assert_eq!(faults.hits().replies_dropped, 1);
    assert_eq!(gateway.log_length(), 1, "the job was stored, which the proxy cannot know");
    // Now Redis is known to be away, and what is not sent is not stored.
    unavailable().assert(&gateway.predict_once("order-2", FLOWER).await, "/predict", UNAVAILABLE);

    faults.pass();
    let repeated = async || {
        let answer = gateway.predict_once("order-1", FLOWER).await;
        if answer.status == 202 { Ok(accepted(&answer)) } else { Err(answer.text()) }
    };
    let id = eventually(SOON, "the repetition", repeated).await;
    assert_eq!(gateway.take_one().await.job_id, id);
    assert_eq!(gateway.log_length(), 1);
}

#[tokio::test]
async fn a_repetition_that_is_refused_says_nothing_of_the_first_sending() {
    for (path, body) in [("/predict", FLOWER.to_owned()), ("/predict/batch", format!("[{FLOWER}]"))] {
        let (gateway, faults) = losing(|_| FLOWER_INPUT.to_vec()).await;
        let full_memory = async {
            let is_lost = async || faults.hits().replies_dropped == 1;
            eventually(SOON, "the answer to be lost", is_lost).await;
            gateway.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
            faults.pass();
        };
        let (answer, ()) = tokio::join!(gateway.send(Method::POST, path, &[JSON], &body), full_memory);

        outcome_unknown().assert(&answer, path, UNAVAILABLE);
        assert_eq!(gateway.log_length(), 1, "the job was stored, although the repetition was refused");
    }
}

#[tokio::test]
async fn a_cancellation_of_unknown_outcome_can_be_repeated() {
    let redis = RedisServer::shipped().start().await;
    let id = JobId::new(0);
    let faults = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&faults.addr());
    let gateway = Gateway::through(redis, &url, &[]).await;
    let job = flower();
    gateway.store.intake.submit(id, job).await.unwrap();
    faults.refuse();
    faults.drop_reply_to(id.to_string());

    let path = format!("/job/{id}");
    outcome_unknown().assert(&gateway.delete(&path).await, &path, UNAVAILABLE);
    assert_eq!(gateway.store.views.job(id).await.unwrap().unwrap().status, JobStatus::Cancelled);

    faults.pass();
    let repeated = async || gateway.delete(&path).await.status == 200;
    eventually(SOON, "the repetition", repeated).await;
}

#[tokio::test]
async fn a_read_has_no_outcome_that_could_be_unknown() {
    let id = JobId::new(0);
    let (gateway, faults) = losing(|_| id.to_string().into_bytes()).await;
    let path = format!("/job/{id}");
    unavailable().assert(&gateway.get(&path).await, &path, UNAVAILABLE);
    assert_eq!(faults.hits().replies_dropped, 1);
}

#[tokio::test]
async fn a_redis_that_hangs_leaves_the_outcome_unknown() {
    let gateway = Gateway::start().await;
    gateway.redis.sigstop();
    let answer = gateway.predict_once("order-1", FLOWER).await;
    outcome_unknown().assert(&answer, "/predict", UNAVAILABLE);

    gateway.redis.sigcont();
    let repeated = async || gateway.predict_once("order-1", FLOWER).await.status == 202;
    eventually(SOON, "the repetition", repeated).await;
    assert_eq!(gateway.log_length(), 1);
}

#[tokio::test]
async fn a_redis_without_memory_takes_no_new_jobs_but_goes_on_with_the_old_ones() {
    let gateway = Gateway::start().await;
    let (old, other) = (gateway.failed().await, gateway.submit().await);
    let before = gateway.keys();
    gateway.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);

    let expected = problem(503, "redis_out_of_memory", "Job store out of memory").header("retry-after", "5");
    let detail = "The job store is out of memory and accepts no new jobs";
    expected.assert(&gateway.predict_once("order-1", FLOWER).await, "/predict", detail);
    let path = format!("/job/{old}/retry");
    expected.assert(&gateway.post(&path).await, &path, detail);
    assert_eq!(gateway.keys(), before);
    let cancelled = json!({"job_id": other.to_string(), "status": "cancelled"});
    assert_json(&gateway.delete(&format!("/job/{other}")).await, 200, &[], &cancelled);
    assert_eq!(gateway.get(&format!("/job/{other}")).await.json()["status"], "cancelled");

    gateway.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    gateway.submit().await;
}

#[tokio::test]
async fn a_redis_that_cannot_write_its_disk_takes_no_changes() {
    let redis = RedisServer::shipped().config("save 3600 1000").start().await;
    let gateway = Gateway::on(redis, &[]).await;
    let id = gateway.submit().await;
    let short = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "max_queue_seconds": 0.05}"#;
    let late = accepted(&gateway.predict(short).await);
    std::fs::create_dir(gateway.redis.dir().join("dump.rdb")).unwrap();
    gateway.redis.cli(&["BGSAVE"]);
    let failed = async || gateway.redis.cli(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err");
    eventually(SOON, "the snapshot to fail", failed).await;

    let expected =
        problem(503, "redis_cannot_persist", "Job store cannot persist").header("retry-after", "5");
    let detail = "The job store cannot write to its disk and accepts no changes";
    expected.assert(&gateway.predict(FLOWER).await, "/predict", detail);
    let path = format!("/job/{id}");
    expected.assert(&gateway.delete(&path).await, &path, detail);
    assert_eq!(gateway.get(&path).await.json()["status"], "pending");
    // It has missed its deadline, which cannot be recorded.
    assert_eq!(gateway.get(&format!("/job/{late}")).await.json()["status"], "pending");
    assert_eq!(gateway.get("/jobs?limit=1").await.json()["jobs"][0]["status"], "pending");
    let body = r#"{"status":"unhealthy","components":{"redis":"read_only","worker":"down"}}"#;
    gateway.health_is(503, body).await;
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_an_internal_error_without_its_cause() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    gateway.redis.cli(&["HSET", &store(&gateway.redis).queue.keys().job(id), "status", "confused"]);
    let path = format!("/job/{id}");
    let answer = gateway.get(&path).await;
    let detail = "An internal error occurred; its cause is in the service's log under the request id";
    problem(500, "internal_error", "Internal error").assert(&answer, &path, detail);
    let line = gateway.proxy.wait_for_log("confused", SOON).await;
    assert!(line.contains(r#""request_id":"r-1""#), "{line}");
}
