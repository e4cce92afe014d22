//! Right answers, in every form that servers use.

use std::{path::Path, time::Duration};

use serde_json::json;
use tepal_shared::{
    job::NewJob,
    queue::heartbeat::BackendState,
    tensor::{DataType, bytes, stored},
};
use tepal_tests::model_server::{
    AnswerStyle, Behaviour, ModelServer, OpenInferenceSpec, ServerSpec, TensorSpec,
};

use crate::{
    flowers::{classify_all, input},
    queue::{Queue, result_of},
    settings::{Settings, TOY_MODELS},
};

async fn classified_by(spec: ServerSpec) {
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let _worker = queue.worker(Settings::open_inference(&server)).await;
    classify_all(&queue).await;
    queue.assert_drained().await;
    let calls = server.calls();
    assert_eq!(calls.iter().map(|call| call.rows).sum::<usize>(), 300, "each row is computed once");
    assert!(calls.iter().all(|call| call.output_filter == ["output"]), "outputs are named");
}

#[tokio::test]
async fn raw_answers_with_empty_contents_beside_them_are_read() {
    let spec = ServerSpec { answer_style: AnswerStyle::TensorContent, ..ServerSpec::iris() };
    classified_by(spec).await;
}

#[tokio::test]
async fn typed_answers_are_read() {
    classified_by(ServerSpec { answer_style: AnswerStyle::FloatVal, ..ServerSpec::iris() }).await;
}

#[tokio::test]
async fn answers_in_doubles_are_converted_to_the_described_floats() {
    for answer_style in [AnswerStyle::FloatVal, AnswerStyle::TensorContent] {
        let open_inference = OpenInferenceSpec { in_doubles: true, ..OpenInferenceSpec::default() };
        classified_by(ServerSpec { answer_style, open_inference, ..ServerSpec::iris() }).await;
    }
}

#[tokio::test]
async fn a_request_has_the_id_of_its_first_job_and_a_deadline() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let settings = Settings::open_inference(&server).with("INFERENCE_TIMEOUT_MS", 20_000);
    let ids = queue.submit_all((0..3).map(|_| input(5.1))).await;

    let _worker = queue.worker(settings.one_at_a_time()).await;

    queue.all_completed(&ids).await;
    let calls = server.calls();
    assert_eq!((calls.len(), calls[0].rows, &calls[0].id), (1, 3, &ids[0].to_string()));
    let deadline = calls[0].deadline.unwrap();
    assert!((Duration::from_secs(20)..=Duration::from_secs(21)).contains(&deadline), "{deadline:?}");
}

/// A folder with the model `toy`, as described there and changed.
fn toy(change: impl Fn(String) -> String) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("toy")).unwrap();
    let described = std::fs::read_to_string(Path::new(TOY_MODELS).join("toy/model.toml")).unwrap();
    std::fs::write(models.path().join("toy/model.toml"), change(described)).unwrap();
    models
}

#[tokio::test]
async fn several_outputs_arrive_in_the_order_of_the_description() {
    let spec = ServerSpec { with_row_sums: true, ..ServerSpec::toy() };
    for answer_style in [AnswerStyle::FloatVal, AnswerStyle::TensorContent] {
        let models = toy(|described| {
            let first = described.replacen(
                "[[outputs]]",
                "[[outputs]]\nname = \"row_sum\"\ndatatype = \"FP32\"\nshape = []\n[[outputs]]",
                1,
            );
            assert_ne!(first, described);
            first
        });
        let server = ModelServer::start(ServerSpec { answer_style, ..spec.clone() }).await;
        let queue = Queue::start().await.of("toy");
        let _worker = queue.worker(Settings::open_inference(&server).with_model(models.path(), "toy")).await;

        let id = queue.submit("[[[1,2,3],[4,5,6]]]").await;

        let outputs = json!([
            {"name": "row_sum", "shape": [1], "datatype": "FP32", "data": [21.0]},
            {"name": "score", "shape": [1, 1], "datatype": "FP32", "data": [11.5]},
        ]);
        assert_eq!(result_of(&queue.completed(id).await), json!({"prediction": 21.0, "outputs": outputs}));
        assert_eq!(server.calls()[0].output_filter, ["row_sum", "score"]);
    }
}

#[tokio::test]
async fn texts_go_both_ways() {
    let spec = ServerSpec {
        inputs: vec![TensorSpec::text("x", &[2])],
        output: TensorSpec::text("y", &[1]),
        compute: std::sync::Arc::new(|row| vec![row[0] * row[1]]),
        ..ServerSpec::iris()
    };
    let mut texts = Vec::new();
    [&b"2.5"[..], b"-4"].iter().for_each(|text| bytes::append(&mut texts, text).unwrap());
    let mut job = Vec::new();
    stored::append(&mut job, DataType::Bytes, &[1, 2], &texts);
    for answer_style in [AnswerStyle::FloatVal, AnswerStyle::TensorContent] {
        let models = tempfile::tempdir().unwrap();
        let server = ModelServer::start(ServerSpec { answer_style, ..spec.clone() }).await;
        let queue = Queue::start().await;
        let settings = Settings::open_inference(&server).with_model(models.path(), "iris");
        let _worker = queue.worker(settings).await;

        let id = queue.submit_job(0, NewJob::new(queue.model, job.clone())).await;

        assert_eq!(result_of(&queue.completed(id).await), json!({"prediction": ["-10"]}));
    }
}

#[tokio::test]
async fn the_server_may_know_the_model_by_another_name_and_version() {
    let spec = ServerSpec { model: "org/toy".to_owned(), ..ServerSpec::toy() };
    let (queue, server) = (Queue::start().await.of("toy"), ModelServer::start(spec).await);
    for version in ["version = \"7\"", "version_label = \"7\""] {
        let models = toy(|described| {
            let lines = described.lines().filter(|line| !line.starts_with("version"));
            let rest = lines.collect::<Vec<_>>().join("\n");
            format!("{version}\n{rest}\n[serving]\nserved_name = \"org/toy\"\n")
        });
        let worker = queue.worker(Settings::open_inference(&server).with_model(models.path(), "toy")).await;
        let id = queue.submit("[[[1,2,3],[4,5,6]]]").await;
        assert_eq!(result_of(&queue.completed(id).await), json!({"prediction": [11.5]}));
        drop(worker);
    }
}

#[tokio::test]
async fn the_servers_metadata_is_published_as_that_of_tensorflow_serving() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let _worker = queue.worker(Settings::open_inference(&server)).await;

    let state = queue.backend_is(BackendState::Ok).await;

    assert_eq!(state.backend, "open_inference");
    let metadata = state.metadata.unwrap();
    assert_eq!(metadata["model_spec"], json!({"name": "iris", "version": "1"}));
    let dim = json!([{"size": "-1"}, {"size": "4"}]);
    let inputs = &metadata["metadata"]["signature_def"]["serving_default"]["inputs"];
    assert_eq!(inputs, &json!({"input": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dim}}}));
}

#[tokio::test]
async fn a_reply_larger_than_the_grpc_librarys_default_limit_is_read() {
    let spec = ServerSpec { answer_style: AnswerStyle::TensorContent, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    server.set_behaviour(Behaviour::HugeReply);
    let _worker = queue.worker(Settings::open_inference(&server)).await;

    let id = queue.submit(input(5.1)).await;

    assert_eq!(queue.completed(id).await.attempts, 1);
}
