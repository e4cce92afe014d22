//! `GET /job/{id}` in every state of a job.

use std::time::Duration;

use serde_json::{Value, json};
use tepal_shared::{job::JobId, queue::work::Settlement};
use tepal_tests::wait::eventually;

use crate::{
    expect::assert_json,
    gateway::{Gateway, SETOSA, SOON, accepted},
};

/// A time of the job as the API writes it.
fn time(unix_ms: Option<u64>) -> String {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(unix_ms.unwrap());
    humantime::format_rfc3339_millis(time).to_string()
}

/// What every job has, followed by `more`.
async fn view(gateway: &Gateway, id: JobId, more: Value) -> Value {
    let job = gateway.store.views.job(id).await.unwrap().unwrap();
    let mut body = json!({
        "job_id": id.to_string(),
        "status": job.status.as_str(),
        "model": "iris",
        "priority": job.priority.as_str(),
        "attempts": job.attempts,
        "created_at": time(Some(job.created_at_ms)),
    });
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_pending_job() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    let answer = gateway.get(&format!("/job/{id}")).await;
    assert_json(&answer, 200, &[("retry-after", "1")], &view(&gateway, id, json!({})).await);
    assert!(
        answer.text().starts_with(&format!(r#"{{"job_id":"{id}","status":"pending","#)),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_processing_job() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    gateway.take_one().await;
    let started = gateway.store.views.job(id).await.unwrap().unwrap().started_at_ms;
    let expected = view(&gateway, id, json!({"started_at": time(started)})).await;
    assert_eq!((&expected["status"], &expected["attempts"]), (&json!("processing"), &json!(1)));
    assert_json(&gateway.get(&format!("/job/{id}")).await, 200, &[("retry-after", "1")], &expected);
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_attempt() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    gateway.settle(&gateway.take_one().await, Settlement::Retry(Duration::from_secs(30))).await;
    let job = gateway.store.views.job(id).await.unwrap().unwrap();
    let times =
        json!({"started_at": time(job.started_at_ms), "next_attempt_at": time(job.next_attempt_at_ms)});
    let expected = view(&gateway, id, times).await;
    assert_eq!(expected["status"], "pending");
    assert_json(&gateway.get(&format!("/job/{id}")).await, 200, &[("retry-after", "1")], &expected);
}

#[tokio::test]
async fn a_completed_job() {
    let gateway = Gateway::start().await;
    let id = gateway.completed().await;
    let job = gateway.store.views.job(id).await.unwrap().unwrap();
    let result: Value = serde_json::from_str(SETOSA).unwrap();
    let more = json!({
        "started_at": time(job.started_at_ms),
        "finished_at": time(job.finished_at_ms),
        "result": result,
    });
    let answer = gateway.get(&format!("/job/{id}")).await;
    assert_json(&answer, 200, &[], &view(&gateway, id, more).await);
    assert!(answer.text().ends_with(&format!(r#","result":{SETOSA}}}"#)), "as stored: {}", answer.text());

    let ttl: u64 = gateway.redis.cli(&["TTL", &gateway.store.queue.keys().job(id)]).parse().unwrap();
    assert!((86_300..=86_400).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_failed_job() {
    let gateway = Gateway::start().await;
    let id = gateway.failed().await;
    let job = gateway.store.views.job(id).await.unwrap().unwrap();
    let more = json!({
        "error": "Model inference timeout",
        "error_code": "inference_timeout",
        "started_at": time(job.started_at_ms),
        "finished_at": time(job.finished_at_ms),
    });
    assert_json(&gateway.get(&format!("/job/{id}")).await, 200, &[], &view(&gateway, id, more).await);
}

#[tokio::test]
async fn a_cancelled_job_and_the_result_that_came_too_late() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    let attempt = gateway.take_one().await;
    let answer = gateway.delete(&format!("/job/{id}")).await;
    assert_json(&answer, 200, &[], &json!({"job_id": id.to_string(), "status": "cancelled"}));
    gateway.store.work.settle(&[(attempt, Settlement::Complete(SETOSA.to_owned()))]).await.unwrap();

    let job = gateway.store.views.job(id).await.unwrap().unwrap();
    let times = json!({"started_at": time(job.started_at_ms), "finished_at": time(job.finished_at_ms)});
    let expected = view(&gateway, id, times).await;
    assert_eq!(expected["status"], "cancelled");
    assert_json(&gateway.get(&format!("/job/{id}")).await, 200, &[], &expected);
}

#[tokio::test]
async fn a_job_that_waited_too_long_fails_although_no_worker_looks_at_it() {
    let gateway = Gateway::start().await;
    let body = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "max_queue_seconds": 0.05}"#;
    let id = accepted(&gateway.predict(body).await);
    let path = format!("/job/{id}");
    let failed = async || gateway.get(&path).await.json()["status"] == "failed";
    eventually(SOON, "the job to fail", failed).await;

    let finished = time(gateway.store.views.job(id).await.unwrap().unwrap().finished_at_ms);
    let error = "The job waited longer than max_queue_seconds";
    let more = json!({"error": error, "error_code": "queue_timeout", "finished_at": finished});
    assert_json(&gateway.get(&path).await, 200, &[], &view(&gateway, id, more).await);
    assert!(gateway.take(0).await.is_empty());
}

#[tokio::test]
async fn a_job_that_ran_too_long_fails() {
    let gateway = Gateway::start().await;
    let body = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "timeout_seconds": 0.05}"#;
    let id = accepted(&gateway.predict(body).await);
    gateway.take_one().await;
    let path = format!("/job/{id}");
    let failed = async || gateway.get(&path).await.json()["status"] == "failed";
    eventually(SOON, "the job to fail", failed).await;
    let job = gateway.get(&path).await.json();
    assert_eq!(job["error_code"], "timeout");
    assert_eq!(job["error"], "The job ran longer than its timeout");
}

#[tokio::test]
async fn an_id_finds_its_job_in_capitals_and_in_braces_too() {
    let gateway = Gateway::start().await;
    let id = gateway.submit().await;
    for form in [id.to_string().to_uppercase(), format!("%7B{id}%7D")] {
        assert_eq!(gateway.get(&format!("/job/{form}")).await.json()["job_id"], id.to_string());
    }
}
