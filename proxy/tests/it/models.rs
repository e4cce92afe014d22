//! Several models behind one gateway.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_shared::{
    job::{ModelName, Stream},
    model::Model,
    queue::work::TakeRequest,
};
use tepal_tests::{
    http::{Answer, Method},
    wait::eventually,
};

use crate::{
    gateway::{FLOWER, FLOWER_INPUT, Gateway, JSON, SOON, accepted},
    keys::Keys,
};

/// A job of the second model.
pub(crate) const TOY: &str = r#"{"model": "toy", "data": [[[1, 2, 3], [4, 5, 6]]]}"#;

/// A repository with the reference model and the toy.
pub(crate) fn repository() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for source in ["compose/models/iris", "tests/models/toy"] {
        let source = root.join(source);
        let target = folder.path().join(source.file_name().unwrap());
        std::fs::create_dir(&target).unwrap();
        for file in ["model.toml", "model.onnx"] {
            std::fs::copy(source.join(file), target.join(file)).unwrap();
        }
    }
    folder
}

/// A gateway with both models, the first of which is the default.
pub(crate) async fn gateway(folder: &TempDir, settings: &[(&str, &str)]) -> Gateway {
    let models = [("MODELS_DIR", folder.path().to_str().unwrap())];
    Gateway::with(&[&models[..], settings].concat()).await
}

/// The fingerprint of a model's description in this repository.
pub(crate) fn fingerprint(folder: &TempDir, name: &str) -> String {
    Model::fingerprint(&Model::load(folder.path(), name).unwrap().published())
}

/// The code and the detail of an error.
pub(crate) fn problem(answer: &Answer) -> (u16, String, String) {
    let body: Value = answer.json();
    let text = |member: &str| body[member].as_str().unwrap().to_owned();
    (answer.status, text("code"), text("detail"))
}

