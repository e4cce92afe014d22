//! The server describes the model.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tepal_shared::{
    job::{JobId, NewJob},
    model::Model,
    queue::heartbeat::BackendState,
};
use tepal_tests::{
    http::Client,
    model_server::{ModelServer, ServerSpec, TensorSpec},
    ports::free_port,
    process::Worker,
    wait::eventually,
};

use crate::{
    flowers::input,
    models::add_model,
    queue::{Queue, SOON, result_of, stored},
    settings::Settings,
};

/// Settings of a worker that serves these models from a folder, the first by a server at this address.
fn settings(models: &tempfile::TempDir, names: &str, addr: SocketAddr) -> Settings {
    let default = names.split(',').next().unwrap_or_default();
    Settings::serving_at(addr).with_model(models.path(), default).with("MODELS", names)
}

/// The description that workers have published of this model.
async fn published(queue: &Queue, name: &str) -> Model {
    let look = async || {
        let models = queue.store.views.published_models().await.unwrap();
        let text = models.into_iter().find(|(model, _)| model == name).map(|(_, text)| text);
        text.map(|text| Model::from_published(&text).unwrap()).ok_or("not published")
    };
    eventually(SOON, "the description", look).await
}

async fn published_with_input(queue: &Queue, name: &str, input: &str) {
    let look = async || {
        let model = published(queue, name).await;
        if model.inputs[0].name == input { Ok(()) } else { Err(model.inputs[0].name.clone()) }
    };
    eventually(SOON, "the new description", look).await;
}

async fn livez(worker: &Worker) -> u16 {
    Client::new(&format!("http://{}", worker.metrics_addr())).get("/livez").await.status
}

#[tokio::test]
async fn a_worker_serves_other_models_while_it_waits_for_the_server_that_describes_one() {
    let queue = Queue::start().await;
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let models = tempfile::tempdir().unwrap();
    add_model(models.path(), "here");
    let path = models.path().join("here/model.toml");
    let description = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{description}\n[serving]\nbackend = \"onnx\"\n")).unwrap();

    let worker = queue.worker(settings(&models, "iris,here", addr)).await;

    let waiting = queue.submit(input(5.1)).await;
    let line = worker.wait_for_log("model_undescribed", SOON).await;
    assert!(line.contains("The model server is not available"), "{line}");
    let job = NewJob::new("here".parse().unwrap(), stored(&input(5.1)));
    let other = queue.submit_job(0, job).await;
    queue.completed(other).await;
    assert_eq!(livez(&worker).await, 200);

    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;

    let result = result_of(&queue.completed(waiting).await);
    // The server knows no names of classes.
    assert_eq!(result["prediction"].as_array().map(Vec::len), Some(3), "{result}");
    assert_eq!(result["outputs"], json!(null));
    assert_eq!(server.calls()[0].output_filter, ["output"]);
    assert_eq!(published(&queue, "iris").await.max_batch, 1024);
}

#[tokio::test]
async fn a_worker_without_any_description_reports_its_backend_as_down() {
    let queue = Queue::start().await;
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let models = tempfile::tempdir().unwrap();

    let _worker = queue.worker(settings(&models, "iris", addr)).await;

    let state = queue.backend_is(BackendState::Down).await;
    assert_eq!(state.backend, "tensorflow_serving");
}

#[tokio::test]
async fn a_description_that_contradicts_the_server_is_reported_with_both_sides() {
    let (queue, models) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = ModelServer::start(ServerSpec::iris()).await;
    std::fs::create_dir(models.path().join("iris")).unwrap();
    let path = models.path().join("iris/model.toml");
    std::fs::write(&path, "inputs = [{ name = \"input\", datatype = \"FP64\" }]").unwrap();

    let worker = queue.worker(settings(&models, "iris", server.addr())).await;

    let line = worker.wait_for_log("model_failed", SOON).await;
    assert!(line.contains("input `input` is FP64 in model.toml, but FP32 in the model server"), "{line}");
    // The folder may be mended while the worker runs, also by its removal.
    std::fs::remove_dir_all(models.path().join("iris")).unwrap();
    let job = queue.submit(input(5.1)).await;
    queue.completed(job).await;
}

/// The iris model with an input of three features and another name.
fn changed() -> ServerSpec {
    let compute = |row: &[f32]| vec![row[0], row[1], row[2]];
    ServerSpec {
        version: 2,
        inputs: vec![TensorSpec::new("features", &[3])],
        compute: std::sync::Arc::new(compute),
        ..ServerSpec::iris()
    }
}

async fn ended(queue: &Queue, jobs: &[JobId]) -> Vec<(String, String)> {
    let mut ends = Vec::new();
    for id in jobs {
        let (error, code, attempts) = queue.failed(*id).await;
        assert_eq!(attempts, 1, "{error}");
        ends.push((code, error));
    }
    ends
}

#[tokio::test]
async fn jobs_that_wait_while_the_server_changes_its_model_fail_if_they_no_longer_fit() {
    let (queue, models) = (Queue::start().await, tempfile::tempdir().unwrap());
    let server = ModelServer::start(ServerSpec::iris()).await;
    let worker = queue.worker(settings(&models, "iris", server.addr()).one_at_a_time()).await;
    let first = queue.submit(input(5.1)).await;
    queue.completed(first).await;

    // The server loads another version. Jobs of the old shape wait for it, and more arrive while the worker does not know yet.
    server.set_available(false);
    queue.backend_is(BackendState::Down).await;
    let mut old = queue.submit_all((0..5_u8).map(|number| input(f32::from(number)))).await;
    server.set_spec(changed());
    server.set_available(true);
    old.extend(queue.submit_all((5..10_u8).map(|number| input(f32::from(number)))).await);

    for (code, error) in ended(&queue, &old).await {
        assert_eq!(code, "invalid_input", "{error}");
        let expected =
            "The input does not fit the description of the model, which differs from the one at submission: ";
        assert!(error.starts_with(expected), "{error}");
    }
    published_with_input(&queue, "iris", "features").await;
    let new = queue.submit("[[1.0, 2.0, 3.0]]").await;
    let result: Value = result_of(&queue.completed(new).await);
    assert_eq!(result["prediction"], json!([1.0, 2.0, 3.0]));
    queue.assert_drained().await;
    assert!(worker.is_running());
}
