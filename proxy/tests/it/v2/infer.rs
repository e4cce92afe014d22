use serde_json::{Value, json};
use tepal_shared::{
    job::{Priority, input::ResultForm},
    queue::work::Settlement,
    tensor::{DataType, Tensor},
};

use super::{
    INFER, PROBABILITIES, answered, assert_error, complete, exchange, floats, flower, next_job, output, send,
};
use crate::gateway::{FLOWER_INPUT, Gateway};

#[tokio::test]
async fn the_answer_has_the_outputs_and_names_the_job() {
    let gateway = Gateway::start().await;
    // No media type, as the client of Triton sends it.
    let body = flower(json!({"id": "7", "unknown": null})).to_string();
    let answer = exchange(&gateway, INFER, &[], body.into()).await;
    assert_eq!(answer.json(), answered(json!({"id": "7"})));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let job = gateway.get(&format!("/job/{}", answer.header("tepal-job-id").unwrap())).await.json();
    assert_eq!(job["status"], "completed");
    assert_eq!(job["result"]["outputs"], answer.json()["outputs"]);
}

#[tokio::test]
async fn a_version_can_be_named() {
    let gateway = Gateway::start().await;
    let body = flower(json!({})).to_string();
    let path = "/v2/models/iris/versions/1/infer";
    assert_eq!(exchange(&gateway, path, &[], body.clone().into()).await.json(), answered(json!({})));
    let answer = send(&gateway, "/v2/models/iris/versions/2/infer", &[], body.clone()).await;
    let detail = "The model has no such version; those that can be pinned are 1";
    assert_error(&answer, 404, "model_version_not_found", detail);
    let answer = send(&gateway, "/v2/models/rose/infer", &[], body).await;
    assert_error(&answer, 404, "model_not_found", "There is no such model; known are iris and language");
}

#[tokio::test]
async fn the_length_of_an_id_is_counted_in_characters() {
    let gateway = Gateway::start().await;
    let longest = "\u{10ffff}".repeat(1024);
    let asked = flower(json!({"id": longest})).to_string();
    let answer = exchange(&gateway, INFER, &[], asked.into()).await;
    assert_eq!(answer.json(), answered(json!({"id": longest})));
}

#[tokio::test]
async fn null_counts_as_an_omitted_member() {
    let gateway = Gateway::start().await;
    let limits = json!({"priority": null, "timeout": null, "binary_data_output": null, "sequence_id": null});
    for parameters in [json!(null), limits] {
        let mut asked = flower(json!({"id": null, "outputs": null, "parameters": parameters}));
        asked["inputs"][0]["parameters"] = Value::Null;
        let answer = exchange(&gateway, INFER, &[], asked.to_string().into()).await;
        assert_eq!((answer.status, answer.json()), (200, answered(json!({}))), "{parameters}");
    }
}

/// JSON and raw tensors, with the header for their division.
fn binary(json: &Value, raw: &[u8]) -> (String, Vec<u8>) {
    let json = json.to_string();
    (json.len().to_string(), [json.as_bytes(), raw].concat())
}

