//! Another model, with other names, shapes and results, needs only two settings: no code is for Iris only.

use serde_json::json;
use tepal_tests::model_server::{ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;

use crate::{SOON, healthy, root};

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