#[tokio::test]
async fn a_submission_names_its_model_and_waits_in_its_streams() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    let (flower, toy) = (accepted(&gateway.predict(FLOWER).await), accepted(&gateway.predict(TOY).await));

    assert_eq!(gateway.hash(toy)["m"], "toy");
    assert_eq!(gateway.take_one().await.job_id, flower);
    let toys = Stream::all_of("toy".parse::<ModelName>().unwrap());
    let (consumer, limit, max_bytes) = ("test-1", 10, usize::MAX);
    let request = TakeRequest { partition: 0, consumer, streams: &toys, limit, max_bytes, due_from: None };
    let taken = gateway.store.work.take(&request).await.unwrap().deliveries;
    assert_eq!(taken.iter().map(|delivery| delivery.attempt.claim.job_id).collect::<Vec<_>>(), [toy]);
    for (id, model) in [(flower, "iris"), (toy, "toy")] {
        assert_eq!(gateway.get(&format!("/job/{id}")).await.json()["model"], model);
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found_and_the_known_ones_are_named() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;

    let answer = gateway.predict(r#"{"model": "resnet", "data": [[1]]}"#).await;
    let detail = "There is no such model; known are iris and toy".to_owned();
    assert_eq!(problem(&answer), (404, "model_not_found".to_owned(), detail));

    let answer = gateway.predict(r#"{"model": 7, "data": [[1]]}"#).await;
    assert_eq!(answer.status, 422);
    let expected =
        json!([{"pointer": "/model", "code": "type", "detail": "must be the name of a model, not a number"}]);
    assert_eq!(answer.json()["errors"], expected);
}

#[tokio::test]
async fn input_is_checked_against_the_description_of_its_model() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    let answer = gateway.predict(&FLOWER.replace(r#"{"data""#, r#"{"model": "toy", "data""#)).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (422, Some("invalid_input")));
}

#[tokio::test]
async fn the_jobs_of_a_batch_name_their_models() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    let batch = format!(r#"[{FLOWER}, {TOY}, {{"model": "resnet", "data": [[1]]}}]"#);

    let answer = gateway.send(Method::POST, "/predict/batch", &[JSON], &batch).await;

    assert_eq!(answer.status, 207);
    let jobs = answer.json()["jobs"].clone();
    assert_eq!(jobs[2]["problem"]["code"], "model_not_found");
    for (index, model) in ["iris", "toy"].into_iter().enumerate() {
        let id = jobs[index]["job_id"].as_str().unwrap();
        assert_eq!(gateway.get(&format!("/job/{id}")).await.json()["model"], model);
    }
}

#[tokio::test]
async fn a_listing_shows_the_jobs_of_a_model() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    gateway.predict(FLOWER).await;
    let toy = accepted(&gateway.predict(TOY).await);
    gateway.predict(FLOWER).await;

    let listed = gateway.get("/jobs?model=toy").await.json();

    let ids: Vec<_> = listed["jobs"].as_array().unwrap().iter().map(|job| &job["job_id"]).collect();
    assert_eq!(ids, [&json!(toy.to_string())]);
    assert_eq!(gateway.get("/jobs?model=resnet").await.json()["jobs"], json!([]));
    assert_eq!(gateway.get("/jobs?model=a:b").await.status, 422);
}

#[tokio::test]
async fn the_sample_of_each_model_can_be_submitted() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    accepted(&gateway.post("/predict/test").await);
    accepted(&gateway.post("/predict/test?model=toy").await);
    assert_eq!(gateway.take_delivery().await.input, FLOWER_INPUT);
    accepted(&gateway.predict(TOY).await);
    let toys = gateway.deliveries_of("toy".parse().unwrap(), 0).await;
    assert_eq!((toys.len(), &toys[0].input), (2, &toys[1].input));

    let unknown = gateway.post("/predict/test?model=resnet").await;
    assert_eq!(problem(&unknown).1, "model_not_found");
    assert_eq!(
        gateway.post("/predict/test?models=toy").await.json()["errors"][0]["code"],
        "unknown_parameter"
    );
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_a_model() {
    let folder = repository();
    let twin = folder.path().join("twin");
    std::fs::create_dir(&twin).unwrap();
    let description = std::fs::read_to_string(folder.path().join("iris/model.toml")).unwrap();
    std::fs::write(twin.join("model.toml"), description.replace("name = \"iris\"", "name = \"twin\""))
        .unwrap();
    std::fs::copy(folder.path().join("iris/model.onnx"), twin.join("model.onnx")).unwrap();
    let gateway = gateway(&folder, &[]).await;

    assert_eq!(gateway.predict_once("key", FLOWER).await.status, 202);
    let other = FLOWER.replace(r#"{"data""#, r#"{"model": "twin", "data""#);
    let answer = gateway.predict_once("key", &other).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (422, Some("idempotency_conflict")));
}

#[tokio::test]
async fn the_models_are_listed_with_their_inputs_and_outputs() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    gateway.heartbeat_of("w1", &[("iris", true, "a"), ("toy", false, "b")]);
    gateway.predict(TOY).await;
    let list = async || {
        let list = gateway.get("/models").await.json();
        let is_seen = list["models"][1]["queue"]["waiting"] == 1 && list["models"][1]["state"] == "down";
        if is_seen { Ok(list) } else { Err(list.to_string()) }
    };
    let list = eventually(SOON, "the probe", list).await;

    let expected = json!({
        "name": "iris",
        "version": "1",
        "versions": ["1"],
        "default": true,
        "state": "ok",
        "backend": "onnx",
        "max_batch": 1024,
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}],
        "queue": {"waiting": 0, "running": 0, "dead_letters": 0},
    });
    assert_eq!(list["models"][0], expected);
    assert_eq!(list["models"][1]["default"], false);

    let toy = gateway.get("/models/toy").await.json();
    assert_eq!((&toy["name"], &toy["backend"]), (&json!("toy"), &json!("onnx")));
    assert_eq!(toy["sample"], json!([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]));
    assert_eq!(toy["data_schema"]["type"], "array");
    let answer = gateway.get("/models/resnet").await;
    assert_eq!(problem(&answer).1, "model_not_found");
}