#[tokio::test]
async fn tensors_are_raw_bytes_both_ways() {
    let gateway = Gateway::start().await;
    let raw = floats(&[5.1, 3.5, 1.4, 0.2]);
    let asked = json!({
        "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
        "parameters": {"binary_data_output": true},
    });
    let (length, body) = binary(&asked, &raw);
    let headers =
        [("inference-header-content-length", length.as_str()), ("content-type", "application/octet-stream")];
    let answer = exchange(&gateway, INFER, &headers, body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")));
    let length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (text, data) = answer.body.split_at(length);
    let mut expected = answered(json!({}));
    expected["outputs"][0].as_object_mut().unwrap().remove("data");
    expected["outputs"][0]["parameters"] = json!({"binary_data_size": 12});
    assert_eq!(serde_json::from_slice::<Value>(text).unwrap(), expected);
    assert_eq!(data, floats(&PROBABILITIES));
}

#[tokio::test]
async fn each_output_has_the_form_that_is_asked_for() {
    let gateway = Gateway::start().await;
    for (own, all, is_raw) in
        [(json!(false), true, false), (json!(true), false, true), (json!(null), true, true)]
    {
        let outputs = json!([{"name": "output", "parameters": {"binary_data": own}}]);
        let body = flower(json!({"outputs": outputs, "parameters": {"binary_data_output": all}}));
        let answer = exchange(&gateway, INFER, &[], body.to_string().into()).await;
        assert_eq!(answer.header("inference-header-content-length").is_some(), is_raw, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_large_result_is_answered_in_both_forms() {
    let gateway = Gateway::start().await;
    let elements: Vec<f32> = (0..100_000).map(|number| number as f32 / 8.0).collect();
    let large = Tensor {
        name: "output".to_owned(),
        datatype: DataType::Fp32,
        shape: vec![1, 100_000],
        data: floats(&elements),
    };
    for is_raw in [false, true] {
        let body = flower(json!({"parameters": {"binary_data_output": is_raw}})).to_string();
        let worker = async {
            let job = next_job(&gateway).await;
            complete(&gateway, &job.attempt.claim, std::slice::from_ref(&large)).await;
        };
        let (answer, ()) = tokio::join!(send(&gateway, INFER, &[], body), worker);
        assert_eq!(answer.status, 200);
        if is_raw {
            assert!(answer.body.ends_with(&large.data));
        } else {
            let data = &answer.json()["outputs"][0]["data"];
            assert_eq!(serde_json::from_value::<Vec<f32>>(data.clone()).unwrap(), elements);
        }
    }
}

#[tokio::test]
async fn the_job_has_the_tensors_the_outputs_and_the_limits_of_the_request() {
    let gateway = Gateway::start().await;
    for (parameters, priority) in [
        (json!({}), Priority::Normal),
        (json!({"priority": 0}), Priority::Normal),
        (json!({"priority": 1}), Priority::High),
        (json!({"priority": 2, "timeout": 0}), Priority::Normal),
        (json!({"priority": 3, "timeout": 60_000_000}), Priority::Low),
        (json!({"priority": 1.0, "timeout": 6e7}), Priority::High),
        (json!({"priority": 1e300, "timeout": 1e300}), Priority::Low),
    ] {
        let body = flower(json!({"outputs": [{"name": "output"}], "parameters": parameters})).to_string();
        let worker = async {
            let job = next_job(&gateway).await;
            let (form, tensors) = ResultForm::of(&job.input).unwrap();
            assert_eq!(form, ResultForm::Outputs(vec!["output".to_owned()]));
            assert_eq!(tensors, FLOWER_INPUT);
            complete(&gateway, &job.attempt.claim, &[output()]).await;
        };
        let (answer, ()) = tokio::join!(send(&gateway, INFER, &[], body), worker);
        let id = answer.header("tepal-job-id").unwrap_or_else(|| panic!("{}", answer.text()));
        let job = gateway.get(&format!("/job/{id}")).await.json();
        assert_eq!(job["priority"], priority.as_str(), "{parameters}");
    }
}

#[tokio::test]
async fn a_failed_job_is_an_error_with_its_reason() {
    let gateway = Gateway::start().await;
    for (code, status) in
        [("model_rejected", 400), ("model_error", 500), ("queue_timeout", 504), ("model_overloaded", 503)]
    {
        let worker = async {
            let job = next_job(&gateway).await;
            let failure = Settlement::Fail { code: code.to_owned(), error: "It did not work".to_owned() };
            gateway.settle(&job.attempt.claim, failure).await;
        };
        let (answer, ()) = tokio::join!(send(&gateway, INFER, &[], flower(json!({})).to_string()), worker);
        assert_error(&answer, status, code, "It did not work");
        assert!(answer.header("tepal-job-id").is_some());
    }
}

#[tokio::test]
async fn every_mistake_is_an_error_of_the_protocol() {
    let gateway = Gateway::start().await;
    let with = |path: &str, value: Value| {
        let mut request = flower(json!({"outputs": [{"name": "output"}], "parameters": {}}));
        *request.pointer_mut(path).unwrap() = value;
        request
    };
    let cases = [
        (json!([]), "The body must be an object, not a list"),
        (json!({}), "/inputs is missing"),
        (flower(json!({"id": 1})), "/id must be a string, not a number"),
        (flower(json!({"id": "x".repeat(1025)})), "/id must have at most 1024 characters"),
        (
            with("/inputs/0/name", json!("x")),
            "/inputs/0/name is not an input of the model; its inputs are `input`",
        ),
        (with("/inputs/0/datatype", json!("fp32")), "/inputs/0/datatype must be one of BOOL, UINT8, UINT16"),
        (with("/inputs/0/datatype", json!("FP64")), "/inputs/0/datatype must be FP32, not FP64"),
        (
            with("/inputs/0/shape", json!([1, 5])),
            "/inputs/0/data must have 5 values, as the shape [1, 5] says, not 4",
        ),
        (with("/inputs/0/data/2", json!("x")), "/inputs/0/data/2 must be a number"),
        (with("/inputs/0/data/2", json!(99)), "/inputs/0/data/2 petal_length must be"),
        (
            with("/outputs/0/name", json!("x")),
            "/outputs/0 is not an output of the model; its outputs are `output`",
        ),
        (with("/outputs", json!("x")), "/outputs must be a list of objects with name, not a string"),
        (with("/outputs/0", json!("x")), "/outputs/0 must be an object with name, not a string"),
        (with("/outputs/0/name", json!(1)), "/outputs/0/name must be the name of an output, a string"),
        (
            with("/outputs/0", json!({"name": "output", "parameters": {"classification": 2}})),
            "/outputs/0/parameters/classification is not supported; the answer contains the output itself",
        ),
        (with("/parameters", json!(1)), "/parameters must be an object, not a number"),
        (
            with("/parameters", json!({"priority": "1"})),
            "/parameters/priority must be a whole number, not a string",
        ),
        (with("/parameters", json!({"timeout": -1})), "/parameters/timeout must be a whole number, not -1"),
        (with("/parameters", json!({"timeout": 1.5})), "/parameters/timeout must be a whole number, not 1.5"),
        (
            with("/parameters", json!({"binary_data_output": 1})),
            "/parameters/binary_data_output must be true or false, not a number",
        ),
        (
            with("/parameters", json!({"sequence_id": 5})),
            "/parameters/sequence_id is not supported: each request is a job of its own",
        ),
    ];
    for (body, expected) in cases {
        let answer = send(&gateway, INFER, &[], body.to_string()).await;
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.starts_with(expected), "{body}: {error}");
        assert_error(&answer, 400, "invalid_input", &error);
    }
    assert_eq!(gateway.log_length(), 0);
}

#[tokio::test]
async fn a_body_that_is_not_the_protocols_is_refused() {
    let gateway = Gateway::start().await;
    let answer = send(&gateway, INFER, &[], "{").await;
    assert_eq!(
        (answer.status, answer.json()["code"].clone()),
        (400, json!("invalid_json")),
        "{}",
        answer.text()
    );
    let answer = send(&gateway, INFER, &[("content-encoding", "gzip")], "{}").await;
    assert_error(&answer, 415, "unsupported_media_type", "The body must not be compressed");
    for length in ["0", "3", "x"] {
        let answer = send(&gateway, INFER, &[("inference-header-content-length", length)], "{}").await;
        assert_eq!((answer.status, answer.json()["code"].clone()), (400, json!("invalid_input")));
    }
    let (length, body) = binary(&flower(json!({})), b"more");
    let answer = send(&gateway, INFER, &[("inference-header-content-length", &length)], body).await;
    let detail = "/inputs must announce all raw bytes of the body; 4 bytes follow the last tensor";
    assert_error(&answer, 400, "invalid_input", detail);
    let large = vec![b' '; (8 << 20) + 1];
    let answer = send(&gateway, INFER, &[], large).await;
    assert_error(&answer, 413, "payload_too_large", "The body must hold at most 8388608 bytes");
}
