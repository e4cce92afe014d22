//! The `Idempotency-Key` header: one job for one key.

use std::collections::BTreeSet;

use serde_json::json;
use tepal_shared::queue::work::Settlement;
use tepal_tests::{http::Method, process::Proxy};

use crate::{
    expect::{assert_json, invalid, problem},
    gateway::{FLOWER, Gateway, JSON, SETOSA, accepted},
};

const OTHER: &str = r#"{"data": [[6.3, 3.3, 6.0, 2.5]]}"#;

#[tokio::test]
async fn the_same_key_and_body_are_one_job() {
    let gateway = Gateway::start().await;
    let id = accepted(&gateway.predict_once("order-1", FLOWER).await);
    // The same values, written in other ways.
    for body in [
        r#"{"priority":"normal","data":[[5.1,3.5,1.4,0.2]]}"#,
        r#"{"data": [[51e-1, 3.50, 1.4, 0.2]]}"#,
        r#"{"data": [[5.09999999, 3.5, 1.4, 0.2]]}"#,
    ] {
        assert_eq!(accepted(&gateway.predict_once("order-1", body).await), id, "{body}");
    }
    assert_eq!(gateway.log_length(), 1);

    gateway.settle(&gateway.take_one().await, Settlement::Complete(SETOSA.to_owned())).await;
    let answer = gateway.predict_once("order-1", FLOWER).await;
    let body = json!({"job_id": id.to_string(), "status": "completed"});
    assert_json(&answer, 202, &[("location", &format!("/job/{id}"))], &body);
    assert_eq!(gateway.log_length(), 1);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let gateway = Gateway::start().await;
    accepted(&gateway.predict_once("order-1", FLOWER).await);
    let expected = problem(422, "idempotency_conflict", "Idempotency key conflict");
    let detail = "The Idempotency-Key was used before with another request";
    let urgent = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "priority": "high"}"#;
    let limited = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "timeout_seconds": 1}"#;
    for body in [OTHER, urgent, limited] {
        expected.assert(&gateway.predict_once("order-1", body).await, "/predict", detail);
    }
    assert_eq!(gateway.log_length(), 1);
}

#[tokio::test]
async fn another_key_is_another_job() {
    let gateway = Gateway::start().await;
    let ids = [
        accepted(&gateway.predict_once("order-1", FLOWER).await),
        accepted(&gateway.predict_once("order-2", FLOWER).await),
        accepted(&gateway.predict_once("ORDER-1", FLOWER).await),
        accepted(&gateway.predict(FLOWER).await),
        accepted(&gateway.predict(FLOWER).await),
    ];
    assert_eq!(BTreeSet::from(ids).len(), 5);
}

#[tokio::test]
async fn a_key_works_for_the_sample_too() {
    let gateway = Gateway::start().await;
    let submit = async || {
        let answer = gateway.send(Method::POST, "/predict/test", &[("idempotency-key", "k")], "").await;
        accepted(&answer)
    };
    assert_eq!(submit().await, submit().await);
}

#[tokio::test]
async fn many_at_once_through_two_proxies_are_one_job() {
    let settings = [("PARTITIONS", "4")];
    let gateway = Gateway::with(&settings).await;
    let second = Proxy::start(&gateway.redis.proxy_url(), &settings).await;
    let clients = [gateway.proxy.client(), second.client()];
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let client = clients[number % 2].clone();
            tokio::spawn(async move {
                let headers = [JSON, ("idempotency-key", "order-1")];
                client.request(Method::POST, "/predict", &headers, FLOWER).await
            })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.insert(answer.json()["job_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let mut outstanding = 0;
    for partition in 0..4 {
        outstanding += gateway.take(partition).await.len();
    }
    assert_eq!(outstanding, 1);
}

#[tokio::test]
async fn a_key_that_cannot_be_used() {
    let gateway = Gateway::start().await;
    let what = "must be 1 to 255 visible ASCII characters";
    let expected = invalid(&[("Idempotency-Key", "format", what)]);
    for key in ["", "a b", &"k".repeat(256), "\u{e9}"] {
        let answer = gateway.predict_once(key, FLOWER).await;
        expected.assert(&answer, "/predict", &format!("Idempotency-Key {what}"));
    }
    assert!(gateway.keys().is_empty());
    accepted(&gateway.predict_once(&"k".repeat(255), FLOWER).await);
}

#[tokio::test]
async fn a_key_is_kept_with_its_job_and_does_not_show() {
    let gateway = Gateway::start().await;
    accepted(&gateway.predict_once("my-secret-order", FLOWER).await);
    let keys = gateway.keys();
    let record = keys.iter().find(|key| key.contains(":idem:")).unwrap();
    assert_eq!(gateway.redis.cli(&["TTL", record]), "-1", "it may be forgotten before its job");
    assert!(keys.iter().all(|key| !key.contains("secret")), "{keys:?}");
}

#[tokio::test]
async fn a_refused_submission_does_not_use_its_key() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.predict_once("order-1", r#"{"data": [[0, 0, 0, 0]]}"#).await.status, 422);
    accepted(&gateway.predict_once("order-1", FLOWER).await);
}
