//! All 150 flowers over HTTP, as 150 jobs and as one job, with each backend. The classes must be the same, and right.

use serde_json::{Value, json};
use tepal_tests::http::Client;
use tepal_tests::model_server::{AnswerStyle, ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;

use crate::flowers::{accuracy, rows};
use crate::{SOON, finished, healthy, submit_each};

#[tokio::test]
async fn all_flowers_are_classified_by_the_in_process_model() {
    classify_all_flowers(&[]).await;
}

#[tokio::test]
async fn all_flowers_are_classified_by_a_server_that_answers_in_float_val() {
    classify_by_server(TENSORFLOW_SERVING, AnswerStyle::FloatVal).await;
}

#[tokio::test]
async fn all_flowers_are_classified_by_a_server_that_answers_in_tensor_content() {
    classify_by_server(TENSORFLOW_SERVING, AnswerStyle::TensorContent).await;
}

#[tokio::test]
async fn all_flowers_are_classified_by_a_server_of_the_open_inference_protocol() {
    classify_by_server(OPEN_INFERENCE, AnswerStyle::FloatVal).await;
    classify_by_server(OPEN_INFERENCE, AnswerStyle::TensorContent).await;
}

/// A backend, and the setting of its port.
type Protocol = (&'static str, &'static str);

const TENSORFLOW_SERVING: Protocol = ("tensorflow_serving", "TF_SERVING_GRPC_PORT");
const OPEN_INFERENCE: Protocol = ("open_inference", "OPEN_INFERENCE_GRPC_PORT");

async fn classify_by_server((backend, setting): Protocol, answer_style: AnswerStyle) {
    let server = ModelServer::start(ServerSpec { answer_style, ..ServerSpec::iris() }).await;
    let port = server.addr().port().to_string();

    classify_all_flowers(&[("MODEL_BACKEND", backend), (setting, &port)]).await;

    // Each flower went over the wire twice.
    assert_eq!(server.calls().iter().map(|call| call.rows).sum::<usize>(), 300);
}

async fn classify_all_flowers(backend: &[(&str, &str)]) {
    let redis = RedisServer::shipped().start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let _worker = Worker::start(&redis.worker_url(), backend).await;
    let client = proxy.client();
    healthy(&client).await;

    let one_each = one_job_each(&client).await;
    let together = one_job_for_all(&client).await;

    assert_eq!(one_each, together);
    assert!(accuracy(&one_each) > 0.95, "{}", accuracy(&one_each));
}

async fn one_job_each(client: &Client) -> Vec<u64> {
    let ids = submit_each(client, &rows(150)).await;
    finished(client, &ids).await.iter().map(|job| class_of(&job["result"])).collect()
}

async fn one_job_for_all(client: &Client) -> Vec<u64> {
    let id = client.predict(&json!(rows(150))).await;
    let job = client.finished(&id, SOON).await;
    let predictions = job["result"]["predictions"].as_array().unwrap();
    assert_eq!(class_of(&job["result"]), class_of(&predictions[0]));
    predictions.iter().map(class_of).collect()
}

/// The class of a complete answer for one row.
fn class_of(answer: &Value) -> u64 {
    let class = answer["prediction"].as_u64().unwrap_or_else(|| panic!("no class in {answer}"));
    assert_eq!(answer["class_name"], ["setosa", "versicolor", "virginica"][class as usize]);
    let probabilities: Vec<f64> =
        answer["probabilities"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect();
    assert_eq!(probabilities.len(), 3);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{answer}");
    assert!(probabilities.iter().all(|share| *share <= probabilities[class as usize]), "{answer}");
    class
}
