//! Another model, with other names, shapes and results, needs only two settings: no code is for Iris only.

use serde_json::json;
use tepal_tests::model_server::{ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::{SOON, healthy, models, root};

#[tokio::test]
async fn another_model_runs_in_process() {
    serve_the_toy(&[]).await;
}

#[tokio::test]
async fn another_model_runs_on_a_server() {
    let server = ModelServer::start(ServerSpec::toy()).await;
    let port = server.addr().port().to_string();

    serve_the_toy(&[("MODEL_BACKEND", "tensorflow_serving"), ("TF_SERVING_GRPC_PORT", &port)]).await;

    assert_eq!(server.calls().iter().map(|call| call.rows).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_model_that_only_its_server_describes_is_served() {
    let server = ModelServer::start(ServerSpec::toy()).await;
    let port = server.addr().port().to_string();
    let models = tempfile::tempdir().unwrap();
    let redis = RedisServer::shipped().start().await;
    let toy = [("MODELS_DIR", models.path().to_str().unwrap()), ("MODEL_NAME", "toy")];
    let backend = [("MODEL_BACKEND", "tensorflow_serving"), ("TF_SERVING_GRPC_PORT", &port)];
    let proxy = Proxy::start(&redis.proxy_url(), &toy).await;
    let client = proxy.client();
    let body = json!({"data": [[[1, 2, 3], [4, 5, 6]]]});
    let refused = client.post_json("/predict", &body).await;
    assert_eq!(refused.status, 503, "{}", refused.text());

    let _worker = Worker::start(&redis.worker_url(), &[&toy, &backend[..]].concat()).await;

    // The worker publishes what the server says.
    let accepted = eventually(SOON, "the job to be accepted", async || {
        let answer = client.post_json("/predict", &body).await;
        if answer.status == 202 { Ok(answer.json()) } else { Err(answer.text()) }
    })
    .await;
    let job = client.finished(accepted["job_id"].as_str().unwrap(), SOON).await;
    assert_eq!(job["result"], json!({"prediction": [11.5]}));
}

#[tokio::test]
async fn a_folder_with_only_an_onnx_file_is_served() {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("dropped")).unwrap();
    let file = models.path().join("dropped/model.onnx");
    std::fs::copy(root().join("tests/models/toy/model.onnx"), file).unwrap();
    let redis = RedisServer::shipped().start().await;
    // It is the only model, so no setting names it.
    let settings = [("MODELS_DIR", models.path().to_str().unwrap()), ("MODEL_NAME", "")];
    let proxy = Proxy::start(&redis.proxy_url(), &settings).await;
    let _worker = Worker::start(&redis.worker_url(), &settings).await;
    let client = proxy.client();
    healthy(&client).await;

    let id = client.predict(&json!([[[1, 2, 3], [4, 5, 6]]])).await;
    assert_eq!(client.finished(&id, SOON).await["result"], json!({"prediction": [11.5]}));

    let metadata = client.get("/metadata").await.json();
    assert_eq!(metadata["model_spec"], json!({"name": "dropped", "version": "1"}));
    // The sample is derived: zeros.
    let accepted = client.post_json("/predict/test", &json!({})).await.json();
    let sample = client.finished(accepted["job_id"].as_str().unwrap(), SOON).await;
    assert_eq!(sample["result"], json!({"prediction": [1.0]}));
}

#[tokio::test]
async fn the_language_model_takes_texts_of_any_length() {
    let redis = RedisServer::shipped().start().await;
    let models = models();
    let settings = [("MODELS_DIR", models.to_str().unwrap()), ("MODEL_NAME", "language")];
    let proxy = Proxy::start(&redis.proxy_url(), &settings).await;
    let client = proxy.client();
    let texts = [
        ("English", "Good morning, how are you today?"),
        ("French", "Bonjour, je voudrais un café"),
        ("German", "Guten Morgen"),
        ("Italian", "Ciao, come stai?"),
        ("Spanish", "¿Dónde está la estación de trenes?"),
    ];
    let code_points = |text: &str| text.chars().map(u32::from).collect::<Vec<_>>();
    let mut jobs = Vec::new();
    for (language, text) in texts {
        jobs.push((language, text, client.predict(&json!([code_points(text)])).await));
    }
    // All jobs wait when the worker starts.
    let _worker = Worker::start(&redis.worker_url(), &settings).await;

    for (language, text, id) in jobs {
        let result = client.finished(&id, SOON).await["result"].clone();
        assert_eq!(result["class_name"], language, "{text}");
        let evidence = &result["outputs"][1];
        assert_eq!(evidence["name"], "evidence");
        assert_eq!(evidence["shape"], json!([1, text.chars().count(), 5]), "{text}");
        if text == "Guten Morgen" {
            // What onnxruntime 1.32.0 answers.
            assert_close(&result["probabilities"], &[0.0323, 0.0001, 0.9608, 0.0067, 0.0002]);
            let of_first: Vec<_> = evidence["data"].as_array().unwrap()[..5].to_vec();
            assert_close(&of_first.into(), &[0.18, -0.878, 1.56, -0.949, -0.185]);
        }
    }
}

fn assert_close(values: &serde_json::Value, expected: &[f64]) {
    let values: Vec<_> = values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(values.len(), expected.len());
    let is_close = |(value, expected): (&f64, &f64)| (value - expected).abs() < 1e-3;
    assert!(values.iter().zip(expected).all(is_close), "{values:?}, not {expected:?}");
}

async fn serve_the_toy(backend: &[(&str, &str)]) {
    let models = root().join("tests/models");
    let toy = [("MODEL_NAME", "toy"), ("MODELS_DIR", models.to_str().unwrap())];
    let redis = RedisServer::shipped().start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &toy).await;
    let _worker = Worker::start(&redis.worker_url(), &[&toy, backend].concat()).await;
    let client = proxy.client();
    healthy(&client).await;

    // Half the sum of a row, plus 1.
    let id = client.predict(&json!([[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, -0.5]]])).await;
    let result = client.finished(&id, SOON).await["result"].clone();
    let rows = json!([{"prediction": [11.5]}, {"prediction": [0.75]}]);
    assert_eq!(result, json!({"prediction": [11.5], "predictions": rows}));

    let accepted = client.post_json("/predict/test", &json!({})).await.json();
    let sample = client.finished(accepted["job_id"].as_str().unwrap(), SOON).await;
    assert_eq!(sample["result"], json!({"prediction": [11.5]}));

    let refused = client.post_json("/predict", &json!({"data": [[[1, 2, 3], [4, 5]]]})).await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["pointer"]), (422, &json!("/data/0/1")));

    let metadata = client.get("/metadata").await.json();
    assert_eq!(metadata["model_spec"], json!({"name": "toy", "version": "7"}));
    let signature = &metadata["metadata"]["signature_def"]["serving_default"];
    let axes = signature["inputs"]["x"]["tensor_shape"]["dim"].as_array().unwrap();
    assert_eq!(axes.iter().map(|axis| &axis["size"]).collect::<Vec<_>>(), ["-1", "2", "3"]);
    assert_eq!(signature["outputs"]["score"]["dtype"], "DT_FLOAT");
}
