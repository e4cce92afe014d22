//! Bodies that are the content of the only input of a model: text, images, any bytes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tepal_shared::job::input::ResultForm;
use tepal_tests::http::Method;

use crate::{
    expect::{invalid, problem},
    gateway::{Gateway, JSON, accepted},
    models::{TOY, repository},
    tensor_jobs::{send_binary, taken},
};

/// A model that takes one string.
const TEXT_MODEL: &str = r#"
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

/// A proxy with a model that takes one string. It has the name of the reference model, whose jobs the test takes.
async fn with_text_model() -> (Gateway, tempfile::TempDir) {
    let models = tempfile::tempdir().unwrap();
    let folder: std::path::PathBuf = models.path().join("iris");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.toml"), TEXT_MODEL).unwrap();
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
    let detail = "The model takes no raw bodies; the body must be sent as Content-Type: application/json";
    for media_type in ["image/png", "audio/wav", "application/octet-stream", "text/plain"] {
        let answer = gateway.post_bytes(&[("content-type", media_type)], b"x".to_vec()).await;
        refused.assert(&answer, "/predict", detail);
    }
    assert!(gateway.keys().is_empty());
}

#[tokio::test]
async fn a_query_names_the_model_of_a_body_that_cannot() {
    let models = repository();
    let folder = models.path().join("length");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.toml"), TEXT_MODEL.replace("\"iris\"", "\"length\"")).unwrap();
    let gateway = Gateway::with(&[("MODELS_DIR", models.path().to_str().unwrap())]).await;
    let send = async |path: &str, media_type: &str, body: &str| {
        gateway.send(Method::POST, path, &[("content-type", media_type)], body).await
    };

    accepted(&send("/predict?model=length", "image/png", "x").await);
    accepted(&send("/predict", JSON.1, r#"{"model": "length", "data": [[{"b64": "eA=="}]]}"#).await);
    let inputs = gateway.deliveries_of("length".parse().unwrap(), 0).await;
    assert_eq!((inputs.len(), &inputs[0].input), (2, &inputs[1].input));
    // In JSON, too.
    let toy = TOY.replace(r#""model": "toy", "#, "");
    accepted(&send("/predict?model=toy", JSON.1, &toy).await);
    accepted(&send("/predict?model=toy", JSON.1, TOY).await);

    let unknown = problem(404, "model_not_found", "Model not found");
    let answer = send("/predict?model=resnet", "image/png", "x").await;
    unknown.assert(&answer, "/predict", "There is no such model; known are iris, length and toy");
    let what = "must be omitted or the same as in the query";
    let answer = send("/predict?model=iris", JSON.1, TOY).await;
    invalid(&[("/model", "conflict", what)]).assert(&answer, "/predict", &format!("/model {what}"));
    let answer = send("/predict?modell=toy", JSON.1, &toy).await;
    let what = "is not a parameter of this request; known are model and version";
    invalid(&[("?modell", "unknown_parameter", what)]).assert(&answer, "/predict", &format!("modell {what}"));
    let what = "must be given only once";
    let answer = send("/predict?model=toy&model=toy", JSON.1, &toy).await;
    invalid(&[("?model", "repeated", what)]).assert(&answer, "/predict", &format!("model {what}"));
}

#[tokio::test]
async fn without_a_default_model_a_raw_body_needs_the_query() {
    let models = repository();
    std::fs::rename(models.path().join("iris"), models.path().join("length")).unwrap();
    std::fs::write(models.path().join("length/model.toml"), TEXT_MODEL.replace("\"iris\"", "\"length\""))
        .unwrap();
    std::fs::remove_file(models.path().join("length/model.onnx")).unwrap();
    let gateway = Gateway::with(&[("MODELS_DIR", models.path().to_str().unwrap())]).await;
    let what = "is missing; known are length and toy";
    let answer = gateway.post_bytes(&[("content-type", "image/png")], b"x".to_vec()).await;
    invalid(&[("?model", "missing", what)]).assert(&answer, "/predict", &format!("model {what}"));
    let answer = gateway.post("/predict/test").await;
    invalid(&[("?model", "missing", what)]).assert(&answer, "/predict/test", &format!("model {what}"));
}
