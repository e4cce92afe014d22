//! The server describes the model, or a part of it.

use std::path::Path;

use serde_json::json;
use tepal_shared::{model::Model, queue::heartbeat::BackendState};
use tepal_tests::{
    model_server::{ModelServer, OpenInferenceSpec, ServerSpec, TensorSpec},
    process::Service,
    redis::RedisServer,
    wait::eventually,
};
use tonic::Code;

use crate::{
    doctor::{doctor, line},
    flowers::input,
    queue::{Queue, SOON, result_of},
    settings::Settings,
};

const INPUTS: &str = "inputs = [{ name = \"input\", datatype = \"FP32\", shape = [4] }]\n";
const OUTPUTS: &str = "outputs = [{ name = \"output\", datatype = \"FP32\", shape = [3] }]\n";

fn iris(open_inference: OpenInferenceSpec) -> ServerSpec {
    ServerSpec { open_inference, ..ServerSpec::iris() }
}

/// A folder with this description of the model `iris`.
fn described(text: &str) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    std::fs::create_dir(models.path().join("iris")).unwrap();
    std::fs::write(models.path().join("iris/model.toml"), text).unwrap();
    models
}

fn serving(server: &ModelServer, models: &Path) -> Settings {
    Settings::open_inference(server).with_model(models, "iris")
}

/// The description that workers have published.
async fn published(queue: &Queue) -> Model {
    let look = async || {
        let models = queue.store.views.published_models().await.unwrap();
        let text = models.into_iter().find(|(model, _)| model == "iris").map(|(_, text)| text);
        text.map(|text| Model::from_published(&text).unwrap()).ok_or("not published")
    };
    eventually(SOON, "the description", look).await
}

#[tokio::test]
async fn a_model_needs_no_folder() {
    for (max_batch_size, expected) in [(None, 1024), (Some(8), 8)] {
        let spec = iris(OpenInferenceSpec { max_batch_size, ..OpenInferenceSpec::default() });
        let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
        let models = tempfile::tempdir().unwrap();

        let _worker = queue.worker(serving(&server, models.path())).await;

        assert_eq!(published(&queue).await.max_batch, expected);
        let id = queue.submit(input(5.1)).await;
        let result = result_of(&queue.completed(id).await);
        assert_eq!(result["prediction"].as_array().map(Vec::len), Some(3), "{result}");
    }
}

#[tokio::test]
async fn a_model_without_a_batch_axis_has_one_job_a_call() {
    let spec = ServerSpec {
        inputs: vec![TensorSpec::new("input", &[])],
        output: TensorSpec::new("output", &[]),
        compute: std::sync::Arc::new(|row| vec![2.0 * row[0]]),
        ..iris(OpenInferenceSpec { max_batch_size: Some(0), ..OpenInferenceSpec::default() })
    };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let models = tempfile::tempdir().unwrap();
    let _worker = queue.worker(serving(&server, models.path())).await;
    assert_eq!(published(&queue).await.max_batch, 0);

    let ids = queue.submit_all(["[1, 2, 3]", "[4]"].map(str::to_owned)).await;

    let results = queue.all_completed(&ids).await.iter().map(result_of).collect::<Vec<_>>();
    assert_eq!(results, [json!({"prediction": [2.0, 4.0, 6.0]}), json!({"prediction": [8.0]})]);
    let calls = server.calls().into_iter().filter(|call| call.id != "sample").count();
    assert_eq!(calls, 2);
}

#[tokio::test]
async fn the_folder_describes_what_the_server_does_not() {
    let silent = OpenInferenceSpec { names_tensors: false, ..OpenInferenceSpec::default() };
    let sized = OpenInferenceSpec { max_batch_size: Some(4), ..silent.clone() };
    for (spec, text) in [
        (
            ServerSpec { with_metadata: false, ..ServerSpec::iris() },
            format!("max_batch = 16\n{INPUTS}{OUTPUTS}"),
        ),
        (iris(silent), format!("max_batch = 16\n{INPUTS}{OUTPUTS}")),
        (iris(sized), [INPUTS, OUTPUTS].concat()),
    ] {
        let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
        let models = described(&text);

        let _worker = queue.worker(serving(&server, models.path())).await;

        let id = queue.submit(input(5.1)).await;
        queue.completed(id).await;
        let metadata = queue.backend_is(BackendState::Ok).await.metadata.unwrap();
        let inputs = &metadata["metadata"]["signature_def"]["serving_default"]["inputs"];
        assert_eq!(inputs["input"]["dtype"], "DT_FLOAT", "{metadata}");
    }
}

