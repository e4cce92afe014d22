//! Results that are tensors: as JSON, and in the binary form of the Open Inference Protocol.

use serde_json::{Value, json};
use tepal_shared::{
    job::{Claim, JobId, LARGE_BYTES, Priority},
    queue::work::Settlement,
    tensor::{DataType, Tensor, stored_outputs},
};
use tepal_tests::{
    http::{Answer, Method},
    wait::eventually,
};

use crate::{
    expect::{assert_json, problem},
    gateway::{FLOWER, Gateway, JSON, SETOSA, SOON, accepted},
};

const BINARY: (&str, &str) = ("accept", "application/octet-stream");

fn floats(name: &str, shape: &[usize], elements: &[f32]) -> Tensor {
    let data = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    Tensor { name: name.to_owned(), datatype: DataType::Fp32, shape: shape.to_vec(), data }
}

/// Two outputs, one of them with values that JSON has no numbers for.
fn small() -> Vec<Tensor> {
    let label = Tensor {
        name: "label".to_owned(),
        datatype: DataType::Bytes,
        shape: vec![1],
        data: b"\x06\0\0\0setosa".to_vec(),
    };
    vec![floats("scores", &[1, 3], &[0.25, f32::NAN, f32::NEG_INFINITY]), label]
}

/// One output that is stored apart from its job.
fn large() -> Vec<Tensor> {
    let elements: Vec<f32> = (0..200_000).map(|number| number as f32 / 8.0).collect();
    vec![floats("pixels", &[2, 100_000], &elements)]
}

/// A job that ended with these tensors.
async fn completed(gateway: &Gateway, tensors: &[Tensor]) -> JobId {
    let id = gateway.store_job(Priority::Normal).await;
    let stored = stored_outputs::write(tensors.iter().map(Tensor::view));
    gateway.settle(&gateway.take_one().await, Settlement::CompleteStored(stored)).await;
    id
}

/// The body of a job without its result.
fn without_result(answer: &Answer) -> Value {
    let mut job = answer.json();
    job.as_object_mut().unwrap().remove("result");
    job
}

/// The JSON of a binary answer, and its raw bytes.
fn parts(answer: &Answer) -> (Value, Vec<u8>) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (text, raw) = answer.body.split_at(length);
    (serde_json::from_slice(text).unwrap(), raw.to_vec())
}

fn data_of(tensors: &[Tensor]) -> Vec<u8> {
    tensors.iter().flat_map(|tensor| tensor.data.clone()).collect()
}

async fn binary(gateway: &Gateway, id: JobId) -> Answer {
    gateway.send(Method::GET, &format!("/job/{id}"), &[BINARY], "").await
}

#[tokio::test]
async fn small_tensors_are_read_as_json_and_as_bytes() {
    let gateway = Gateway::start().await;
    let id = completed(&gateway, &small()).await;
    let answer = gateway.get(&format!("/job/{id}")).await;
    let mut expected = without_result(&answer);
    expected["result"] = json!({"outputs": [
        {"name": "scores", "shape": [1, 3], "datatype": "FP32", "data": [0.25, "NaN", "-Infinity"]},
        {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["setosa"]},
    ]});
    assert_json(&answer, 200, &[], &expected);

    let (job, raw) = parts(&binary(&gateway, id).await);
    expected["result"] = json!({"outputs": [
        {"name": "scores", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}},
        {"name": "label", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 10}},
    ]});
    assert_eq!(job, expected);
    assert_eq!(raw, data_of(&small()));
}

#[tokio::test]
async fn large_tensors_are_read_as_json_and_as_bytes() {
    let gateway = Gateway::start().await;
    let id = completed(&gateway, &large()).await;
    let result = gateway.get(&format!("/job/{id}")).await.json()["result"].clone();
    let elements: Vec<f32> = (0..200_000).map(|number| number as f32 / 8.0).collect();
    let output = json!({"name": "pixels", "shape": [2, 100_000], "datatype": "FP32", "data": elements});
    assert_eq!(result, json!({"outputs": [output]}));

    let (job, raw) = parts(&binary(&gateway, id).await);
    assert_eq!(job["result"]["outputs"][0]["parameters"], json!({"binary_data_size": 800_000}));
    assert!(raw == data_of(&large()), "{} bytes", raw.len());
}

