//! `POST /job/{id}/retry`: a failed or cancelled job again, as a new one.

use tepal_shared::job::JobId;
use tepal_tests::{http::Method, wait::eventually};

use crate::{
    expect::problem,
    gateway::{FLOWER_INPUT, Gateway, SOON, accepted},
};

#[tokio::test]
async fn a_failed_job_runs_again_as_a_new_one() {
    let gateway = Gateway::start().await;
    let old = gateway.failed().await;
    let before = gateway.hash(old);

    let new = accepted(&gateway.post(&format!("/job/{old}/retry")).await);

    assert_ne!(new, old);
    assert_eq!(gateway.hash(old), before, "the old record does not change");
    let hash = gateway.hash(new);
    assert_eq!(hash["retry_of"], old.to_string());
    assert_eq!(hash["request_id"], "r-1");
    assert_eq!(gateway.get(&format!("/job/{new}")).await.json()["retry_of"], old.to_string());
    let delivery = gateway.take_delivery().await;
    assert_eq!((delivery.attempt.claim.job_id, &*delivery.input), (new, FLOWER_INPUT));
}

#[tokio::test]
async fn a_cancelled_job_keeps_its_priority_when_it_is_repeated() {
    let gateway = Gateway::start().await;
    let old = accepted(&gateway.predict(r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "priority": "low"}"#).await);
    gateway.delete(&format!("/job/{old}")).await;

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let path = format!("/job/{old}/retry");
    let new = accepted(&gateway.send(Method::POST, &path, &[("traceparent", trace)], "").await);

    let attempt = gateway.take_delivery().await.attempt;
    assert_eq!((attempt.claim.job_id, attempt.claim.stream.priority.as_str()), (new, "low"));
    assert_eq!(attempt.traceparent.as_deref(), Some(trace));
}

#[tokio::test]
async fn a_job_that_did_not_fail_is_not_repeated() {
    let gateway = Gateway::start().await;
    let expected = problem(409, "job_not_repeatable", "Job cannot be requeued");
    let completed = gateway.completed().await;
    let processing = gateway.submit().await;
    gateway.take_one().await;
    let pending = gateway.submit().await;
    for (id, status) in [(completed, "completed"), (processing, "processing"), (pending, "pending")] {
        let path = format!("/job/{id}/retry");
        let answer = gateway.post(&path).await;
        let detail = format!("The job is {status}; only failed and cancelled jobs can be requeued");
        expected.assert(&answer, &path, &detail);
    }
    assert_eq!(gateway.log_length(), 3);
}

#[tokio::test]
async fn a_job_whose_input_has_expired_is_not_repeated() {
    let gateway = Gateway::with(&[("FAILED_INPUT_TTL_SECONDS", "1")]).await;
    let id = gateway.submit().await;
    gateway.delete(&format!("/job/{id}")).await;
    let before = gateway.get(&format!("/job/{id}")).await;
    let input = gateway.store.queue.keys().input(id);
    let has_expired = async || gateway.redis.cli(&["EXISTS", &input]) == "0";
    eventually(SOON, "the input to expire", has_expired).await;

    let path = format!("/job/{id}/retry");
    let answer = gateway.post(&path).await;

    let expected = problem(409, "job_not_repeatable", "Job cannot be requeued");
    let detail = "The job is cancelled, but its input has expired; send it as a new job";
    expected.assert(&answer, &path, detail);
    let after = gateway.get(&format!("/job/{id}")).await;
    assert_eq!((after.status, after.text()), (200, before.text()), "the job stays as it was");
    assert_eq!(gateway.log_length(), 1);
}

#[tokio::test]
async fn a_retry_respects_the_queues_limit() {
    let gateway = Gateway::with(&[("MAX_QUEUE_DEPTH", "1")]).await;
    let old: JobId = gateway.failed().await;
    gateway.submit().await;
    let path = format!("/job/{old}/retry");
    let answer = gateway.post(&path).await;
    // The failed job's end may have been seen as a rate.
    let seconds = if answer.header("retry-after") == Some("1") { "1" } else { "5" };
    let expected = problem(503, "queue_full", "Queue full").header("retry-after", seconds);
    expected.assert(&answer, &path, "The queue is full; try again later");
}
