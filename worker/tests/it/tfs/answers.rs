//! Right answers, in every form that servers use.

use std::path::Path;

use serde_json::{Value, json};
use tepal_shared::queue::heartbeat::BackendState;
use tepal_tests::{
    model_server::{AnswerStyle, Behaviour, ModelServer, ServerSpec},
    process::Worker,
};

use crate::{
    flowers::{classify_rows, input},
    queue::{Queue, outcomes, result_of},
    settings::{Settings, TOY_MODELS},
};

/// A server with one input for each feature. The description must list them, because the server cannot.
const BY_FEATURE: &str = r#"
    name = "iris"
    version = "1"
    max_batch = 1024
    sample = [{ sepal_length = [5.1], sepal_width = [3.5], petal_length = [1.4], petal_width = [0.2] }]
    inputs = [
        { name = "sepal_length", datatype = "FP32", shape = [1] },
        { name = "sepal_width", datatype = "FP32", shape = [1] },
        { name = "petal_length", datatype = "FP32", shape = [1] },
        { name = "petal_width", datatype = "FP32", shape = [1] },
    ]
    [[outputs]]
    name = "output"
    datatype = "FP32"
    shape = [3]
    labels = ["setosa", "versicolor", "virginica"]
"#;

/// A row of [`BY_FEATURE`].
fn by_feature(row: &str) -> String {
    let values: [Value; 4] = serde_json::from_str(row).unwrap();
    let [sepal_length, sepal_width, petal_length, petal_width] = values.map(|value| json!([value]));
    json!({
        "sepal_length": sepal_length,
        "sepal_width": sepal_width,
        "petal_length": petal_length,
        "petal_width": petal_width,
    })
    .to_string()
}

async fn classified_by(
    spec: ServerSpec,
    row: impl Fn(&str) -> String,
    settings: impl Fn(Settings) -> Settings,
) -> (Queue, ModelServer, Worker) {
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let worker = queue.worker(settings(Settings::serving(&server))).await;
    classify_rows(&queue, row).await;
    queue.assert_drained().await;
    let rows: usize = server.calls().iter().map(|call| call.rows).sum();
    assert_eq!(rows, 300, "each row is computed once");
    (queue, server, worker)
}

#[tokio::test]
async fn answers_in_float_val_are_read() {
    let spec = ServerSpec { answer_style: AnswerStyle::FloatVal, ..ServerSpec::iris() };
    classified_by(spec, str::to_owned, |settings| settings).await;
}

#[tokio::test]
async fn answers_in_tensor_content_are_read() {
    let spec = ServerSpec { answer_style: AnswerStyle::TensorContent, ..ServerSpec::iris() };
    classified_by(spec, str::to_owned, |settings| settings).await;
}

#[tokio::test]
async fn the_file_describes_a_server_that_has_no_metadata() {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("iris")).unwrap();
    std::fs::write(models.path().join("iris/model.toml"), BY_FEATURE).unwrap();

    // The server takes no more than four calls at a time.
    let settings = |settings: Settings| settings.with_model(models.path(), "iris").with("MAX_IN_FLIGHT", 2);
    let (queue, ..) = classified_by(ServerSpec::iris_by_feature(), by_feature, settings).await;

    let metadata = queue.backend_is(BackendState::Ok).await.metadata.unwrap();
    let inputs = &metadata["metadata"]["signature_def"]["serving_default"]["inputs"];
    let dim = json!([{"size": "-1"}, {"size": "1"}]);
    assert_eq!(inputs["petal_width"], json!({"dtype": "DT_FLOAT", "tensor_shape": {"dim": dim}}));
}

#[tokio::test]
async fn a_model_of_another_shape_needs_only_its_description() {
    let (queue, server) = (Queue::start().await.of("toy"), ModelServer::start(ServerSpec::toy()).await);
    let settings = Settings::serving(&server).with_model(Path::new(TOY_MODELS), "toy");
    let _worker = queue.worker(settings).await;

    let id = queue.submit("[[[1,2,3],[4,5,6]]]").await;

    assert_eq!(result_of(&queue.completed(id).await), json!({"prediction": [11.5]}));
    assert_eq!(server.calls()[0].values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[tokio::test]
async fn the_servers_metadata_is_published_as_its_rest_api_prints_it() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let _worker = queue.worker(Settings::serving(&server)).await;

    let state = queue.backend_is(BackendState::Ok).await;

    assert_eq!(state.backend, "tensorflow_serving");
    let metadata = state.metadata.unwrap();
    assert_eq!(metadata["model_spec"]["name"], "iris");
    assert_eq!(metadata["model_spec"]["version"], "1");
    let signatures = metadata["metadata"]["signature_def"].as_object().unwrap();
    assert!(signatures.contains_key("__saved_model_init_op"), "{metadata}");
    let expected = json!({
        "dtype": "DT_FLOAT",
        "tensor_shape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "4", "name": ""}],
            "unknown_rank": false,
        },
        "name": "serving_default_input:0",
    });
    assert_eq!(signatures["serving_default"]["inputs"]["input"], expected);
    assert_eq!(signatures["serving_default"]["method_name"], "tensorflow/serving/predict");
}

#[tokio::test]
async fn a_reply_larger_than_the_grpc_librarys_default_limit_is_read() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::HugeReply);
    let _worker = queue.worker(Settings::serving(&server)).await;

    let id = queue.submit(input(5.1)).await;

    assert_eq!(queue.completed(id).await.attempts, 1);
    assert_eq!(outcomes(&server).len(), 1);
}

#[tokio::test]
async fn a_server_is_asked_for_the_described_outputs_only() {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("toy")).unwrap();
    let described = std::fs::read_to_string(Path::new(TOY_MODELS).join("toy/model.toml")).unwrap();
    let second = "[[outputs]]\nname = \"row_sum\"\ndatatype = \"FP32\"\nshape = []\n";
    let spec = ServerSpec { with_row_sums: true, ..ServerSpec::toy() };
    for (description, outputs, expected) in [
        (described.clone(), vec!["score"], json!({"prediction": [11.5]})),
        (
            format!("{described}\n{second}"),
            vec!["score", "row_sum"],
            json!({"prediction": [11.5], "outputs": [
                {"name": "score", "shape": [1, 1], "datatype": "FP32", "data": [11.5]},
                {"name": "row_sum", "shape": [1], "datatype": "FP32", "data": [21.0]},
            ]}),
        ),
    ] {
        std::fs::write(models.path().join("toy/model.toml"), description).unwrap();
        let (queue, server) = (Queue::start().await.of("toy"), ModelServer::start(spec.clone()).await);
        let _worker = queue.worker(Settings::serving(&server).with_model(models.path(), "toy")).await;
        let id = queue.submit("[[[1,2,3],[4,5,6]]]").await;
        assert_eq!(result_of(&queue.completed(id).await), expected);
        assert_eq!(server.calls()[0].output_filter, outputs);
    }
}