#[tokio::test]
async fn each_form_has_an_etag_of_its_own() {
    let gateway = Gateway::start().await;
    let id = completed(&gateway, &small()).await;
    let path = format!("/job/{id}");
    let (as_json, as_bytes) = (gateway.get(&path).await, binary(&gateway, id).await);
    let tags = [&as_json, &as_bytes].map(|answer| answer.header("etag").unwrap().to_owned());
    assert_ne!(tags[0], tags[1]);
    assert_eq!([&as_json, &as_bytes].map(|answer| answer.header("vary").unwrap()), ["accept, prefer"; 2]);
    for (number, tag) in tags.iter().enumerate() {
        let tag = ("if-none-match", tag.as_str());
        let answers = [
            gateway.send(Method::GET, &path, &[tag], "").await,
            gateway.send(Method::GET, &path, &[tag, BINARY], "").await,
        ];
        assert_eq!(answers[number].status, 304);
        assert_eq!(answers[1 - number].status, 200);
    }
}

#[tokio::test]
async fn a_job_without_tensors_has_no_raw_bytes() {
    let gateway = Gateway::start().await;
    let (ended, waiting) = (gateway.completed().await, gateway.submit().await);
    for id in [ended, waiting] {
        let answer = binary(&gateway, id).await;
        let (job, raw) = parts(&answer);
        assert_eq!((job, raw.len()), (gateway.get(&format!("/job/{id}")).await.json(), 0));
        assert_eq!(answer.header("retry-after"), (id == waiting).then_some("1"));
    }
}

#[tokio::test]
async fn json_is_sent_unless_bytes_are_preferred() {
    let gateway = Gateway::start().await;
    let id = completed(&gateway, &small()).await;
    for accept in ["*/*", "application/*", "application/json, application/octet-stream;q=0.9"] {
        let answer = gateway.send(Method::GET, &format!("/job/{id}"), &[("accept", accept)], "").await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{accept}");
    }
    let path = format!("/job/{}", JobId::new(0));
    let missing = gateway.send(Method::GET, &path, &[BINARY], "").await;
    assert_eq!((missing.status, missing.header("content-type")), (404, Some("application/problem+json")));
}

/// Ends the next job that waits.
async fn end_next(gateway: &Gateway, settlement: Settlement) -> JobId {
    let claim =
        eventually(SOON, "a job to wait", async || -> Option<Claim> { gateway.take(0).await.pop() }).await;
    gateway.settle(&claim, settlement).await;
    claim.job_id
}

/// Submits the flower, waits for its end, and prefers bytes; the test ends the job like this.
async fn submit_and_wait(gateway: &Gateway, accept: &str, settlement: Settlement) -> (Answer, JobId) {
    let headers = [JSON, ("prefer", "wait=60"), ("accept", accept)];
    tokio::join!(gateway.send(Method::POST, "/predict", &headers, FLOWER), end_next(gateway, settlement))
}

#[tokio::test]
async fn a_submission_that_waits_is_answered_as_the_job_itself_in_each_form() {
    let gateway = Gateway::start().await;
    let tensors = |tensors: &[Tensor]| {
        Settlement::CompleteStored(stored_outputs::write(tensors.iter().map(Tensor::view)))
    };
    let failure =
        Settlement::Fail { code: "invalid_argument".to_owned(), error: "The model said no".to_owned() };
    let ends = [tensors(&small()), tensors(&large()), Settlement::Complete(SETOSA.to_owned()), failure];
    for end in ends {
        for accept in ["application/octet-stream", "application/json, application/octet-stream;q=0.5"] {
            let (answer, id) = submit_and_wait(&gateway, accept, end.clone()).await;
            let path = format!("/job/{id}");
            let job = gateway.send(Method::GET, &path, &[("accept", accept)], "").await;
            assert_eq!((answer.status, job.status), (200, 200), "{}", answer.text());
            assert!(answer.body == job.body, "{} {}", answer.body.len(), job.body.len());
            for name in ["content-type", "inference-header-content-length", "vary"] {
                assert_eq!(answer.header(name), job.header(name), "{name}");
            }
            assert_eq!(answer.header("content-location"), Some(path.as_str()));
            assert_eq!(answer.header("preference-applied"), Some("wait=60"));
        }
    }
}

#[tokio::test]
async fn raw_bytes_follow_the_answer_to_a_submission_that_waits() {
    let gateway = Gateway::start().await;
    let tensors = stored_outputs::write(small().iter().map(Tensor::view));
    let (answer, id) = submit_and_wait(&gateway, BINARY.1, Settlement::CompleteStored(tensors)).await;
    let (job, raw) = parts(&answer);
    assert_eq!(
        (job["job_id"].as_str(), job["status"].as_str()),
        (Some(id.to_string().as_str()), Some("completed"))
    );
    assert_eq!(job["result"]["outputs"][0]["parameters"], json!({"binary_data_size": 12}));
    assert_eq!(raw, data_of(&small()));
    assert_eq!(answer.header("vary"), Some("accept, prefer"));
}

