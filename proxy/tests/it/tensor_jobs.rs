//! Jobs with tensors: `inputs`, the binary form, and each kind of wrong tensor with its whole answer.

use serde_json::{Value, json};
use tepal_shared::job::{JobId, input::ResultForm};
use tepal_tests::http::{Answer, Method};

use crate::{
    expect::{invalid, problem},
    gateway::{FLOWER_INPUT, Gateway, JSON, accepted},
};

const LENGTH: &str = "inference-header-content-length";
const FLOWER: [f32; 4] = [5.1, 3.5, 1.4, 0.2];

/// A body with one tensor for the reference model.
fn tensor(shape: Value, data: Value) -> Value {
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": "FP32", "data": data}]})
}

fn flower() -> Value {
    tensor(json!([1, 4]), json!([5.1, 3.5, 1.4, 0.2]))
}

fn floats(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

/// The JSON of a body in binary form, for the reference model.
fn binary(shape: Value, size: usize) -> Value {
    let parameters = json!({"binary_data_size": size});
    json!({"inputs": [{"name": "input", "shape": shape, "datatype": "FP32", "parameters": parameters}]})
}

/// Sends a body in binary form with this header.
async fn post_binary(gateway: &Gateway, length: &str, json: &str, raw: &[u8]) -> Answer {
    gateway.post_bytes(&[(LENGTH, length)], [json.as_bytes(), raw].concat()).await
}

/// The same with the right header.
pub(crate) async fn send_binary(gateway: &Gateway, json: &Value, raw: &[u8]) -> Answer {
    let json = json.to_string();
    post_binary(gateway, &json.len().to_string(), &json, raw).await
}

/// The form and the stored tensors of the only waiting job.
pub(crate) async fn taken(gateway: &Gateway) -> (ResultForm, Vec<u8>) {
    let delivery = gateway.take_delivery().await;
    let (form, tensors) = ResultForm::of(&delivery.input).unwrap();
    (form, tensors.to_vec())
}

fn outputs(names: &[&str]) -> ResultForm {
    ResultForm::Outputs(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test]
async fn tensors_are_stored_as_the_same_rows_are() {
    let gateway = Gateway::start().await;
    let nested = tensor(json!([1, 4]), json!([[5.1, 3.5, 1.4, 0.2]]));
    for body in [flower(), nested] {
        accepted(&gateway.predict(&body.to_string()).await);
        assert_eq!(taken(&gateway).await, (outputs(&[]), FLOWER_INPUT.to_vec()));
    }
    let mut body = flower();
    body["outputs"] = json!(["output"]);
    accepted(&gateway.predict(&body.to_string()).await);
    assert_eq!(taken(&gateway).await, (outputs(&["output"]), FLOWER_INPUT.to_vec()));
}

#[tokio::test]
async fn the_header_makes_a_body_binary_whatever_its_media_type() {
    let gateway = Gateway::start().await;
    let body = binary(json!([1, 4]), 16).to_string();
    let length = body.len().to_string();
    let whole = [body.as_bytes(), &floats(&FLOWER)].concat();
    for media_type in [None, Some("application/octet-stream"), Some("application/json"), Some("image/png")] {
        let mut headers = vec![(LENGTH, length.as_str())];
        headers.extend(media_type.map(|media_type| ("content-type", media_type)));
        accepted(&gateway.post_bytes(&headers, whole.clone()).await);
        assert_eq!(taken(&gateway).await, (outputs(&[]), FLOWER_INPUT.to_vec()), "{media_type:?}");
    }
    let headers = [(LENGTH, length.as_str()), ("content-encoding", "gzip")];
    let refused = problem(415, "unsupported_media_type", "Unsupported media type");
    let detail = "The body must be sent as Content-Type: application/json, not compressed";
    refused.assert(&gateway.post_bytes(&headers, whole).await, "/predict", detail);
}

#[tokio::test]
async fn a_binary_body_may_have_rows_and_other_members() {
    let gateway = Gateway::start().await;
    let body = json!({"data": [FLOWER], "priority": "high"});
    accepted(&send_binary(&gateway, &body, &[]).await);
    assert_eq!(taken(&gateway).await.0, ResultForm::Prediction);
    let mut body = binary(json!([1, 4]), 16);
    body["timeout_seconds"] = json!(5);
    let id = accepted(&send_binary(&gateway, &body, &floats(&FLOWER)).await);
    assert_eq!(gateway.hash(id)["timeout_ms"], "5000");
}

/// Asserts that each body is refused with this mistake.
async fn assert_refused(cases: Vec<(Value, &str, &str, String)>) {
    let gateway = Gateway::start().await;
    for (body, place, code, what) in cases {
        let answer = gateway.predict(&body.to_string()).await;
        invalid(&[(place, code, &what)]).assert(&answer, "/predict", &format!("{place} {what}"));
    }
    assert!(gateway.keys().is_empty(), "{:?}", gateway.keys());
}

/// The valid body with these members in its tensor.
fn with(members: Value) -> Value {
    let mut body = flower();
    for (name, value) in members.as_object().unwrap() {
        body["inputs"][0][name] = value.clone();
    }
    body
}

#[tokio::test]
async fn wrong_tensors() {
    let datatypes = "must be one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, \
                     FP64, BYTES";
    let case = |body: Value, place, code, what: &str| (body, place, code, what.to_owned());
    assert_refused(vec![
        case(json!({"inputs": 5}), "/inputs", "type", "must be a list of tensors, not a number"),
        case(json!({"inputs": []}), "/inputs", "missing", "lacks the input `input`"),
        case(with(json!({"datatype": "fp32"})), "/inputs/0/datatype", "unknown_value", datatypes),
        case(with(json!({"datatype": "FP64"})), "/inputs/0/datatype", "datatype", "must be FP32, not FP64"),
        case(
            with(json!({"shape": [4]})),
            "/inputs/0/shape",
            "length",
            "must have 2 axes, as [-1, 4] says, not 1",
        ),
        case(with(json!({"shape": [2, 2]})), "/inputs/0/shape/1", "out_of_range", "must be 4, not 2"),
        case(
            with(json!({"shape": [-1, 4]})),
            "/inputs/0/shape/0",
            "out_of_range",
            "must be a whole number from 1, not -1",
        ),
        case(
            with(json!({"shape": [0, 4]})),
            "/inputs/0/shape/0",
            "out_of_range",
            "must be a whole number from 1, not 0",
        ),
        case(
            with(json!({"shape": [1_u64 << 40, 1_u64 << 40]})),
            "/inputs/0/shape",
            "out_of_range",
            "must have at most 1073741824 elements in all",
        ),
    ])
    .await;
}

#[tokio::test]
async fn wrong_elements() {
    let out_of_bounds = "sepal_width must be greater than 0 and less than 10, but is 10.0";
    let small_bounds = "petal_length must be greater than 0 and less than 10, but is -1.0";
    let case = |body: Value, place, code, what: &str| (body, place, code, what.to_owned());
    assert_refused(vec![
        case(
            with(json!({"data": [5.1, 3.5, 1.4]})),
            "/inputs/0/data",
            "length",
            "must have 4 values, as the shape [1, 4] says, not 3",
        ),
        case(
            with(json!({"data": [5.1, 3.5, "a", 0.2]})),
            "/inputs/0/data/2",
            "type",
            "must be a number, not a string",
        ),
        case(
            with(json!({"data": [5.1, 3.5, 1e39, 0.2]})),
            "/inputs/0/data/2",
            "not_representable",
            "must be a finite 32-bit float, and 1e+39 is none",
        ),
        case(with(json!({"data": [5.1, 10, 1.4, 0.2]})), "/inputs/0/data/1", "out_of_range", out_of_bounds),
        case(
            with(json!({"data": [[5.1, 3.5, -1, 0.2]]})),
            "/inputs/0/data/0/2",
            "out_of_range",
            small_bounds,
        ),
        case(
            tensor(json!([1025, 4]), json!(vec![1; 4100])),
            "/inputs/0/shape/0",
            "too_many_rows",
            "must be 1 to 1024 rows, not 1025",
        ),
        case(
            with(json!({"parameters": {}})),
            "/inputs/0/parameters",
            "unknown_field",
            "is not a member of a tensor; known are name, shape, datatype, data",
        ),
    ])
    .await;
}

#[tokio::test]
async fn wrong_names_and_members_that_exclude_each_other() {
    let gateway = Gateway::start().await;
    let wrong_name = with(json!({"name": "x"}));
    let unknown = "is not an input of the model; its inputs are `input`";
    let expected = invalid(&[
        ("/inputs/0/name", "unknown_value", unknown),
        ("/inputs", "missing", "lacks the input `input`"),
    ]);
    let detail = format!("/inputs/0/name {unknown} (and 1 more)");
    expected.assert(&gateway.predict(&wrong_name.to_string()).await, "/predict", &detail);

    let both = json!({"data": [FLOWER], "inputs": flower()["inputs"]});
    let outputs_of_rows = json!({"data": [FLOWER], "outputs": ["output"]});
    let mut surplus = flower();
    surplus["inputs"].as_array_mut().unwrap().push(flower()["inputs"][0].clone());
    let with_outputs = |outputs: Value| {
        let mut body = flower();
        body["outputs"] = outputs;
        body
    };
    let unknown = "is not an output of the model; its outputs are `output`";
    assert_refused(vec![
        (both, "/inputs", "conflict", "must be omitted, since the request has data".to_owned()),
        (
            outputs_of_rows,
            "/outputs",
            "conflict",
            "must be omitted, since the request has no inputs".to_owned(),
        ),
        (surplus, "/inputs/1/name", "repeated", "must name each input only once".to_owned()),
        (with_outputs(json!(["scores"])), "/outputs/0", "unknown_value", unknown.to_owned()),
        (
            with_outputs(json!(["output", "output"])),
            "/outputs/1",
            "repeated",
            "must name each output only once".to_owned(),
        ),
        (with_outputs(json!([5])), "/outputs/0", "type", "must be a string, not a number".to_owned()),
        (
            with_outputs(json!("output")),
            "/outputs",
            "type",
            "must be a list of names of outputs, not a string".to_owned(),
        ),
    ])
    .await;
}

#[tokio::test]
async fn binary_bodies_with_wrong_bytes() {
    let gateway = Gateway::start().await;
    let size = "/inputs/0/parameters/binary_data_size";
    let flower = floats(&FLOWER);
    let bounds = "petal_width must be greater than 0 and less than 10, but element 3 is 0.0";
    let cases: [(Value, &[u8], &str, &str, &str); 6] = [
        (
            binary(json!([1, 4]), 16),
            &flower[..12],
            size,
            "length",
            "must be at most the raw bytes that are left, 12, not 16",
        ),
        (
            binary(json!([1, 4]), 16),
            &[&flower[..], b"..."].concat(),
            "/inputs",
            "length",
            "must announce all raw bytes of the body; 3 bytes follow the last tensor",
        ),
        (
            binary(json!([1, 4]), 15),
            &flower[..15],
            size,
            "length",
            "must be 16, since FP32 of the shape [1, 4] has so many bytes, not 15",
        ),
        (
            binary(json!([2, 4]), 16),
            &flower,
            size,
            "length",
            "must be 32, since FP32 of the shape [2, 4] has so many bytes, not 16",
        ),
        (binary(json!([1, 4]), 16), &floats(&[5.1, 3.5, 1.4, 0.0]), "/inputs/0", "out_of_range", bounds),
        (
            json!({"data": [FLOWER]}),
            b"..",
            "/data",
            "conflict",
            "must be omitted, since 2 raw bytes follow the JSON; they need inputs",
        ),
    ];
    for (body, raw, place, code, what) in cases {
        let answer = send_binary(&gateway, &body, raw).await;
        invalid(&[(place, code, what)]).assert(&answer, "/predict", &format!("{place} {what}"));
    }
}

#[tokio::test]
async fn a_length_that_lies() {
    let gateway = Gateway::start().await;
    let (body, raw) = (binary(json!([1, 4]), 16).to_string(), floats(&FLOWER));
    let whole = body.len() + raw.len();
    let name = "Inference-Header-Content-Length";
    for length in ["0".to_owned(), (whole + 1).to_string(), "9".repeat(30)] {
        let what = format!("must be from 1 to the length of the body, {whole}, not {length}");
        let answer = post_binary(&gateway, &length, &body, &raw).await;
        invalid(&[(name, "out_of_range", &what)]).assert(&answer, "/predict", &format!("{name} {what}"));
    }
    for length in ["-1", "1.5", "0x10", "all"] {
        let what = "must be a number of bytes";
        let answer = post_binary(&gateway, length, &body, &raw).await;
        invalid(&[(name, "out_of_range", what)]).assert(&answer, "/predict", &format!("{name} {what}"));
    }
    let refused = problem(400, "invalid_json", "Invalid JSON");
    let short = body.len() - 1;
    let answer = post_binary(&gateway, &short.to_string(), &body, &raw).await;
    let why = format!("EOF while parsing an object at line 1 column {short}");
    let detail = format!("The body is not valid JSON: {why}, in the first {short} bytes, as {name} says");
    refused.assert(&answer, "/predict", &detail);
    let answer = post_binary(&gateway, &whole.to_string(), &body, &raw).await;
    let not_text = body.len() + 2;
    let detail = format!(
        "The body is not valid JSON: byte {not_text} is not UTF-8, in the first {whole} bytes, as {name} says"
    );
    refused.assert(&answer, "/predict", &detail);

    let repeated = gateway.post_bytes(&[(LENGTH, "5"), (LENGTH, "6")], body.into_bytes()).await;
    let expected = problem(400, "repeated_header", "Repeated header");
    expected.assert(&repeated, "/predict", &format!("The header {name} must be given only once"));
}

#[tokio::test]
async fn a_key_belongs_to_the_tensors_and_to_the_form_of_the_result() {
    let gateway = Gateway::start().await;
    let send = async |body: Value| gateway.predict_once("order-1", &body.to_string()).await;
    let id: JobId = accepted(&send(flower()).await);
    let nested = tensor(json!([1, 4]), json!([[5.1, 3.50, 1.4, 0.2]]));
    assert_eq!(accepted(&send(nested).await), id);
    let mut named = flower();
    named["outputs"] = json!(["output"]);
    for other in [named, json!({"data": [FLOWER]})] {
        assert_eq!(send(other).await.json()["code"], "idempotency_conflict");
    }
}

#[tokio::test]
async fn tensors_are_jobs_of_a_batch_too() {
    let gateway = Gateway::start().await;
    let body = json!([flower(), {"data": [FLOWER]}, {"inputs": []}]).to_string();
    let answer = gateway.send(Method::POST, "/predict/batch", &[JSON], &body).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let error = &answer.json()["jobs"][2]["problem"]["errors"][0];
    assert_eq!(error["pointer"], "/inputs");
    assert_eq!(gateway.take(0).await.len(), 2);
}
