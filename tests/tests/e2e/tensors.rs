//! Tensors through the whole product: in as JSON, in binary form and as rows, out as JSON and as bytes. All ways give the same numbers.

use serde_json::{Value, json};
use tepal_tests::http::{Client, Method};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;

use crate::flowers::rows;
use crate::{SOON, finished, healthy, submit_each};

const LENGTH: &str = "inference-header-content-length";
/// Enough for a result that is stored apart from its job.
const ROWS: usize = 1000;

fn floats(rows: &[Value]) -> Vec<f32> {
    rows.iter().flat_map(|row| row.as_array().unwrap()).map(|value| value.as_f64().unwrap() as f32).collect()
}

fn inputs(rows: &[Value], elements: Value) -> Value {
    let mut tensor = json!({"name": "input", "shape": [rows.len(), 4], "datatype": "FP32"});
    for (name, value) in elements.as_object().unwrap() {
        tensor[name] = value.clone();
    }
    json!({"inputs": [tensor]})
}

async fn accepted(client: &Client, headers: &[(&str, &str)], body: Vec<u8>) -> String {
    let answer = client.request(Method::POST, "/predict", headers, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["job_id"].as_str().unwrap().to_owned()
}

async fn send_json(client: &Client, rows: &[Value]) -> String {
    let body = inputs(rows, json!({"data": rows}));
    accepted(client, &[("content-type", "application/json")], body.to_string().into()).await
}

async fn send_binary(client: &Client, rows: &[Value]) -> String {
    let raw: Vec<u8> = floats(rows).iter().flat_map(|element| element.to_le_bytes()).collect();
    let json = inputs(rows, json!({"parameters": {"binary_data_size": raw.len()}})).to_string();
    let length = json.len().to_string();
    accepted(client, &[(LENGTH, &length)], [json.as_bytes(), &raw].concat()).await
}

/// The only output of a job as JSON, which must have this many rows.
fn output_of(job: &Value, rows: usize) -> Vec<f32> {
    let output = &job["result"]["outputs"][0];
    let head = json!([output["name"], output["datatype"], output["shape"]]);
    assert_eq!(head, json!(["output", "FP32", [rows, 3]]));
    output["data"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// The raw bytes of a job in binary form.
async fn raw_of(client: &Client, id: &str) -> Vec<u8> {
    let headers = [("accept", "application/octet-stream")];
    let answer = client.request(Method::GET, &format!("/job/{id}"), &headers, "").await;
    let length: usize = answer.header(LENGTH).unwrap().parse().unwrap();
    let (json, raw) = answer.body.split_at(length);
    let job: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(job["result"]["outputs"][0]["parameters"]["binary_data_size"], raw.len());
    raw.to_vec()
}

#[tokio::test]
async fn all_ways_in_and_out_give_the_same_numbers() {
    let redis = RedisServer::shipped().start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let _worker = Worker::start(&redis.worker_url(), &[]).await;
    let client = proxy.client();
    healthy(&client).await;
    let few = rows(3);
    let many: Vec<Value> = rows(150).into_iter().cycle().take(ROWS).collect();

    for rows in [few, many] {
        let ids = [send_json(&client, &rows).await, send_binary(&client, &rows).await];
        let expected: Vec<f32> = finished(&client, &submit_each(&client, &rows[..3]).await)
            .await
            .iter()
            .flat_map(|job| job["result"]["probabilities"].as_array().unwrap().clone())
            .map(|value| value.as_f64().unwrap() as f32)
            .collect();
        for id in ids {
            let output = output_of(&client.finished(&id, SOON).await, rows.len());
            assert_eq!(output.len(), 3 * rows.len());
            let differs = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6;
            assert!(!output.iter().zip(&expected).any(differs), "{:?} {expected:?}", &output[..9]);
            let raw: Vec<u8> = output.iter().flat_map(|element| element.to_le_bytes()).collect();
            assert!(raw_of(&client, &id).await == raw);
        }
    }
}