/// The answer of a wait that is over is JSON, as is every error.
#[tokio::test]
async fn a_submission_that_prefers_bytes_gets_json_as_long_as_its_job_has_not_ended() {
    let gateway = Gateway::start().await;
    let headers = [JSON, ("prefer", "wait=0"), BINARY];
    let waited = gateway.send(Method::POST, "/predict", &headers, FLOWER).await;
    let id = waited.json()["job_id"].as_str().unwrap().to_owned();
    let location = format!("/job/{id}");
    let more =
        [("location", location.as_str()), ("preference-applied", "wait=0"), ("vary", "accept, prefer")];
    assert_json(&waited, 202, &more, &json!({"job_id": id, "status": "pending"}));

    let missing = gateway.send(Method::POST, "/predict", &headers, r#"{"data": [], "model": "none"}"#).await;
    problem(404, "model_not_found", "Model not found").assert(
        &missing,
        "/predict",
        "There is no such model; known are iris and language",
    );
    // Without a wait there are only answers in JSON.
    let refused = gateway.send(Method::POST, "/predict", &[JSON, BINARY], FLOWER).await;
    problem(406, "not_acceptable", "Not acceptable").assert(
        &refused,
        "/predict",
        "The answer is application/json, which Accept excludes",
    );
    let either = [JSON, ("accept", "application/octet-stream, application/json")];
    accepted(&gateway.send(Method::POST, "/predict", &either, FLOWER).await);
}

#[tokio::test]
async fn samples_and_retries_that_wait_are_answered_in_binary_form_too() {
    let gateway = Gateway::start().await;
    let failed = gateway.failed().await;
    for path in ["/predict/test".to_owned(), format!("/job/{failed}/retry")] {
        let headers = [("prefer", "wait=60"), BINARY];
        let tensors = stored_outputs::write(small().iter().map(Tensor::view));
        let (answer, _) = tokio::join!(
            gateway.send(Method::POST, &path, &headers, ""),
            end_next(&gateway, Settlement::CompleteStored(tensors))
        );
        assert_eq!(parts(&answer).1, data_of(&small()), "{path}");
    }
}

#[tokio::test]
async fn streams_and_lookups_show_tensors_as_json() {
    let gateway = Gateway::start().await;
    let mut ids = Vec::new();
    for tensors in [small(), large()] {
        ids.push(completed(&gateway, &tensors).await);
    }
    let body = json!({"job_ids": ids.iter().map(JobId::to_string).collect::<Vec<_>>()}).to_string();
    let answer = gateway.send(Method::POST, "/jobs/lookup", &[JSON], &body).await;
    let jobs = answer.json()["jobs"].clone();
    for (number, id) in ids.iter().enumerate() {
        let job = gateway.get(&format!("/job/{id}")).await;
        assert_eq!(jobs[number], job.json());
        let events = [("accept", "text/event-stream")];
        let stream = gateway.send(Method::GET, &format!("/job/{id}"), &events, "").await.text();
        assert!(stream.contains(&format!("\nevent: outcome\ndata: {}\n\n", job.text())), "{}", stream.len());
    }
}

/// The JSON of many small results is larger than the results.
#[tokio::test]
async fn a_lookup_holds_no_more_memory_than_it_may() {
    let gateway = Gateway::with(&[("BODY_MEMORY_BYTES", "8388608"), ("MAX_BODY_BYTES", "65536")]).await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        let data = [0xff, 0x03].repeat((LARGE_BYTES - 100) / 2);
        let shape = vec![data.len() / 2];
        let halves = Tensor { name: "y".to_owned(), datatype: DataType::Fp16, shape, data };
        ids.push(completed(&gateway, &[halves]).await.to_string());
    }
    let body = json!({"job_ids": ids}).to_string();
    let answer = gateway.send(Method::POST, "/jobs/lookup", &[JSON], &body).await;
    let found = answer.json();
    let (read, unread) = (found["jobs"].as_array().unwrap(), found["not_read"].as_array().unwrap());
    assert_eq!(read.len() + unread.len(), ids.len());
    assert!(!read.is_empty() && !unread.is_empty(), "{} {}", read.len(), unread.len());
    assert!(answer.body.len() < 8 << 20, "{}", answer.body.len());
}
