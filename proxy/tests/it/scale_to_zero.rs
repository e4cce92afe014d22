//! `WORKERS_EXPECTED`: whether the lack of workers is a fault.

use serde_json::json;
use tepal_tests::wait::eventually;

use crate::gateway::{Gateway, SOON};

const NO_WORKER: &str = r#"{"status":"healthy","components":{"redis":"ok","worker":"none"}}"#;
const HEALTHY: &str = r#"{"status":"healthy","components":{"redis":"ok","tensorflow_serving":"ok"}}"#;
const BACKEND_DOWN: &str =
    r#"{"status":"unhealthy","components":{"redis":"ok","tensorflow_serving":"down"}}"#;

async fn expecting(workers: &str) -> Gateway {
    Gateway::with(&[("WORKERS_EXPECTED", workers)]).await
}

/// The value of a metric without labels.
async fn metric(gateway: &Gateway, name: &str) -> f64 {
    gateway.get("/metrics").await.metric(name)
}

#[tokio::test]
async fn having_no_worker_is_healthy_when_none_is_expected() {
    let gateway = expecting("0").await;
    gateway.health_is(200, NO_WORKER).await;
    assert_eq!(metric(&gateway, "tepal_workers_expected").await, 0.0);
    let line = gateway.proxy.wait_for_log("health_changed", SOON).await;
    assert!(line.contains(r#""level":"INFO""#), "{line}");

    // A job may wait for its worker; the alert speaks then.
    gateway.submit().await;
    gateway.health_is(200, NO_WORKER).await;

    gateway.heartbeat("w1", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
    gateway.heartbeat("w1", "tensorflow_serving", false, None);
    gateway.health_is(503, BACKEND_DOWN).await;
}

#[tokio::test]
async fn models_without_a_worker_are_ready_because_their_first_call_starts_one() {
    let gateway = expecting("0").await;
    gateway.health_is(200, NO_WORKER).await;
    let ready = async || gateway.get("/v2/models/iris/ready").await.status;
    let status = async || gateway.get("/v1/models/iris").await.text();
    assert_eq!(ready().await, 200);
    assert!(status().await.contains("AVAILABLE"), "{}", status().await);
    // An unknown model stays unknown.
    assert_eq!(gateway.get("/v2/models/none/ready").await.status, 404);

    // A worker of the model that cannot call it is a fault.
    gateway.heartbeat_of("w1", &[("iris", false, "")]);
    eventually(SOON, "the model to be down", async || ready().await != 200).await;
    assert!(status().await.contains("LOADING"), "{}", status().await);

    gateway.redis.kill9();
    eventually(SOON, "the model to be unknown", async || gateway.get("/readyz").await.status == 503).await;
    assert_ne!(ready().await, 200);
}

#[tokio::test]
async fn a_model_that_a_live_worker_does_not_serve_is_unserved_without_a_warning() {
    let gateway = expecting("0").await;
    gateway.heartbeat_of("w1", &[("iris", true, "")]);
    let expected = json!({"iris": "ok", "language": "unserved"});
    eventually(SOON, "both models", async || {
        let answer = gateway.get("/health").await;
        if answer.json()["models"] == expected { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    let answer = gateway.get("/health").await;
    assert_eq!((answer.status, answer.text().contains("models_down")), (200, false), "{}", answer.text());
}

#[tokio::test]
async fn fewer_workers_than_expected_are_a_warning() {
    let gateway = expecting("3").await;
    gateway.health_is(503, r#"{"status":"unhealthy","components":{"redis":"ok","worker":"down"}}"#).await;
    for worker in ["w1", "w2"] {
        gateway.heartbeat(worker, "tensorflow_serving", true, None);
    }
    let warning = json!([{"code": "workers_missing", "detail": "2 of 3 expected workers are alive"}]);
    eventually(SOON, "the warning", async || {
        let answer = gateway.get("/health").await;
        if answer.status == 200 && answer.json()["warnings"] == warning { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    gateway.heartbeat("w3", "tensorflow_serving", true, None);
    gateway.health_is(200, HEALTHY).await;
}
