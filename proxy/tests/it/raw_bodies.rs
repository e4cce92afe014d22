//! Bodies that are the content of the only input of a model: text, images, any bytes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tepal_shared::job::input::ResultForm;

use crate::{
    expect::{invalid, problem},
    gateway::{Gateway, accepted},
    tensor_jobs::{send_binary, taken},
};

/// A proxy with a model that takes one string. It has the name of the reference model, whose jobs the test takes.
async fn with_text_model() -> (Gateway, tempfile::TempDir) {
    let models = tempfile::tempdir().unwrap();
    let folder: std::path::PathBuf = models.path().join("iris");
    std::fs::create_dir(&folder).unwrap();
    let description = r#"
        name = "iris"
        version = "1"
        max_batch = 8
        [[inputs]]
        name = "content"
        datatype = "BYTES"
        shape = [1]
        [[outputs]]
        name = "length"
        datatype = "INT64"
        shape = [1]
    "#;
    std::fs::write(folder.join("model.toml"), description).unwrap();
    let gateway =
        Gateway::with(&[("MODELS_DIR", models.path().to_str().unwrap()), ("MODEL_NAME", "iris")]).await;
    (gateway, models)
}

#[tokio::test]
async fn a_raw_body_is_the_only_element_of_a_model_that_takes_bytes() {
    let (gateway, _models) = with_text_model().await;
    for (media_type, content) in [
        ("image/jpeg", &b"\xff\xd8\xff"[..]),
        ("audio/wav", b"RIFF"),
        ("application/octet-stream", b"\0"),
        ("text/plain; charset=utf-8", "\u{e9}".as_bytes()),
        ("text/plain", b""),
    ] {
        accepted(&gateway.post_bytes(&[("content-type", media_type)], content.to_vec()).await);
        let as_json = json!({"data": [[{"b64": STANDARD.encode(content)}]]}).to_string();
        let raw = taken(&gateway).await;
        accepted(&gateway.predict(&as_json).await);
        assert_eq!(raw, taken(&gateway).await, "{media_type}");
        assert_eq!(raw.0, ResultForm::Prediction);
    }
}

#[tokio::test]
async fn text_must_be_utf_8() {
    let (gateway, _models) = with_text_model().await;
    let answer = gateway.post_bytes(&[("content-type", "text/plain")], b"ab\xff".to_vec()).await;
    let what = "must be UTF-8, but byte 2 is not; send other bytes as application/octet-stream";
    invalid(&[("", "invalid_utf8", what)]).assert(&answer, "/predict", &format!("The body {what}"));
    let body = json!({"inputs": [{"name": "content", "shape": [1, 1], "datatype": "BYTES", "data": [{"b64": "/w"}]}]});
    let error = gateway.predict(&body.to_string()).await.json()["errors"][0].clone();
    assert_eq!((&error["pointer"], &error["code"]), (&json!("/inputs/0/data/0"), &json!("invalid_base64")));
}

#[tokio::test]
async fn strings_in_binary_form_have_their_lengths() {
    let (gateway, _models) = with_text_model().await;
    let body = |size: usize| {
        let parameters = json!({"binary_data_size": size});
        let tensor =
            json!({"name": "content", "shape": [1, 1], "datatype": "BYTES", "parameters": parameters});
        json!({"inputs": [tensor]})
    };
    accepted(&send_binary(&gateway, &body(6), b"\x02\0\0\0\xff\xfe").await);
    let what =
        "must have elements with their lengths, four bytes each, but element 0 at byte 0 of 5 is incomplete";
    let answer = send_binary(&gateway, &body(5), b"\x02\0\0\0\xff").await;
    invalid(&[("/inputs/0", "length", what)]).assert(&answer, "/predict", &format!("/inputs/0 {what}"));
}

#[tokio::test]
async fn other_models_take_no_raw_body() {
    let gateway = Gateway::start().await;
    let refused = problem(415, "unsupported_media_type", "Unsupported media type");
    let detail =
        "The model has no single BYTES input, so the body must be sent as Content-Type: application/json";
    for media_type in ["image/png", "audio/wav", "application/octet-stream", "text/plain"] {
        let answer = gateway.post_bytes(&[("content-type", media_type)], b"x".to_vec()).await;
        refused.assert(&answer, "/predict", detail);
    }
    assert!(gateway.keys().is_empty());
}
