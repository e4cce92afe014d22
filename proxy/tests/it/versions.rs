//! Jobs that pin a version of their model.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tepal_shared::job::input;
use tepal_tests::http::Method;

use crate::{
    gateway::{FLOWER, FLOWER_INPUT, JSON, accepted},
    models::{gateway, problem},
};

/// The reference model in two versions.
fn versions() -> TempDir {
    let folder = TempDir::new().unwrap();
    let iris = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models/iris");
    for file in ["model.toml", "1/model.onnx", "2/model.onnx"] {
        let target = folder.path().join("iris").join(file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(iris.join(Path::new(file).file_name().unwrap()), target).unwrap();
    }
    folder
}

#[tokio::test]
async fn a_job_can_pin_a_version_in_its_body_or_in_the_query() {
    let folder = versions();
    let gateway = gateway(&folder, &[]).await;
    let pinned = |version: &str| FLOWER.replacen('{', &format!("{{\"version\": {version}, "), 1);
    let first = input::pin("1", FLOWER_INPUT);

    for body in [pinned("1"), pinned("1.0"), pinned("\"1\"")] {
        accepted(&gateway.predict(&body).await);
        assert_eq!(gateway.take_delivery().await.input, first);
    }
    for (path, body) in [
        ("/predict?version=1", FLOWER.to_owned()),
        ("/predict?model=iris&version=1", pinned("1")),
        ("/predict/test?version=1", String::new()),
    ] {
        accepted(&gateway.send(Method::POST, path, &[JSON], &body).await);
        assert_eq!(gateway.take_delivery().await.input, first, "{path}");
    }
    accepted(&gateway.predict(&pinned("2")).await);
    assert_eq!(gateway.take_delivery().await.input, input::pin("2", FLOWER_INPUT));
    accepted(&gateway.predict(FLOWER).await);
    assert_eq!(gateway.take_delivery().await.input, FLOWER_INPUT, "a job that pins none has no more bytes");
    assert_eq!(gateway.get("/models/iris").await.json()["versions"], json!(["2", "1"]));
}

#[tokio::test]
async fn a_version_that_cannot_be_pinned_is_not_found_and_those_that_can_are_named() {
    let folder = versions();
    let gateway = gateway(&folder, &[]).await;
    let with = |version: &str| FLOWER.replacen('{', &format!("{{\"version\": {version}, "), 1);

    let expected = (
        404,
        "model_version_not_found".to_owned(),
        "The model has no such version; those that can be pinned are 2 and 1".to_owned(),
    );
    for version in ["3", "\"latest\"", "9007199254740991"] {
        assert_eq!(problem(&gateway.predict(&with(version)).await), expected);
    }
    assert_eq!(problem(&gateway.post("/predict/test?version=01").await), expected);
    for (version, given) in
        [("1.5", "1.5"), ("-1", "-1"), ("1e400", "a number"), ("true", "a boolean"), ("null", "null")]
    {
        let answer = gateway.predict(&with(version)).await;
        let detail = format!("must be a version, as a string or a whole number, not {given}");
        let errors = json!([{"pointer": "/version", "code": "type", "detail": detail}]);
        assert_eq!((answer.status, &answer.json()["errors"]), (422, &errors));
    }
    let answer = gateway.send(Method::POST, "/predict?version=2", &[JSON], &with("1")).await;
    assert_eq!(answer.json()["errors"][0]["code"], "conflict");

    let batch = format!("[{}, {}, {FLOWER}]", with("3"), with("1"));
    let answer = gateway.send(Method::POST, "/predict/batch", &[JSON], &batch).await;
    assert_eq!(answer.json()["jobs"][0]["problem"]["code"], "model_version_not_found");
    let taken = gateway.deliveries_of("iris".parse().unwrap(), 0).await;
    let inputs: Vec<_> = taken.into_iter().map(|delivery| delivery.input).collect();
    assert_eq!(inputs, [input::pin("1", FLOWER_INPUT), FLOWER_INPUT.to_vec()]);
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_a_version() {
    let folder = versions();
    let gateway = gateway(&folder, &[]).await;
    assert_eq!(gateway.predict_once("key", FLOWER).await.status, 202);
    let pinned = FLOWER.replacen('{', "{\"version\": 2, ", 1);
    let answer = gateway.predict_once("key", &pinned).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (422, Some("idempotency_conflict")));
}
