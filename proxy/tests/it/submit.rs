//! `POST /predict` and `POST /predict/test`: the answer, and what is stored.

use std::collections::BTreeMap;

use tepal_shared::job::JobId;
use tepal_tests::http::Method;

use crate::gateway::{FLOWER, FLOWER_INPUT, Gateway, JSON, accepted};

/// The fields of a hash without those that differ from job to job; those are checked.
#[track_caller]
fn fixed(mut hash: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let created_at: u64 = hash.remove("at").unwrap().parse().unwrap();
    assert!(created_at > 1_700_000_000_000, "Unix ms: {created_at}");
    assert!(hash.remove("entry").unwrap().contains('-'));
    assert_eq!(hash.remove("m").as_deref(), Some("iris"));
    hash
}

fn fields(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
}

/// As [`Gateway::hash`] shows bytes.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_submission_is_answered_at_once_and_waits_in_the_queue() {
    let gateway = Gateway::start().await;
    let answer = gateway.predict(FLOWER).await;
    let id = accepted(&answer);
    assert_eq!(answer.text(), format!(r#"{{"job_id":"{id}","status":"pending"}}"#));

    let expected = [("status", "pending"), ("input", &*lossy(FLOWER_INPUT)), ("request_id", "r-1")];
    assert_eq!(fixed(gateway.hash(id)), fields(&expected));
    let key = gateway.store.queue.keys().job(id);
    assert_eq!(gateway.redis.cli(&["TTL", &key]), "-1", "an accepted job does not expire");
    let delivery = gateway.take_delivery().await;
    assert_eq!((delivery.attempt.claim.job_id, &*delivery.input), (id, FLOWER_INPUT));
}

#[tokio::test]
async fn a_test_submission_runs_the_models_sample() {
    let gateway = Gateway::start().await;
    let plain = accepted(&gateway.post("/predict/test").await);
    let ignored_body =
        gateway.send(Method::POST, "/predict/test", &[("content-type", "text/plain")], "x").await;
    for id in [plain, accepted(&ignored_body)] {
        assert_eq!(gateway.hash(id)["input"], lossy(FLOWER_INPUT));
    }
}

#[tokio::test]
async fn the_request_id_and_the_trace_travel_with_the_job() {
    let gateway = Gateway::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [JSON, ("traceparent", trace)];
    let id = accepted(&gateway.send(Method::POST, "/predict", &headers, FLOWER).await);
    let hash = gateway.hash(id);
    assert_eq!((hash["request_id"].as_str(), hash["traceparent"].as_str()), ("r-1", trace));
    let attempt = gateway.take_delivery().await.attempt;
    assert_eq!((attempt.request_id.as_deref(), attempt.traceparent.as_deref()), (Some("r-1"), Some(trace)));

    // A malformed trace is ignored, as the standard demands.
    let headers = [JSON, ("traceparent", "00-abc-def-01")];
    let id = accepted(&gateway.send(Method::POST, "/predict", &headers, FLOWER).await);
    assert!(!gateway.hash(id).contains_key("traceparent"));
}

#[tokio::test]
async fn a_request_id_of_our_own_is_stored_when_none_came() {
    let gateway = Gateway::start().await;
    let answer = gateway.proxy.client().request(Method::POST, "/predict", &[JSON], FLOWER).await;
    let id: JobId = answer.json()["job_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(gateway.hash(id)["request_id"], answer.header("x-request-id").unwrap());
}

#[tokio::test]
async fn options_are_stored() {
    let gateway = Gateway::start().await;
    let body = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "priority": "high", "max_queue_seconds": 1.5, "timeout_seconds": 60}"#;
    let id = accepted(&gateway.predict(body).await);
    let hash = gateway.hash(id);
    let number = |field: &str| hash[field].parse::<u64>().unwrap();
    assert_eq!((hash["priority"].as_str(), number("timeout_ms")), ("high", 60_000));
    assert_eq!(number("queue_deadline") - number("at"), 1500);
}

#[tokio::test]
async fn each_priority_has_its_stream() {
    let gateway = Gateway::start().await;
    for priority in ["low", "normal", "high"] {
        let body = format!(r#"{{"data": [[5.1, 3.5, 1.4, 0.2]], "priority": "{priority}"}}"#);
        accepted(&gateway.predict(&body).await);
    }
    let taken: Vec<_> =
        gateway.take(0).await.iter().map(|attempt| attempt.stream.priority.as_str()).collect();
    assert_eq!(taken, ["high", "normal", "low"]);
}

#[tokio::test]
async fn jobs_spread_over_all_partitions() {
    let gateway = Gateway::with(&[("PARTITIONS", "3")]).await;
    for _ in 0..6 {
        gateway.submit().await;
    }
    for partition in 0..3 {
        let taken = gateway.take(partition).await;
        assert_eq!(taken.len(), 2);
        assert!(taken.iter().all(|attempt| attempt.job_id.partition() == partition));
    }
}

#[tokio::test]
async fn numbers_are_stored_as_the_nearest_of_their_type() {
    let gateway = Gateway::start().await;
    let row = [1.813_873_463_050_220_7_f64, 5.1, 9.007_199_254_740_993, 0.300_000_000_000_000_04];
    accepted(
        &gateway
            .predict(r#"{"data": [[1.8138734630502207,51e-1,9.007199254740993,0.30000000000000004]]}"#)
            .await,
    );
    let floats: Vec<_> = row.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
    assert_eq!(gateway.take_delivery().await.input, [&FLOWER_INPUT[..3], &floats[..]].concat());
}
