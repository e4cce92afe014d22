//! `POST /predict/batch` and `POST /jobs/lookup`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tepal_tests::{
    fault_proxy::FaultProxy,
    http::{Answer, Method},
    redis::RedisServer,
};

use crate::site::{RESULT, Site, row};

const JSON: &str = "application/json";

async fn batch(site: &Site, body: impl ToString, media_type: &str, more: &[(&str, &str)]) -> Answer {
    let headers = [&[("content-type", media_type)], more].concat();
    site.client.request(Method::POST, "/predict/batch", &headers, body.to_string()).await
}

async fn lookup(site: &Site, ids: &Value) -> Answer {
    site.client.post_json("/jobs/lookup", &json!({ "job_ids": ids })).await
}

fn ids(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let jobs = body["jobs"].as_array().unwrap();
    jobs.iter().filter_map(|job| job["job_id"].as_str()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_thousand_jobs_are_accepted_in_order() {
    let site = Site::start(&[("PARTITIONS", "4")]).await;
    let jobs: Vec<Value> =
        (0..1000).map(|n| json!({"data": [[1.0 + f64::from(n) / 1000.0, 1, 1, 1]]})).collect();
    let answer = batch(&site, json!(jobs), JSON, &[]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!((&answer.json()["accepted"], &answer.json()["refused"]), (&json!(1000), &json!(0)));
    let ids = ids(&answer);
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 1000);
    for (n, id) in [(0, &ids[0]), (999, &ids[999])] {
        let partition = id.parse::<tepal_shared::job::JobId>().unwrap().partition();
        let key = format!("{{predict_queue:{partition}}}:job:{id}");
        let row = [(1.0 + f64::from(n) / 1000.0) as f32, 1.0, 1.0, 1.0];
        // A row of four values as a tensor, as `redis-cli` shows what is no text.
        let stored: Vec<u8> =
            [0xb2, 1, 4].into_iter().chain(row.iter().flat_map(|value| value.to_le_bytes())).collect();
        let expected = String::from_utf8_lossy(&stored).into_owned();
        assert_eq!(site.redis.cli(&["HGET", &key, "input"]), expected);
    }
    let listed = site.client.get("/jobs?limit=1000").await.json();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn a_batch_is_one_round_trip() {
    let redis = RedisServer::shipped().start().await;
    let fault = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&fault.addr());
    let site = Site::start_at(redis, &url, &[]).await;
    fault.delay(Duration::from_millis(250));
    let begun = Instant::now();
    let answer = batch(&site, json!(vec![json!({"data": row()}); 200]), JSON, &[]).await;
    assert_eq!(answer.status, 202);
    // One round trip for each job would take 50 seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_wrong_job_does_not_keep_the_others_back() {
    let site = Site::start(&[]).await;
    let jobs = json!([{"data": row()}, {"data": [[1, 2, 3]]}, {"data": row(), "priority": "high"}, 7]);
    let answer = batch(&site, jobs, JSON, &[("x-request-id", "r-1")]).await;
    assert_eq!(answer.status, 207);
    let body = answer.json();
    assert_eq!((&body["accepted"], &body["refused"]), (&json!(2), &json!(2)));
    let expected = json!({
        "type": "/problems/invalid-input",
        "title": "Invalid input",
        "status": 422,
        "detail": "/data/0 must hold exactly 4 values, not 3",
        "instance": "/predict/batch#/1",
        "code": "invalid_input",
        "request_id": "r-1",
        "errors": [{"pointer": "/data/0", "detail": "must hold exactly 4 values, not 3", "code": "length"}],
    });
    assert_eq!(body["jobs"][1], json!({ "problem": expected }));
    assert_eq!(body["jobs"][3]["problem"]["errors"][0]["code"], "type");
    let high = body["jobs"][2]["job_id"].as_str().unwrap();
    assert_eq!(site.client.job(high).await["priority"], "high");
    assert_eq!(site.client.job(body["jobs"][0]["job_id"].as_str().unwrap()).await["status"], "pending");
}

#[tokio::test]
async fn one_job_a_line_is_a_batch_too() {
    let site = Site::start(&[]).await;
    let line = json!({ "data": row() }).to_string();
    for media_type in ["application/x-ndjson", "application/ndjson; charset=utf-8", "application/jsonl"] {
        let answer = batch(&site, format!("{line}\n\r\n{{\n{line}\r\n{line}"), media_type, &[]).await;
        assert_eq!(answer.status, 207, "{}", answer.text());
        assert_eq!(answer.json()["accepted"], 3);
        assert_eq!(answer.json()["jobs"][1]["problem"]["code"], "invalid_json");
    }
    let answer = batch(&site, &line, "application/x-ndjson", &[]).await;
    assert_eq!((answer.status, ids(&answer).len()), (202, 1));
}

#[tokio::test]
async fn what_is_no_batch_is_refused_as_a_whole() {
    let site = Site::start(&[]).await;
    let one = json!({ "data": row() });
    let many = |count: usize| json!(vec![&one; count]).to_string();
    let lines = format!("{one}\n").repeat(1001);
    for (body, media_type, status, code) in [
        ("[]".to_owned(), JSON, 422, "invalid_input"),
        (String::new(), "application/x-ndjson", 422, "invalid_input"),
        (one.to_string(), JSON, 422, "invalid_input"),
        (many(1001), JSON, 422, "invalid_input"),
        (lines, "application/x-ndjson", 422, "invalid_input"),
        ("[".to_owned(), JSON, 400, "invalid_json"),
        (many(1), "text/csv", 415, "unsupported_media_type"),
        ("x".repeat(9 << 20), JSON, 413, "payload_too_large"),
    ] {
        let answer = batch(&site, body, media_type, &[]).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            answer.text()
        );
    }
    assert_eq!(site.client.get("/jobs").await.json()["jobs"], json!([]));
}

#[tokio::test]
async fn a_batch_that_is_sent_again_with_its_key_leads_to_the_same_jobs() {
    let site = Site::start(&[("PARTITIONS", "4")]).await;
    let jobs = json!([{"data": row()}, {"data": row()}, {"data": row()}]);
    let key = [("idempotency-key", "k")];
    let first = batch(&site, &jobs, JSON, &key).await;
    let again = batch(&site, &jobs, JSON, &key).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(ids(&first).iter().collect::<std::collections::HashSet<_>>().len(), 3);
    // A batch that grew: what was there stays, the rest is new.
    let more = batch(
        &site,
        json!([{"data": row()}, {"data": [[1, 1, 1, 1]]}, {"data": row()}, {"data": row()}]),
        JSON,
        &key,
    )
    .await;
    assert_eq!(more.status, 207);
    assert_eq!(more.json()["jobs"][0]["job_id"].as_str(), Some(ids(&first)[0].as_str()));
    assert_eq!(more.json()["jobs"][1]["problem"]["code"], "idempotency_conflict");
    assert_eq!(site.client.get("/jobs").await.json()["jobs"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_queue_that_fills_up_takes_the_first_ones() {
    let site = Site::start(&[("MAX_QUEUE_DEPTH", "2")]).await;
    let answer = batch(&site, json!(vec![json!({"data": row()}); 3]), JSON, &[]).await;
    assert_eq!(answer.status, 207);
    assert_eq!(answer.json()["accepted"], 2);
    assert_eq!(answer.json()["jobs"][2]["problem"]["code"], "queue_full");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn a_batch_fails_when_redis_is_down() {
    let site = Site::start(&[]).await;
    site.redis.kill9();
    let answer = batch(&site, json!([{"data": row()}]), JSON, &[]).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let answer = lookup(&site, &json!(["x"])).await;
    assert_eq!(answer.status, 200, "nothing has to be asked: {}", answer.text());
}

#[tokio::test]
async fn many_jobs_are_looked_up_in_order() {
    let site = Site::start(&[("PARTITIONS", "3")]).await;
    let answer = batch(&site, json!(vec![json!({"data": row()}); 120]), JSON, &[]).await;
    let ids = ids(&answer);
    let finished = site.complete_one().await.to_string();
    let unknown = "0190a5b4-0000-7000-8000-000000000000";
    let mut asked: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    asked.insert(7, unknown);
    asked.insert(60, "no id");
    let answer = lookup(&site, &json!(asked)).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["not_found"], json!([unknown, "no id"]));
    assert_eq!(body.get("not_read"), None);
    let jobs = body["jobs"].as_array().unwrap();
    let order: Vec<&str> = jobs.iter().map(|job| job["job_id"].as_str().unwrap()).collect();
    asked.retain(|id| *id != unknown && *id != "no id");
    assert_eq!(order, asked);
    let done = jobs.iter().find(|job| job["job_id"] == finished.as_str()).unwrap();
    assert_eq!(done["result"], serde_json::from_str::<Value>(RESULT).unwrap());
    assert_eq!(done, &site.client.job(&finished).await);
}

#[tokio::test]
async fn a_look_up_ends_jobs_that_missed_their_deadline() {
    let site = Site::start(&[]).await;
    let answer = site.client.post_json("/predict", &json!({"data": row(), "max_queue_seconds": 0.001})).await;
    let id = answer.json()["job_id"].clone();
    let answer = tepal_tests::wait::eventually(crate::site::SOON, "the job fails", || async {
        let answer = lookup(&site, &json!([id])).await.json();
        (answer["jobs"][0]["status"] == "failed").then_some(answer)
    });
    assert_eq!(answer.await["jobs"][0]["error_code"], "queue_timeout");
}

#[tokio::test]
async fn an_answer_does_not_grow_without_bound() {
    let site = Site::start(&[]).await;
    let answer = batch(&site, json!(vec![json!({"data": row()}); 60]), JSON, &[]).await;
    let result = json!({"prediction": 0, "text": "x".repeat(200_000)}).to_string();
    for _ in 0..60 {
        let attempt = site.take().await;
        site.settle(&attempt, tepal_shared::queue::work::Settlement::Complete(result.clone())).await;
    }
    let first = lookup(&site, &json!(ids(&answer))).await.json();
    let shown = first["jobs"].as_array().unwrap().len();
    assert!((36..42).contains(&shown), "{shown}");
    let second = lookup(&site, &first["not_read"]).await.json();
    assert_eq!(second["jobs"].as_array().unwrap().len(), 60 - shown);
    assert_eq!(second.get("not_read"), None);
}

#[tokio::test]
async fn a_wrong_look_up_is_refused() {
    let site = Site::start(&[]).await;
    for (body, pointer, code) in [
        (json!([]), "", "type"),
        (json!({}), "/job_ids", "missing"),
        (json!({"job_ids": "x"}), "/job_ids", "type"),
        (json!({"job_ids": []}), "/job_ids", "empty"),
        (json!({"job_ids": ["x", 5]}), "/job_ids/1", "type"),
        (json!({"job_ids": ["x"], "a/b": 1}), "/a~1b", "unknown_field"),
        (json!({"job_ids": vec!["x"; 1001]}), "/job_ids", "too_many_ids"),
    ] {
        let answer = site.client.post_json("/jobs/lookup", &body).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        let error = &answer.json()["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)));
    }
}
