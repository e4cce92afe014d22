//! Opaque models: any JSON value or any bytes in, the same out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_shared::{
    content::Content,
    job::{JobId, LARGE_BYTES, Priority},
    queue::work::Settlement,
};
use tepal_tests::http::{Answer, Method};

use crate::{
    expect::{invalid, problem},
    gateway::{Gateway, JSON, accepted},
};

const NO_TENSORS: &str = "must be omitted: the model has no tensors, it takes any JSON value as data";

/// A proxy with an opaque model. It has the name of the reference model, whose jobs the test takes.
async fn gateway(more: &str) -> (Gateway, TempDir) {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("iris")).unwrap();
    let text = format!(
        "{more}\n[http]\nurl = \"http://127.0.0.1:1/secret\"\nheaders.x-secret = {{ file = \"none\" }}\n"
    );
    std::fs::write(models.path().join("iris/model.toml"), text).unwrap();
    let gateway = Gateway::with(&[("MODELS_DIR", models.path().to_str().unwrap())]).await;
    (gateway, models)
}

/// The stored input of the only waiting job.
async fn taken(gateway: &Gateway) -> Vec<u8> {
    gateway.take_delivery().await.input
}

#[tokio::test]
async fn any_json_value_is_stored_as_compact_text() {
    let (gateway, _models) = gateway("").await;
    for data in
        ["null", "7", "\"é\"", "[1, [2.50, true]]", "{\"b\": {}, \"a\": [ ]}", "{\"data\": {\"model\": 1}}"]
    {
        accepted(&gateway.predict(&format!("{{\"data\": {data}, \"priority\": \"high\"}}")).await);
        let compact = serde_json::from_str::<Value>(data).unwrap().to_string();
        assert_eq!(taken(&gateway).await, Content::Json(&compact).stored(), "{data}");
    }
    let batch =
        gateway.send(Method::POST, "/predict/batch", &[JSON], "[{\"data\": 1}, {\"data\": {}}]").await;
    assert_eq!(batch.status, 202, "{}", batch.text());
}

#[tokio::test]
async fn a_body_of_any_other_type_is_the_input_itself() {
    let (gateway, _models) = gateway("").await;
    let long = format!("a/{}", "b".repeat(125));
    for content_type in [
        "image/png",
        "video/mp4",
        "text/html",
        "text/plain; charset=latin1",
        "multipart/form-data; boundary=x",
        &long,
    ] {
        let bytes = b"\xff\x00 not UTF-8";
        accepted(&gateway.post_bytes(&[("content-type", content_type)], bytes.to_vec()).await);
        assert_eq!(taken(&gateway).await, Content::Bytes { content_type, bytes }.stored());
    }
    let refused = problem(415, "unsupported_media_type", "Unsupported media type");
    let detail = "The body must be sent as Content-Type: application/json, not compressed";
    let longer = format!("{long}b");
    for headers in [
        &[][..],
        &[("content-type", "image/png"), ("content-encoding", "gzip")],
        &[("content-type", longer.as_str())],
    ] {
        refused.assert(&gateway.post_bytes(headers, b"x".to_vec()).await, "/predict", detail);
    }
}

#[tokio::test]
async fn tensors_are_refused_in_every_form() {
    let (gateway, _models) = gateway("").await;
    let field = |place| invalid(&[(place, "unknown_field", NO_TENSORS)]);
    let inputs =
        "{\"inputs\": [{\"name\": \"data\", \"shape\": [1], \"datatype\": \"BYTES\", \"data\": [\"x\"]}]}";
    field("/inputs").assert(&gateway.predict(inputs).await, "/predict", &format!("/inputs {NO_TENSORS}"));
    let length = inputs.len().to_string();
    let binary =
        gateway.send(Method::POST, "/predict", &[("inference-header-content-length", &length)], inputs).await;
    field("/inputs").assert(&binary, "/predict", &format!("/inputs {NO_TENSORS}"));
    let both = gateway.predict("{\"data\": 1, \"outputs\": [\"data\"]}").await;
    let mistakes = [
        ("/outputs", "unknown_field", NO_TENSORS),
        ("/outputs", "conflict", "must be omitted, since the request has no inputs"),
    ];
    invalid(&mistakes).assert(&both, "/predict", &format!("/outputs {NO_TENSORS} (and 1 more)"));
    let missing = gateway.predict("{}").await;
    invalid(&[("/data", "missing", "is missing")]).assert(&missing, "/predict", "/data is missing");
}