#[tokio::test]
async fn another_model_that_is_down_is_a_warning_and_the_default_one_is_a_failure() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    let [iris, toy] = ["iris", "toy"].map(|name| fingerprint(&folder, name));
    gateway.heartbeat_of("w1", &[("iris", true, &iris), ("toy", false, &toy)]);
    let expected = r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"},"models":{"iris":"ok","toy":"down"},"warnings":[{"code":"models_down","detail":"No live worker can call toy"}]}"#;
    gateway.health_is(200, expected).await;

    gateway.heartbeat_of("w1", &[("iris", false, &iris), ("toy", true, &toy)]);
    let expected = r#"{"status":"unhealthy","components":{"redis":"ok","onnx":"down"},"models":{"iris":"down","toy":"ok"}}"#;
    gateway.health_is(503, expected).await;
}

#[tokio::test]
async fn workers_with_different_descriptions_are_a_warning() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    let [iris, toy] = ["iris", "toy"].map(|name| fingerprint(&folder, name));
    gateway.heartbeat_of("w1", &[("iris", true, &iris), ("toy", true, &toy)]);
    gateway.heartbeat_of("w2", &[("iris", true, &iris), ("toy", true, "other")]);
    let expected = r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"},"models":{"iris":"ok","toy":"ok"},"warnings":[{"code":"descriptions_differ","detail":"Live workers have different descriptions of toy"}]}"#;
    gateway.health_is(200, expected).await;
}

