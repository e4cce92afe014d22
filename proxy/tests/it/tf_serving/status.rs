use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_tests::{http::Method, wait::eventually};

use super::PREDICT;
use crate::{
    gateway::{Gateway, SOON},
    keys::Keys,
    v2::{assert_error, send},
};

fn status(state: &str, code: &str, message: &str, is_ready: bool) -> Value {
    let status = json!({"error_code": code, "error_message": message});
    json!({
        "model_version_status": [{"version": "1", "state": state, "status": status}],
        "name": "iris",
        "ready": is_ready,
    })
}

#[tokio::test]
async fn a_version_is_available_when_a_live_worker_can_call_it() {
    let gateway = Gateway::start().await;
    let loading = status("LOADING", "UNAVAILABLE", "No live worker can call the model", false);
    let paths = ["/v1/models/iris", "/v1/models/iris/versions/1"];
    for path in paths {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, loading.clone()), "{path}");
    }
    gateway.heartbeat_of("w", &[("iris", true, "")]);
    let available = status("AVAILABLE", "OK", "", true);
    for path in paths {
        eventually(SOON, "the model to be available", async || gateway.get(path).await.json() == available)
            .await;
    }
}

#[tokio::test]
async fn metadata_has_the_signatures_twice() {
    let gateway = Gateway::start().await;
    let dim = |size: &str| json!({"size": size, "name": ""});
    let info = |name: &str, length: &str| {
        let shape = json!({"dim": [dim("-1"), dim(length)], "unknown_rank": false});
        json!({name: {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": name}})
    };
    let signature = json!({
        "inputs": info("input", "4"),
        "outputs": info("output", "3"),
        "method_name": "tensorflow/serving/predict",
    });
    let expected = json!({
        "model_spec": {"name": "iris", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    });
    for path in ["/v1/models/iris/metadata", "/v1/models/iris/versions/1/metadata"] {
        assert_eq!(gateway.get(path).await.json(), expected, "{path}");
    }
}

#[tokio::test]
async fn the_models_are_listed_for_other_clients() {
    let gateway = Gateway::start().await;
    let entry = |name: &str| json!({"id": name, "object": "model", "created": 0, "owned_by": "tepal"});
    let expected = json!({
        "object": "list",
        "data": [entry("iris"), entry("language")],
        "models": ["iris", "language"],
    });
    assert_eq!(gateway.get("/v1/models").await.json(), expected);
}

/// The reference model on a server that chooses the version by a label.
fn labelled() -> TempDir {
    let models = TempDir::new().unwrap();
    let folder = models.path().join("iris");
    std::fs::create_dir(&folder).unwrap();
    let text = include_str!("../../../../compose/models/iris/model.toml");
    std::fs::write(folder.join("model.toml"), format!("version_label = \"stable\"\n{text}")).unwrap();
    models
}

#[tokio::test]
async fn a_label_is_that_of_the_description() {
    let models = labelled();
    let gateway = Gateway::with(&[("MODELS_DIR", models.path().to_str().unwrap())]).await;
    assert_eq!(gateway.get("/v1/models/iris/labels/stable").await.status, 200);
    assert_eq!(gateway.get("/v1/models/iris/labels/stable/metadata").await.status, 200);
    let body = json!({"instances": [[1, 2, 3]]}).to_string();
    let answer = send(&gateway, "/v1/models/iris/labels/stable:predict", &[], body.clone()).await;
    assert_error(&answer, 400, "invalid_input", "/instances/0 must hold exactly 4 values, not 3");
    let detail = "The model has no version with this label; its label is `stable`";
    let answer = gateway.get("/v1/models/iris/labels/canary").await;
    assert_error(&answer, 404, "model_version_not_found", detail);
    let answer = send(&gateway, "/v1/models/iris/labels/canary:predict", &[], body).await;
    assert_error(&answer, 404, "model_version_not_found", detail);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let gateway = Gateway::start().await;
    let model = "There is no such model; known are iris and language";
    let version = "The model has no such version; those that can be pinned are 1";
    let label = "The versions of the model have no labels";
    for (path, code, detail) in [
        ("/v1/models/rose", "model_not_found", model),
        ("/v1/models/rose/metadata", "model_not_found", model),
        ("/v1/models/iris/versions/2", "model_version_not_found", version),
        ("/v1/models/iris/versions/x/metadata", "model_version_not_found", version),
        ("/v1/models/iris/labels/stable", "model_version_not_found", label),
        ("/v1/models/iris/labels/stable/metadata", "model_version_not_found", label),
        ("/v1/models/iris:run", "not_found", "No such path"),
        ("/v1/models/iris/labels/a:run", "not_found", "No such path"),
        ("/v1/nothing", "not_found", "No such path"),
        ("/v1/models/iris:predict/metadata", "model_not_found", model),
        ("/v1/models/iris:run/versions/1", "model_not_found", model),
        ("/v1/models/iris/versions/1:predict/metadata", "model_version_not_found", version),
    ] {
        assert_error(&gateway.get(path).await, 404, code, detail);
    }
    for (path, code, detail) in [
        ("/v1/models/rose:predict", "model_not_found", model),
        ("/v1/models/iris/versions/2:predict", "model_version_not_found", version),
        ("/v1/models/iris/labels/stable:classify", "model_version_not_found", label),
        ("/v1/models/iris:run", "not_found", "No such path"),
        ("/v1/models/iris:run/versions/1:predict", "model_not_found", model),
    ] {
        assert_error(&gateway.post(path).await, 404, code, detail);
    }
    let answer = gateway.delete("/v1/models/iris:run").await;
    assert_error(&answer, 404, "not_found", "No such path");
}

#[tokio::test]
async fn each_path_has_its_method() {
    let gateway = Gateway::start().await;
    let detail = "The path does not support this method; Allow lists the supported ones";
    for (method, path, allowed) in [
        (Method::GET, PREDICT, "POST"),
        (Method::GET, "/v1/models/iris/versions/1:classify", "POST"),
        (Method::POST, "/v1/models/iris", "GET,HEAD"),
        (Method::POST, "/v1/models/iris/versions/1", "GET,HEAD"),
        (Method::POST, "/v1/models", "GET,HEAD"),
        (Method::DELETE, "/v1/models/iris", "GET,HEAD"),
        (Method::OPTIONS, "/v1/models/iris/versions/1", "GET,HEAD"),
        (Method::PUT, PREDICT, "POST"),
        (Method::OPTIONS, "/v1/models/iris/labels/stable:classify", "POST"),
    ] {
        let answer = gateway.send(method.clone(), path, &[], "").await;
        assert_error(&answer, 405, "method_not_allowed", detail);
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_not_supported_is_named() {
    let gateway = Gateway::start().await;
    for (verb, detail) in [
        ("regress", "Regressions are not supported: no signature of a model is one; use :predict"),
        ("explain", "Explanations are not supported; use :predict"),
    ] {
        let answer = gateway.post(&format!("/v1/models/iris:{verb}")).await;
        assert_error(&answer, 501, "not_supported", detail);
    }
}

#[tokio::test]
async fn a_prediction_needs_both_scopes_and_metadata_only_one() {
    let keys = Keys::with("");
    let (submitter, reader, both, other) = (
        keys.add("--scope submit"),
        keys.add("--scope read"),
        keys.add("--scope read --scope submit"),
        keys.add("--scope read --scope submit --model rose"),
    );
    let gateway = keys.gateway(&[("V2_WAIT_SECONDS", "1")]).await;
    let predict = async |key: &str| {
        let body = json!({"instances": [[5.1, 3.5, 1.4, 0.2]]}).to_string();
        send(&gateway, PREDICT, &[("authorization", &format!("Bearer {key}"))], body).await
    };
    let needs = |scope: &str| format!("This needs a key with the scope {scope}");
    assert_error(&predict(&submitter).await, 403, "insufficient_scope", &needs("read"));
    assert_error(&predict(&reader).await, 403, "insufficient_scope", &needs("submit"));
    assert_error(&predict(&other).await, 403, "model_forbidden", "The key is limited to other models");
    assert_eq!(predict(&both).await.status, 504);
    for path in ["/v1/models", "/v1/models/iris", "/v1/models/iris/metadata"] {
        assert_eq!(gateway.as_key(&reader, Method::GET, path, "").await.status, 200, "{path}");
        assert_eq!(gateway.as_key(&submitter, Method::GET, path, "").await.status, 403, "{path}");
    }
    let listed = gateway.as_key(&other, Method::GET, "/v1/models", "").await.json();
    assert_eq!(listed, json!({"object": "list", "data": [], "models": []}));
    assert_eq!(gateway.as_key(&other, Method::GET, "/v1/models/iris", "").await.status, 403);
}