#[tokio::test]
async fn the_open_inference_protocol_shows_no_tensors_and_refuses_them() {
    let (gateway, _models) = gateway("").await;
    let model = gateway.get("/v2/models/iris").await.json();
    assert_eq!((&model["inputs"], &model["outputs"]), (&json!([]), &json!([])));
    let inputs =
        "{\"inputs\": [{\"name\": \"data\", \"shape\": [], \"datatype\": \"BYTES\", \"data\": [\"x\"]}]}";
    let answer = gateway.send(Method::POST, "/v2/models/iris/infer", &[JSON], inputs).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains(NO_TENSORS), "{}", answer.text());
}

#[tokio::test]
async fn a_number_that_no_float_holds_is_refused() {
    let (gateway, _models) = gateway("").await;
    let answer = gateway.predict("{\"data\": {\"a\": [1e400]}}").await;
    let what = "must be a number that a 64-bit float can represent, but is 1e400";
    invalid(&[("/data/a/0", "not_representable", what)]).assert(
        &answer,
        "/predict",
        &format!("/data/a/0 {what}"),
    );
}

#[tokio::test]
async fn a_model_that_takes_arrays_takes_no_raw_bodies() {
    let (gateway, _models) = gateway("max_batch = 8").await;
    let answer = gateway.post_bytes(&[("content-type", "image/png")], b"x".to_vec()).await;
    let detail = "The model takes no raw bodies; the body must be sent as Content-Type: application/json";
    problem(415, "unsupported_media_type", "Unsupported media type").assert(&answer, "/predict", detail);
    accepted(&gateway.predict("{\"data\": [1]}").await);
    assert_eq!(taken(&gateway).await, Content::Json("[1]").stored());
}

#[tokio::test]
async fn the_sample_can_be_submitted_if_there_is_one() {
    let (without, _models) = gateway("").await;
    let detail = "The model has no sample; its operator can add one to its model.toml";
    problem(404, "no_sample", "No sample").assert(
        &without.post("/predict/test").await,
        "/predict/test",
        detail,
    );
    let (with, _models) = gateway("sample = { prompt = \"hello\" }").await;
    accepted(&with.post("/predict/test").await);
    assert_eq!(taken(&with).await, Content::Json("{\"prompt\":\"hello\"}").stored());
}

#[tokio::test]
async fn the_model_is_shown_without_tensors_and_without_its_address() {
    let (gateway, _models) = gateway("sample = 5").await;
    let answer = gateway.get("/models/iris").await;
    let model = answer.json();
    assert_eq!(
        (&model["inputs"], &model["outputs"], &model["max_batch"]),
        (&json!([]), &json!([]), &json!(0))
    );
    assert_eq!((&model["sample"], &model["data_schema"]), (&json!(5), &json!(true)));
    assert!(!answer.text().contains("127.0.0.1") && !answer.text().contains("secret"), "{}", answer.text());
}

/// A job that ended like this.
async fn ended(gateway: &Gateway, end: Settlement) -> JobId {
    let id = gateway.store_job(Priority::Normal).await;
    gateway.settle(&gateway.take_one().await, end).await;
    id
}

