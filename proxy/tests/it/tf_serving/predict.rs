use std::time::Duration;

use serde_json::{Value, json};
use tepal_shared::{job::input::ResultForm, queue::work::Settlement, tensor::Tensor};

use super::{PREDICT, predict};
use crate::{
    gateway::{FLOWER_INPUT, Gateway},
    v2::{PROBABILITIES, assert_error, complete, exchange, floats, next_job, output, send},
};

const ROW: [f64; 4] = [5.1, 3.5, 1.4, 0.2];

#[tokio::test]
async fn the_answer_has_the_form_of_the_request_and_names_the_job() {
    let gateway = Gateway::start().await;
    let (predictions, outputs) =
        (json!({"predictions": [PROBABILITIES]}), json!({"outputs": [PROBABILITIES]}));
    for (body, expected) in [
        (json!({"instances": [ROW]}), &predictions),
        (json!({"instances": [{"input": ROW}]}), &predictions),
        (json!({"signature_name": "serving_default", "instances": [ROW], "parameters": null}), &predictions),
        (json!({"signature_name": "", "inputs": [ROW]}), &outputs),
        (json!({"inputs": {"input": [ROW], "surplus": 1}}), &outputs),
    ] {
        let (answer, input) = predict(&gateway, PREDICT, &body, &[output()]).await;
        assert_eq!((answer.status, &answer.json()), (200, expected), "{body}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(input, ResultForm::Outputs(vec![]).with(FLOWER_INPUT.to_vec()));
        let job = gateway.get(&format!("/job/{}", answer.header("tepal-job-id").unwrap())).await.json();
        assert_eq!(
            (&job["status"], &job["result"]["outputs"][0]["name"]),
            (&json!("completed"), &json!("output"))
        );
    }
}

#[tokio::test]
async fn the_verb_is_read_in_any_case_and_an_encoded_colon_is_one() {
    let gateway = Gateway::start().await;
    let body = json!({"instances": [ROW]});
    for path in
        ["/v1/models/iris:PREDICT", "/v1/models/iris%3Apredict", "/v1/models/iris/versions/01:Predict"]
    {
        let (answer, _) = predict(&gateway, path, &body, &[output()]).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"predictions": [PROBABILITIES]})), "{path}");
    }
}

#[tokio::test]
async fn rows_that_share_a_request_are_answered_together() {
    let gateway = Gateway::start().await;
    let rows = [ROW, [6.2, 2.9, 4.3, 1.3], [7.7, 3.8, 6.7, 2.2]];
    let tensor = Tensor {
        shape: vec![3, 3],
        data: floats(&[0.5, 0.25, 0.25, 0.0, 1.0, 0.0, f32::NAN, 0.0, f32::INFINITY]),
        ..output()
    };
    let list = json!([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], ["NaN", 0.0, "Infinity"]]);
    let (answer, _) =
        predict(&gateway, PREDICT, &json!({"instances": rows}), std::slice::from_ref(&tensor)).await;
    assert_eq!(answer.json(), json!({"predictions": list}));
    let (answer, _) = predict(&gateway, PREDICT, &json!({"inputs": rows}), &[tensor]).await;
    assert_eq!(answer.json(), json!({"outputs": list}));
}

#[tokio::test]
async fn a_large_result_is_answered_in_both_forms() {
    let gateway = Gateway::start().await;
    let elements: Vec<f32> = (0..100_000).map(|number| number as f32 / 8.0).collect();
    let large = Tensor { shape: vec![2, 50_000], data: floats(&elements), ..output() };
    for (member, answered) in [("instances", "predictions"), ("inputs", "outputs")] {
        let body = json!({member: [ROW, ROW]});
        let (answer, _) = predict(&gateway, PREDICT, &body, std::slice::from_ref(&large)).await;
        let rows: Vec<Vec<f32>> = serde_json::from_value(answer.json()[answered].clone()).unwrap();
        assert_eq!((answer.status, rows.concat()), (200, elements.clone()));
    }
}

