use serde_json::json;
use tepal_tests::{http::Method, process::Signal, wait::eventually};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{INFER, answered, assert_error, complete, flower, next_job, output, send};
use crate::gateway::{Gateway, SOON};

/// The number of jobs with this status.
pub(crate) async fn count(gateway: &Gateway, status: &str) -> usize {
    let page = gateway.get(&format!("/jobs?status={status}")).await.json();
    page["jobs"].as_array().unwrap_or_else(|| panic!("{page}")).len()
}

pub(crate) async fn becomes(gateway: &Gateway, status: &str) {
    eventually(SOON, status, async || count(gateway, status).await == 1).await;
}

/// Sends a request and closes the connection when its job is stored.
async fn abandoned(gateway: &Gateway, headers: &str) {
    let body = flower(json!({})).to_string();
    let length = body.len();
    let request =
        format!("POST {INFER} HTTP/1.1\r\nhost: tepal\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    let mut stream = TcpStream::connect(gateway.proxy.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    becomes(gateway, "pending").await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_job() {
    let gateway = Gateway::start().await;
    abandoned(&gateway, "").await;
    becomes(&gateway, "cancelled").await;
    gateway.proxy.wait_for_log("job_cancelled", SOON).await;
    let log = gateway.proxy.logs().find("job_cancelled").unwrap();
    assert!(log.contains("client_gone"), "{log}");
}

#[tokio::test]
async fn a_job_with_an_idempotency_key_goes_on_and_a_repeated_call_gets_its_result() {
    let gateway = Gateway::start().await;
    abandoned(&gateway, "idempotency-key: order-1\r\n").await;
    let key = [("idempotency-key", "order-1")];
    let body = flower(json!({})).to_string();
    let worker = async {
        let job = next_job(&gateway).await;
        complete(&gateway, &job.attempt.claim, &[output()]).await;
    };
    let (answer, ()) = tokio::join!(send(&gateway, INFER, &key, body.clone()), worker);
    assert_eq!((answer.status, answer.json()), (200, answered(json!({}))));
    assert_eq!(send(&gateway, INFER, &key, body).await.header("tepal-job-id"), answer.header("tepal-job-id"));
    assert_eq!((gateway.log_length(), count(&gateway, "completed").await), (1, 1));
    let other = flower(json!({"parameters": {"priority": 1}})).to_string();
    let answer = send(&gateway, INFER, &key, other).await;
    let detail = "The Idempotency-Key was used before with another request";
    assert_error(&answer, 409, "idempotency_conflict", detail);
}

#[tokio::test]
async fn a_job_that_takes_longer_than_the_wait_goes_on() {
    let gateway = Gateway::with(&[("V2_WAIT_SECONDS", "1")]).await;
    let answer = send(&gateway, INFER, &[], flower(json!({})).to_string()).await;
    let id = answer.header("tepal-job-id").unwrap();
    assert_eq!(answer.header("location"), Some(format!("/job/{id}").as_str()));
    let detail =
        "The job has not ended yet and goes on; the header tepal-job-id has its id for GET /job/{id}";
    assert_error(&answer, 504, "still_running", detail);
    complete(&gateway, &next_job(&gateway).await.attempt.claim, &[output()]).await;
    assert_eq!(gateway.get(&format!("/job/{id}")).await.json()["status"], "completed");
}

#[tokio::test]
async fn a_job_that_takes_longer_than_the_client_waits_is_cancelled() {
    let gateway = Gateway::start().await;
    let body = flower(json!({"parameters": {"timeout": 100_000}})).to_string();
    let answer = send(&gateway, INFER, &[], body.clone()).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    let id = answer.header("tepal-job-id").unwrap();
    let job = gateway.get(&format!("/job/{id}")).await.json();
    // Either the call or the job's own limit comes first.
    let is_over = job["status"] == "cancelled" || job["error_code"] == "queue_timeout";
    assert!(is_over, "{job}");
    assert!(["deadline_exceeded", "queue_timeout"].contains(&answer.json()["code"].as_str().unwrap()));
}

#[tokio::test]
async fn a_client_that_prefers_not_to_wait_gets_the_job() {
    let gateway = Gateway::start().await;
    let prefer = [("prefer", "respond-async")];
    let answer = send(&gateway, INFER, &prefer, flower(json!({"id": "a"})).to_string()).await;
    let id = answer.header("tepal-job-id").unwrap();
    let expected = json!({
        "model_name": "iris", "model_version": "1", "id": "a", "job_id": id, "status": "pending",
    });
    assert_eq!((answer.status, answer.json()), (202, expected));
    assert_eq!(answer.header("location"), Some(format!("/job/{id}").as_str()));
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    complete(&gateway, &next_job(&gateway).await.attempt.claim, &[output()]).await;
    let job = gateway.get(&format!("/job/{id}")).await.json();
    assert_eq!(job["result"]["outputs"], answered(json!({}))["outputs"]);
}

#[tokio::test]
async fn a_proxy_that_stops_cancels_the_jobs_that_it_waits_for() {
    let gateway = Gateway::start().await;
    let (client, body) = (gateway.proxy.client(), flower(json!({})).to_string());
    let call = tokio::spawn(async move { client.request(Method::POST, INFER, &[], body).await });
    becomes(&gateway, "pending").await;
    gateway.proxy.process().signal(Signal::Term);
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].clone()), (503, json!("service_unavailable")));
    assert!(gateway.proxy.wait_exit(SOON).await.success());
    let id = answer.header("tepal-job-id").unwrap().parse().unwrap();
    assert_eq!(gateway.hash(id)["status"], "cancelled");
    let log = gateway.proxy.logs().find("job_cancelled").unwrap();
    assert!(log.contains("proxy_stops"), "{log}");
}

#[tokio::test]
async fn somebody_else_may_cancel_the_job() {
    let gateway = Gateway::start().await;
    let (client, body) = (gateway.proxy.client(), flower(json!({})).to_string());
    let call = tokio::spawn(async move { client.request(Method::POST, INFER, &[], body).await });
    becomes(&gateway, "pending").await;
    let page = gateway.get("/jobs").await.json();
    let id = page["jobs"][0]["job_id"].as_str().unwrap();
    gateway.delete(&format!("/job/{id}")).await;
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].clone()), (409, json!("job_cancelled")));
}

#[tokio::test]
async fn a_job_whose_store_fails_is_not_to_be_repeated_blindly() {
    let gateway = Gateway::with(&[("V2_WAIT_SECONDS", "3")]).await;
    let (client, body) = (gateway.proxy.client(), flower(json!({})).to_string());
    let call = tokio::spawn(async move { client.request(Method::POST, INFER, &[], body).await });
    becomes(&gateway, "pending").await;
    gateway.redis.kill9();
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.json()["code"].clone()), (503, json!("outcome_unknown")));
    assert!(answer.header("tepal-job-id").is_some());
}