async fn show(gateway: &Gateway, id: JobId, accept: &str) -> Answer {
    let answer = gateway.send(Method::GET, &format!("/job/{id}"), &[("accept", accept)], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

#[tokio::test]
async fn json_is_shown_as_it_is() {
    let (gateway, _models) = gateway("").await;
    let large = format!("[{}0]", "0,".repeat(LARGE_BYTES));
    for text in ["null", "5", "\"a\"", "[]", "{\"a\" : 1.10}", &large] {
        let id = ended(&gateway, Settlement::Complete(text.to_owned())).await;
        for accept in ["application/json", "application/octet-stream"] {
            let body = show(&gateway, id, accept).await.text();
            assert!(body.ends_with(&format!(",\"result\":{text}}}")), "{text}");
        }
    }
}

#[tokio::test]
async fn bytes_are_shown_in_json_or_as_they_are() {
    let (gateway, _models) = gateway("").await;
    for length in [5, 2 * LARGE_BYTES] {
        let (content_type, bytes) = ("image/png; a=b", vec![0xfe; length]);
        let stored = Content::Bytes { content_type, bytes: &bytes }.stored();
        let id = ended(&gateway, Settlement::CompleteStored(stored)).await;

        let as_json = show(&gateway, id, "*/*").await;
        let expected = json!({"content_type": content_type, "b64": STANDARD.encode(&bytes)});
        assert_eq!(
            (as_json.json()["result"].clone(), as_json.header("content-type")),
            (expected, Some("application/json"))
        );
        let lookup =
            gateway.send(Method::POST, "/jobs/lookup", &[JSON], &json!({"job_ids": [id]}).to_string()).await;
        assert_eq!(lookup.json()["jobs"][0], as_json.json());
        let mut tags = vec![as_json.header("etag").unwrap().to_owned()];
        for accept in ["application/octet-stream", "image/png, application/json;q=0.5"] {
            let raw = show(&gateway, id, accept).await;
            assert!(raw.body == bytes, "{} bytes", raw.body.len());
            assert_eq!(raw.header("content-type"), Some(content_type));
            assert_eq!(raw.header("content-disposition"), Some("attachment"));
            assert_eq!(raw.header("inference-header-content-length"), None);
            tags.push(raw.header("etag").unwrap().to_owned());
        }
        assert!(tags[0] != tags[1] && tags[1] == tags[2], "{tags:?}");
        let headers = [("accept", "image/png, */*;q=0.1"), ("if-none-match", tags[1].as_str())];
        let unchanged = gateway.send(Method::GET, &format!("/job/{id}"), &headers, "").await;
        assert_eq!(unchanged.status, 304);
    }
}

/// The events of the job, from its present state to its outcome.
async fn events(gateway: &Gateway, id: JobId) -> String {
    show(gateway, id, "text/event-stream, image/png;q=0.5").await.text()
}

#[tokio::test]
async fn a_stream_shows_bytes_in_json_on_one_line() {
    let (gateway, _models) = gateway("").await;
    for length in [5, 2 * LARGE_BYTES] {
        let stored = Content::Bytes { content_type: "image/png; a=b", bytes: &vec![b'\n'; length] }.stored();
        let id = ended(&gateway, Settlement::CompleteStored(stored)).await;
        let (stream, job) = (events(&gateway, id).await, show(&gateway, id, "*/*").await.text());
        assert!(stream.starts_with("retry: 1000\nid: "), "{stream}");
        assert!(stream.ends_with(&format!("\nevent: outcome\ndata: {job}\n\n")), "{stream}");
        assert_eq!(stream.lines().count(), 5, "{stream}");
    }
}

#[tokio::test]
async fn a_stream_shows_json_on_one_line() {
    let (gateway, _models) = gateway("").await;
    let large = format!("[\r\n{}0]", "0,\n".repeat(LARGE_BYTES));
    for text in ["{\n\"a\":\r1}", large.as_str()] {
        let id = ended(&gateway, Settlement::Complete(text.to_owned())).await;
        let stream = events(&gateway, id).await;
        let result = text.replace(['\n', '\r'], " ");
        assert!(stream.ends_with(&format!(",\"result\":{result}}}\n\n")), "{stream}");
    }
}

#[tokio::test]
async fn an_unfinished_job_is_json_whatever_bytes_the_client_prefers() {
    let (gateway, _models) = gateway("").await;
    let id = gateway.store_job(Priority::Normal).await;
    let answer = show(&gateway, id, "image/png, application/json;q=0.5").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["status"], "pending");
}

#[tokio::test]
async fn a_key_means_the_text_of_the_value_or_the_bytes_with_their_type() {
    let (gateway, _models) = gateway("").await;
    let first = accepted(&gateway.predict_once("a", "{\"data\": {\"x\": [1, 2]}}").await);
    assert_eq!(accepted(&gateway.predict_once("a", "{\"data\":{\"x\":[1,2]}}").await), first);
    let conflict = problem(422, "idempotency_conflict", "Idempotency key conflict");
    let detail = "The Idempotency-Key was used before with another request";
    conflict.assert(&gateway.predict_once("a", "{\"data\": {\"x\": [1, 3]}}").await, "/predict", detail);
    let send = async |content_type, bytes: &[u8]| {
        gateway.post_bytes(&[("content-type", content_type), ("idempotency-key", "b")], bytes.to_vec()).await
    };
    let raw = accepted(&send("image/png", b"x").await);
    assert_eq!(accepted(&send("image/png", b"x").await), raw);
    conflict.assert(&send("image/jpeg", b"x").await, "/predict", detail);
    conflict.assert(&send("image/png", b"y").await, "/predict", detail);
}

#[tokio::test]
async fn the_protocols_of_tensors_refuse_it() {
    let (gateway, _models) = gateway("").await;
    let tensor = json!({"name": "data", "shape": [1], "datatype": "BYTES", "data": ["1"]});
    for (path, body) in [
        ("/v2/models/iris/infer", json!({"inputs": [tensor]})),
        ("/v1/models/iris:predict", json!({"instances": [1]})),
        ("/v1/models/iris:predict", json!({"inputs": [1]})),
    ] {
        let answer = gateway.send(Method::POST, path, &[JSON], &body.to_string()).await;
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.ends_with(NO_TENSORS), "{path}: {}", answer.text());
        crate::v2::assert_error(&answer, 400, "invalid_input", &error);
    }
    assert_eq!(gateway.log_length(), 0);
}