#[tokio::test]
async fn every_mistake_points_at_its_place() {
    let gateway = Gateway::start().await;
    let rows = |rows: Value| json!({"instances": rows});
    for (body, expected) in [
        (json!([]), "The body must be an object, not a list"),
        (json!({}), "/instances is missing, and so is inputs"),
        (
            json!({"instances": [ROW], "inputs": [ROW]}),
            "/inputs must be omitted, since the request has instances",
        ),
        (
            json!({"instances": [ROW], "signature_name": "other"}),
            "/signature_name is not a signature of the model; its signature is `serving_default`",
        ),
        (json!({"instances": [ROW], "signature_name": null}), "/signature_name must be a string, not null"),
        (rows(json!([])), "/instances must hold 1 to 1024 rows, but is empty"),
        (rows(json!({"input": [ROW]})), "/instances must be a list of rows, not an object"),
        (rows(json!(vec![ROW; 1025])), "/instances must hold 1 to 1024 rows, not 1025"),
        (rows(json!(ROW)), "/instances/0 must be a list of 4 values, not a number (and 3 more)"),
        (rows(json!([ROW, [1, 2, 3]])), "/instances/1 must hold exactly 4 values, not 3"),
        (rows(json!([[1, 2, 3, "x"]])), "/instances/0/3 petal_width must be a number, not a string"),
        (rows(json!([[1, 2, 3, true]])), "/instances/0/3 petal_width must be a number, not a boolean"),
        (
            rows(json!([[1, 2, 3, 99]])),
            "/instances/0/3 petal_width must be greater than 0 and less than 10, but is 99",
        ),
        (
            rows(json!([{"input": ROW, "x": 1}])),
            "/instances/0/x is not an input of the model; its inputs are `input`",
        ),
        (rows(json!([{"input": ROW}, ROW])), r#"/instances/1 must be an object {"input": ...}, not a list"#),
        (json!({"inputs": 5}), "/inputs must be a list of rows, not a number"),
        (json!({"inputs": {}}), "/inputs/input is missing"),
        (
            json!({"inputs": {"input": ROW}}),
            "/inputs/input/0 must be a list of 4 values, not a number (and 3 more)",
        ),
    ] {
        assert_error(&send(&gateway, PREDICT, &[], body.to_string()).await, 400, "invalid_input", expected);
    }
    assert_eq!(gateway.log_length(), 0);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let gateway = Gateway::start().await;
    let answer = send(&gateway, PREDICT, &[], r#"{"instances": [[NaN]]}"#).await;
    let words = r#"The body is not valid JSON: expected value at line 1 column 17; write NaN, Infinity and -Infinity as strings, as in "NaN""#;
    assert_error(&answer, 400, "invalid_json", words);
    let answer = send(&gateway, PREDICT, &[("content-encoding", "gzip")], "{}").await;
    assert_error(&answer, 415, "unsupported_media_type", "The body must not be compressed");
    let answer = send(&gateway, PREDICT, &[], vec![b' '; (8 << 20) + 1]).await;
    assert_error(&answer, 413, "payload_too_large", "The body must hold at most 8388608 bytes");
}

#[tokio::test]
async fn a_failed_job_is_an_error_with_its_reason() {
    let gateway = Gateway::start().await;
    for (code, status) in [("model_rejected", 400), ("model_error", 500), ("timeout", 504)] {
        let worker = async {
            let job = next_job(&gateway).await;
            let failure = Settlement::Fail { code: code.to_owned(), error: "It did not work".to_owned() };
            gateway.settle(&job.attempt.claim, failure).await;
        };
        let body = json!({"instances": [ROW]}).to_string();
        let (answer, ()) = tokio::join!(send(&gateway, PREDICT, &[], body), worker);
        assert_error(&answer, status, code, "It did not work");
        assert!(answer.header("tepal-job-id").is_some());
    }
}

#[tokio::test]
async fn a_call_waits_as_long_as_the_setting_says_and_its_job_goes_on() {
    let gateway = Gateway::with(&[("V2_WAIT_SECONDS", "1")]).await;
    let answer = send(&gateway, PREDICT, &[], json!({"instances": [ROW]}).to_string()).await;
    let detail =
        "The job has not ended yet and goes on; the header tepal-job-id has its id for GET /job/{id}";
    assert_error(&answer, 504, "still_running", detail);
    let id = answer.header("tepal-job-id").unwrap();
    assert_eq!(answer.header("location"), Some(format!("/job/{id}").as_str()));
    complete(&gateway, &next_job(&gateway).await.attempt.claim, &[output()]).await;
    assert_eq!(gateway.get(&format!("/job/{id}")).await.json()["status"], "completed");
}

#[tokio::test]
async fn a_client_that_prefers_not_to_wait_gets_the_job() {
    let gateway = Gateway::start().await;
    let body = json!({"instances": [ROW]}).to_string();
    let answer = send(&gateway, PREDICT, &[("prefer", "respond-async")], body).await;
    let id = answer.header("tepal-job-id").unwrap();
    let expected = json!({"model_name": "iris", "model_version": "1", "job_id": id, "status": "pending"});
    assert_eq!((answer.status, answer.json()), (202, expected));
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
}

#[tokio::test]
async fn a_repeated_call_with_an_idempotency_key_gets_the_result_of_its_job() {
    let gateway = Gateway::start().await;
    let key = [("idempotency-key", "order-1")];
    let body = json!({"instances": [ROW]}).to_string();
    let first = exchange(&gateway, PREDICT, &key, body.clone().into()).await;
    // No worker is needed for the second call.
    let second =
        tokio::time::timeout(Duration::from_secs(30), send(&gateway, PREDICT, &key, body)).await.unwrap();
    assert_eq!((second.status, second.json()), (200, json!({"predictions": [PROBABILITIES]})));
    assert_eq!(second.header("tepal-job-id"), first.header("tepal-job-id"));
    // The same tensors make the same job, whatever their form.
    let columns = json!({"inputs": [ROW]}).to_string();
    assert_eq!(send(&gateway, PREDICT, &key, columns).await.json(), json!({"outputs": [PROBABILITIES]}));
    let other = json!({"instances": [[1, 2, 3, 4]]}).to_string();
    let detail = "The Idempotency-Key was used before with another request";
    assert_error(&send(&gateway, PREDICT, &key, other).await, 409, "idempotency_conflict", detail);
}
