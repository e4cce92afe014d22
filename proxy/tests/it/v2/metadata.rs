use serde_json::json;
use tepal_tests::{http::Method, wait::eventually};

use super::{INFER, assert_error, flower, send};
use crate::{
    gateway::{Gateway, SOON},
    keys::Keys,
};

#[tokio::test]
async fn health_is_what_each_client_reads() {
    let gateway = Gateway::start().await;
    let live = gateway.get("/v2/health/live").await;
    assert_eq!((live.status, live.json()), (200, json!({"live": true})));
    let ready = gateway.get("/v2/health/ready").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"live": true, "ready": true})));

    let path = "/v2/models/iris/ready";
    assert_error(&gateway.get(path).await, 503, "model_not_ready", "No live worker can call the model");
    gateway.heartbeat_of("w", &[("iris", true, "")]);
    eventually(SOON, "the model to be ready", async || gateway.get(path).await.status == 200).await;
    assert_eq!(gateway.get(path).await.json(), json!({"name": "iris", "ready": true}));
    assert_eq!(gateway.get("/v2/models/iris/versions/1/ready").await.status, 200);

    gateway.redis.stop().await;
    let down = async || gateway.get("/v2/health/ready").await.status == 503;
    eventually(SOON, "the proxy to see that Redis is down", down).await;
    assert_eq!(gateway.get("/v2/health/ready").await.json(), json!({"live": true, "ready": false}));
    assert_eq!(gateway.get("/v2/health/live").await.status, 200);
}

#[tokio::test]
async fn metadata_describes_the_server_and_its_models() {
    let gateway = Gateway::start().await;
    let server = gateway.get("/v2").await.json();
    let extensions = json!(["binary_tensor_data", "model_configuration", "model_repository"]);
    assert_eq!(
        server,
        json!({"name": "tepal", "version": env!("CARGO_PKG_VERSION"), "extensions": extensions})
    );
    let tensor = |name: &str, length: i64| json!({"name": name, "datatype": "FP32", "shape": [-1, length]});
    let expected = json!({
        "name": "iris",
        "versions": ["1"],
        "platform": "tepal",
        "inputs": [tensor("input", 4)],
        "outputs": [tensor("output", 3)],
    });
    for path in ["/v2/models/iris", "/v2/models/iris/versions/1"] {
        assert_eq!(gateway.get(path).await.json(), expected);
    }
    let tensor = |name: &str, length: i64| json!({"name": name, "data_type": "TYPE_FP32", "dims": [length]});
    let config = json!({
        "name": "iris",
        "platform": "tepal",
        "backend": "tepal",
        "max_batch_size": 1024,
        "input": [tensor("input", 4)],
        "output": [tensor("output", 3)],
    });
    assert_eq!(gateway.get("/v2/models/iris/config").await.json(), config);
    assert_eq!(gateway.get("/v2/models").await.json(), json!({"models": ["iris", "language"]}));
    let reason = "no live worker can call the model";
    let entry = |name: &str| json!({"name": name, "version": "1", "state": "UNAVAILABLE", "reason": reason});
    let index = json!([entry("iris"), entry("language")]);
    assert_eq!(gateway.post("/v2/repository/index").await.json(), index);
    let answer = gateway.get("/v2/models/rose").await;
    assert_error(&answer, 404, "model_not_found", "There is no such model; known are iris and language");
}

#[tokio::test]
async fn what_a_durable_queue_does_not_have_is_named() {
    let gateway = Gateway::start().await;
    for (path, word) in [
        ("/v2/repository/models/iris/load", "MODELS_DIR"),
        ("/v2/repository/models/iris/unload", "MODELS_DIR"),
        ("/v2/models/iris/generate", "streaming"),
        ("/v2/models/iris/generate_stream", "streaming"),
        ("/v2/models/iris/infer_stream", "streaming"),
        ("/v2/models/iris/stats", "/metrics"),
        ("/v2/models/stats", "/metrics"),
        ("/v2/systemsharedmemory/region/a/register", "Shared memory"),
        ("/v2/cudasharedmemory/status", "Shared memory"),
    ] {
        let answer = gateway.post(path).await;
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(word), "{path}: {error}");
        assert_error(&answer, 501, "not_supported", &error);
    }
    assert_error(&gateway.get("/v2/nothing").await, 404, "not_found", "No such path");
    let answer = gateway.get(INFER).await;
    let detail = "The path does not support this method; Allow lists the supported ones";
    assert_error(&answer, 405, "method_not_allowed", detail);
}

#[tokio::test]
async fn an_inference_needs_both_scopes_and_metadata_only_one() {
    let keys = Keys::with("");
    let (submitter, reader, both) =
        (keys.add("--scope submit"), keys.add("--scope read"), keys.add("--scope read --scope submit"));
    let gateway = keys.gateway(&[("V2_WAIT_SECONDS", "1")]).await;
    let body = flower(json!({})).to_string();
    let infer = async |key: &str| {
        let bearer = format!("Bearer {key}");
        send(&gateway, INFER, &[("authorization", &bearer)], body.clone()).await
    };
    assert_error(&infer(&submitter).await, 403, "insufficient_scope", "This needs a key with the scope read");
    assert_error(&infer(&reader).await, 403, "insufficient_scope", "This needs a key with the scope submit");
    assert_eq!(infer(&both).await.status, 504);
    let nobody = infer("nonsense").await;
    assert_eq!((nobody.status, nobody.json()["code"].clone()), (401, json!("unauthorized")));
    for path in ["/v2", "/v2/models", "/v2/models/iris", "/v2/models/iris/config"] {
        assert_eq!(gateway.as_key(&reader, Method::GET, path, "").await.status, 200, "{path}");
        assert_eq!(gateway.as_key(&submitter, Method::GET, path, "").await.status, 403, "{path}");
    }
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_key_that_is_limited_to_models_sees_no_others() {
    let keys = Keys::with("");
    let other = keys.add("--scope read --scope submit --model rose");
    let gateway = keys.gateway(&[]).await;
    let get = async |path: &str| gateway.as_key(&other, Method::GET, path, "").await;
    assert_eq!(get("/v2/models").await.json(), json!({"models": []}));
    assert_error(&get("/v2/models/iris").await, 403, "model_forbidden", "The key is limited to other models");
    let index = gateway.as_key(&other, Method::POST, "/v2/repository/index", "").await;
    assert_eq!(index.json(), json!([]));
}