#[tokio::test]
async fn a_key_can_be_limited_to_models() {
    let folder = repository();
    let keys = Keys::with("");
    let key = keys.add("--model iris");
    let models = [("MODELS_DIR", folder.path().to_str().unwrap())];
    let gateway = keys.gateway(&models).await;
    let send = async |method, path: &str, body: &str| gateway.as_key(&key, method, path, body).await;

    assert_eq!(send(Method::POST, "/predict", FLOWER).await.status, 202);
    let refused = send(Method::POST, "/predict", TOY).await;
    let expected = (403, "model_forbidden".to_owned(), "The key is limited to other models".to_owned());
    assert_eq!(problem(&refused), expected);
    let batch = send(Method::POST, "/predict/batch", &format!("[{FLOWER}, {TOY}]")).await;
    assert_eq!(batch.json()["jobs"][1]["problem"]["code"], "model_forbidden");
    let listed = send(Method::GET, "/models", "").await.json();
    let names: Vec<_> = listed["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert_eq!(names, [&json!("iris")]);
    assert_eq!(send(Method::GET, "/models/toy", "").await.status, 403);
}

#[tokio::test]
async fn a_proxy_without_models_learns_them_from_a_worker() {
    let empty = TempDir::new().unwrap();
    let gateway = Gateway::with(&[("MODELS_DIR", empty.path().to_str().unwrap())]).await;
    let answer = gateway.predict(FLOWER).await;
    let detail = "No worker has described the model yet; try again later".to_owned();
    assert_eq!(problem(&answer), (503, "model_unknown_yet".to_owned(), detail));

    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models");
    let published = Model::load(&models, "iris").unwrap().published();
    gateway.store.work.publish(&[("iris".parse().unwrap(), published.clone())]).await.unwrap();
    gateway.heartbeat_of("w1", &[("iris", true, &Model::fingerprint(&published))]);

    let accepted = async || {
        let answer = gateway.predict(FLOWER).await;
        if answer.status == 202 { Ok(()) } else { Err(answer.text().to_owned()) }
    };
    eventually(SOON, "the proxy to read the description", accepted).await;
    assert_eq!(gateway.get("/models/iris").await.json()["data_schema"]["type"], "array");
}

/// What a worker publishes of a model.
fn a_description() -> String {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models");
    Model::load(&models, "iris").unwrap().published()
}

#[tokio::test]
async fn a_model_that_nobody_serves_can_be_removed() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    let published = a_description();
    gateway.store.work.publish(&[("old".parse().unwrap(), published.clone())]).await.unwrap();
    gateway.heartbeat_of("w1", &[("old", true, &Model::fingerprint(&published))]);
    let in_use = (409, "model_in_use");
    let remove = async |name: &str| {
        let answer = gateway.send(Method::DELETE, &format!("/models/{name}"), &[], "").await;
        (answer.status, answer.text().to_owned())
    };
    let refused = async || {
        let (status, text) = remove("old").await;
        if status == in_use.0 && text.contains(in_use.1) { Ok(()) } else { Err(text) }
    };
    eventually(SOON, "the probe", refused).await;
    // The proxy has its files.
    assert_eq!(remove("toy").await.0, 409);
    let job = FLOWER.replace(r#"{"data""#, r#"{"model": "old", "data""#);
    let waiting = accepted(&gateway.predict(&job).await);

    gateway.store.work.farewell("w1").await.unwrap();
    let removed = async || {
        let (status, text) = remove("old").await;
        if status == 204 { Ok(()) } else { Err(text) }
    };
    eventually(SOON, "the worker to be gone", removed).await;

    assert_eq!(gateway.predict(&job).await.status, 404);
    assert_eq!(remove("old").await.0, 404);
    assert_eq!(gateway.get(&format!("/job/{waiting}")).await.json()["status"], "pending");
    // A later probe, which reads the descriptions, does not bring it back.
    gateway.store.work.publish(&[("new".parse().unwrap(), published.clone())]).await.unwrap();
    gateway.heartbeat_of("w2", &[("new", true, &Model::fingerprint(&published))]);
    let known = async || {
        let status = gateway.get("/models/new").await.status;
        if status == 200 { Ok(()) } else { Err(status) }
    };
    eventually(SOON, "the probe to read the description of the new model", known).await;
    assert_eq!(gateway.get("/models/old").await.status, 404);
}

#[tokio::test]
async fn a_model_of_a_worker_that_has_just_started_cannot_be_removed() {
    let folder = repository();
    let gateway = gateway(&folder, &[]).await;
    let published = a_description();
    let fingerprint = Model::fingerprint(&published);
    let descriptions = ["known", "new"].map(|name| (name.parse().unwrap(), published.clone()));
    gateway.store.work.publish(&descriptions).await.unwrap();
    gateway.heartbeat_of("w1", &[("new", true, &fingerprint)]);
    let known = async || gateway.get("/models/known").await.status == 200;
    eventually(SOON, "the proxy to know the model", known).await;

    gateway.heartbeat_of("w2", &[("known", true, &fingerprint)]);
    let answer = gateway.send(Method::DELETE, "/models/known", &[], "").await;
    let (status, code, _) = problem(&answer);
    assert_eq!((status, code.as_str()), (409, "model_in_use"));
}

#[tokio::test]
async fn a_model_can_have_a_limit_of_its_own() {
    let folder = repository();
    let path = folder.path().join("toy/model.toml");
    let description = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("max_queue_depth = 1\n{description}")).unwrap();
    let gateway = gateway(&folder, &[]).await;
    assert_eq!(gateway.get("/models/toy").await.json()["max_queue_depth"], 1);
    // The proxy's probe sets the limit.
    let full = async || {
        let answer = gateway.predict(TOY).await;
        if answer.status == 202 { Err("accepted") } else { Ok(answer) }
    };
    let refused = eventually(SOON, "the limit", full).await;

    let detail = "The queue of the model is full (max_queue_depth); try again later".to_owned();
    assert_eq!(problem(&refused), (429, "model_queue_full".to_owned(), detail));
    assert_eq!(gateway.predict(FLOWER).await.status, 202);
}
