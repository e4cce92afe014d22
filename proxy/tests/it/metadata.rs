//! `GET /metadata`: what the workers' backend says of the model.

use serde_json::json;
use tepal_tests::wait::eventually;

use crate::{
    expect::{UNAVAILABLE, assert_text, problem, unavailable},
    gateway::{Gateway, SOON},
};

/// The specification's example.
const SPECIFIED: &str = r#"{"model_spec":{"name":"iris","version":"1"},"metadata":{"signature_def":{"serving_default":{"inputs":{"input":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1"},{"size":"4"}]}}},"outputs":{"output":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1"},{"size":"3"}]}}}}}}}"#;

#[tokio::test]
async fn the_models_metadata_as_specified() {
    let gateway = Gateway::start().await;
    let metadata = serde_json::from_str(SPECIFIED).unwrap();
    gateway.heartbeat("w1", "tensorflow_serving", true, Some(metadata));
    let is_known = async || gateway.get("/metadata").await.status == 200;
    eventually(SOON, "the metadata", is_known).await;
    assert_text(&gateway.get("/metadata").await, 200, "application/json", SPECIFIED);
}

#[tokio::test]
async fn no_worker_has_reported_it() {
    let gateway = Gateway::start().await;
    let expected = problem(503, "metadata_unavailable", "Metadata unavailable").header("retry-after", "5");
    let is_known = async || gateway.get("/metadata").await.json()["code"] == "metadata_unavailable";
    eventually(SOON, "the first look at the workers", is_known).await;
    let detail = "No live worker has reported the model's metadata";
    expected.assert(&gateway.get("/metadata").await, "/metadata", detail);

    gateway.heartbeat("w1", "onnx", true, None);
    gateway.heartbeat("w2", "onnx", true, Some(json!({"a": 1})));
    let is_known = async || gateway.get("/metadata").await.status == 200;
    eventually(SOON, "the metadata of one of two", is_known).await;
}

#[tokio::test]
async fn redis_is_down() {
    let gateway = Gateway::start().await;
    gateway.redis.kill9();
    gateway.health_is(503, r#"{"status":"unhealthy","components":{"redis":"down"}}"#).await;
    unavailable().assert(&gateway.get("/metadata").await, "/metadata", UNAVAILABLE);
}
