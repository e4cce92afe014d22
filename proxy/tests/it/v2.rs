//! The Open Inference Protocol over HTTP.
//!
//! | module | shows |
//! | --- | --- |
//! | `infer` | requests and answers: JSON, raw tensors, each kind of mistake |
//! | `metadata` | health, metadata, what is not supported, API keys |
//! | `waiting` | time limits, clients that go away, idempotency keys, shutdown |

mod infer;
mod metadata;
mod waiting;

pub(crate) use self::waiting::{becomes, count};

use serde_json::{Value, json};
use tepal_shared::{
    job::{Claim, Delivery},
    queue::work::Settlement,
    tensor::{DataType, Tensor, stored_outputs},
};
use tepal_tests::{
    http::{Answer, Method},
    wait::eventually,
};

use crate::{
    expect::REQUEST_ID,
    gateway::{Gateway, SOON, model},
};

const INFER: &str = "/v2/models/iris/infer";
pub(crate) const PROBABILITIES: [f32; 3] = [0.75, 0.125, 0.125];

/// A request for the reference model, with these members in addition.
fn flower(more: Value) -> Value {
    let mut request = json!({
        "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}],
    });
    let members = request.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    request
}

pub(crate) fn floats(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

pub(crate) fn output() -> Tensor {
    let data = floats(&PROBABILITIES);
    Tensor { name: "output".to_owned(), datatype: DataType::Fp32, shape: vec![1, 3], data }
}

/// What a completed job of the reference model has for an answer in JSON.
fn answered(more: Value) -> Value {
    let mut answer = json!({
        "model_name": "iris",
        "model_version": "1",
        "outputs": [{"name": "output", "shape": [1, 3], "datatype": "FP32", "data": PROBABILITIES}],
    });
    answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    answer
}

/// Waits for a job, and takes it as a worker does.
pub(crate) async fn next_job(gateway: &Gateway) -> Delivery {
    let mut taken = Vec::new();
    eventually(SOON, "a job", async || {
        taken.extend(gateway.deliveries_of(model(), 0).await);
        !taken.is_empty()
    })
    .await;
    taken.remove(0)
}

pub(crate) async fn complete(gateway: &Gateway, claim: &Claim, tensors: &[Tensor]) {
    let stored = stored_outputs::write(tensors.iter().map(Tensor::view));
    gateway.settle(claim, Settlement::CompleteStored(stored)).await;
}

/// Sends the request while the test plays the worker.
pub(crate) async fn exchange(
    gateway: &Gateway,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Answer {
    let worker = async {
        let job = next_job(gateway).await;
        complete(gateway, &job.attempt.claim, &[output()]).await;
    };
    tokio::join!(send(gateway, path, headers, body), worker).0
}

pub(crate) async fn send(
    gateway: &Gateway,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Answer {
    let headers = [&[("x-request-id", REQUEST_ID)], headers].concat();
    gateway.proxy.client().request(Method::POST, path, &headers, body.into()).await
}

/// Asserts that the answer is this error of the protocol.
#[track_caller]
pub(crate) fn assert_error(answer: &Answer, status: u16, code: &str, error: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), json!({"error": error, "code": code, "request_id": REQUEST_ID}));
}