#[tokio::test]
async fn a_model_that_nobody_describes_is_reported() {
    let silent = OpenInferenceSpec { names_tensors: false, ..OpenInferenceSpec::default() };
    let (queue, server) = (Queue::start().await, ModelServer::start(iris(silent)).await);
    let models = tempfile::tempdir().unwrap();

    let worker = queue.worker(serving(&server, models.path())).await;

    let line = worker.wait_for_log("model_failed", SOON).await;
    assert!(line.contains("the model server names no inputs: add inputs to model.toml"), "{line}");
}

#[tokio::test]
async fn what_a_server_says_is_printed_as_a_description() {
    let spec = iris(OpenInferenceSpec { max_batch_size: Some(8), ..OpenInferenceSpec::default() });
    let server = ModelServer::start(spec).await;
    let settings = Settings::open_inference(&server);
    let command = ["model", "inspect", "--served", "iris"];
    let service = command.iter().fold(Service::binary("tepal-worker"), |service, word| service.arg(word));

    let service = service.envs(&settings.pairs()).start();

    assert!(service.wait_exit(SOON).await.success(), "{}", service.logs().tail(20));
    let text = service.logs().lines().join("\n");
    assert!(text.contains("\nmax_batch = 8    #"), "{text}");
    let model = Model::load(described(&text).path(), "iris").unwrap();
    assert_eq!((model.inputs[0].shape.to_string(), model.output.name.as_str()), ("[4]".to_owned(), "output"));
}

#[tokio::test]
async fn the_doctor_checks_the_server_and_the_description() {
    let redis = RedisServer::shipped().start().await;
    let server = ModelServer::start(ServerSpec { version: 9, ..ServerSpec::iris() }).await;
    let (is_well, text) = doctor(&redis.url(), Settings::open_inference(&server)).await;
    assert!(is_well, "{text}");
    assert!(line(&text, "model: `iris` is available (open_inference)").starts_with("ok"), "{text}");
    assert!(line(&text, "description").ends_with("model.toml and the model agree (version 9)"), "{text}");

    let inputs = vec![TensorSpec::new("input", &[5])];
    server.set_spec(ServerSpec { inputs, ..ServerSpec::iris() });
    let (_, text) = doctor(&redis.url(), Settings::open_inference(&server)).await;
    let found = line(&text, "description");
    assert!(
        found.starts_with("WRONG") && found.contains("input `input` has shape [-1, 5], not [-1, 4]"),
        "{text}"
    );

    let addr = server.addr();
    server.stop().await;
    let (is_well, text) = doctor(&redis.url(), Settings::open_inference_at(addr)).await;
    let found = line(&text, "model");
    assert!(!is_well && found.contains("set OPEN_INFERENCE_HOST, OPEN_INFERENCE_GRPC_PORT"), "{text}");
}

#[tokio::test]
async fn a_server_without_the_model_is_down_and_says_so() {
    let roses = |unknown_model| ServerSpec {
        model: "roses".to_owned(),
        ..iris(OpenInferenceSpec { unknown_model, ..OpenInferenceSpec::default() })
    };
    for (spec, expected) in [
        (roses(Some(Code::Unknown)), "The model server does not have the model"),
        (roses(None), "The model is not ready on the model server"),
        (roses(Some(Code::NotFound)), "The model server accepts no calls for the model"),
    ] {
        let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
        let _worker = queue.worker(Settings::open_inference(&server)).await;
        let reason = async || {
            let detail = queue.worker_state().await.and_then(|state| state.backend_detail);
            if detail.as_deref().is_some_and(|why| why.starts_with(expected)) {
                Ok(())
            } else {
                Err(format!("{detail:?}"))
            }
        };
        eventually(SOON, "the reason", reason).await;
        assert_eq!(server.call_count(), 0);
    }
}
