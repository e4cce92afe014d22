//! Models that do not exist, are removed, or change while jobs wait for them: the whole answers.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_shared::{job::Priority, model::Model};
use tepal_tests::{
    http::{Answer, Method},
    wait::eventually,
};

use crate::{
    expect::{Problem, assert_json, invalid, problem},
    gateway::{FLOWER, Gateway, JSON, SOON, accepted},
    models::{self, repository},
    tensor_jobs::send_binary,
};

fn model_not_found() -> Problem {
    problem(404, "model_not_found", "Model not found")
}

/// A tensor for the reference model.
fn tensor() -> Value {
    json!({"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]})
}

/// Submits a job of this model over each way in.
async fn submissions(gateway: &Gateway, model: &str) -> Vec<Answer> {
    let rows = json!({"model": model, "data": [[5.1, 3.5, 1.4, 0.2]]});
    let tensors = json!({"model": model, "inputs": [tensor()]});
    let query = format!("/predict?model={model}");
    let image = [("content-type", "image/png")];
    vec![
        gateway.predict(&rows.to_string()).await,
        gateway.predict(&tensors.to_string()).await,
        send_binary(gateway, &tensors, b"").await,
        gateway.send(Method::POST, &query, &[JSON], FLOWER).await,
        gateway.send(Method::POST, &query, &image, "x").await,
    ]
}

#[tokio::test]
async fn an_unknown_model_over_each_way_in() {
    let folder = repository();
    let gateway = models::gateway(&folder, &[]).await;
    let detail = "There is no such model; known are iris and toy";
    for name in ["resnet", "Iris", "a:b", ""] {
        for answer in submissions(&gateway, name).await {
            model_not_found().assert(&answer, "/predict", detail);
        }
        let path = format!("/predict/test?model={name}");
        model_not_found().assert(&gateway.post(&path).await, "/predict/test", detail);
    }
    for name in ["resnet", "a:b"] {
        let path = format!("/models/{name}");
        model_not_found().assert(&gateway.get(&path).await, &path, detail);
    }
    assert!(gateway.keys().is_empty(), "{:?}", gateway.keys());
}

#[tokio::test]
async fn a_model_that_nobody_has_described() {
    let empty = TempDir::new().unwrap();
    let gateway = Gateway::with(&[("MODELS_DIR", empty.path().to_str().unwrap())]).await;
    let unknown_yet = problem(503, "model_unknown_yet", "Model unknown yet").header("retry-after", "5");
    let detail = "No worker has described the model yet; try again later";
    for answer in submissions(&gateway, "iris").await {
        unknown_yet.assert(&answer, "/predict", detail);
    }
}

/// The description of the reference model, as a worker of this name publishes it.
fn iris() -> Model {
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models"), "iris").unwrap()
}

/// A live worker serves this model with this description.
async fn serve(gateway: &Gateway, name: &str, description: &str) {
    gateway.store.work.publish(&[(name.parse().unwrap(), description.to_owned())]).await.unwrap();
    gateway.heartbeat_of("w1", &[(name, true, &Model::fingerprint(description))]);
}

#[tokio::test]
async fn a_model_that_is_removed_while_jobs_wait() {
    let folder = repository();
    let gateway = models::gateway(&folder, &[]).await;
    serve(&gateway, "old", &iris().published()).await;
    let body = json!({"model": "old", "data": [[5.1, 3.5, 1.4, 0.2]]}).to_string();
    let known = async || {
        let answer = gateway.predict(&body).await;
        if answer.status == 202 { Ok(accepted(&answer)) } else { Err(answer.text()) }
    };
    let id = eventually(SOON, "the proxy to read the description", known).await;
    let path = format!("/job/{id}");
    let before = gateway.get(&path).await.json();

    gateway.store.work.farewell("w1").await.unwrap();
    let removed = async || {
        let answer = gateway.delete("/models/old").await;
        if answer.status == 204 { Ok(()) } else { Err(answer.text()) }
    };
    eventually(SOON, "the worker to be gone", removed).await;

    let detail = "There is no such model; known are iris and toy";
    for answer in submissions(&gateway, "old").await {
        model_not_found().assert(&answer, "/predict", detail);
    }
    model_not_found().assert(&gateway.get("/models/old").await, "/models/old", detail);
    model_not_found().assert(&gateway.delete("/models/old").await, "/models/old", detail);
    // The job waits as before, and can be cancelled.
    assert_eq!((before["status"].as_str(), before["model"].as_str()), (Some("pending"), Some("old")));
    assert_json(&gateway.get(&path).await, 200, &[("retry-after", "1")], &before);
    let cancelled = json!({"job_id": id.to_string(), "status": "cancelled"});
    assert_json(&gateway.delete(&path).await, 200, &[], &cancelled);
    // Its input is that of no known model, and is kept for a requeue all the same.
    let retried = gateway.post(&format!("{path}/retry")).await;
    assert_eq!(retried.status, 202, "{}", retried.text());
}

/// A worker fails the waiting job, because its input no longer fits. The proxy refuses the like from now on.
#[tokio::test]
async fn a_model_whose_description_changes_while_jobs_wait() {
    let empty = TempDir::new().unwrap();
    let gateway = Gateway::with(&[("MODELS_DIR", empty.path().to_str().unwrap())]).await;
    let before = iris().published();
    let mut changed: Value = serde_json::from_str(&before).unwrap();
    let after = {
        let input = &mut changed["inputs"][0];
        (input["shape"], input["features"]) = (json!([3]), json!([]));
        changed["sample"] = Value::Null;
        changed.to_string()
    };
    serve(&gateway, "iris", &before).await;
    let known = async || {
        let answer = gateway.predict(FLOWER).await;
        if answer.status == 202 { Ok(accepted(&answer)) } else { Err(answer.text()) }
    };
    let waiting = eventually(SOON, "the proxy to read the description", known).await;

    serve(&gateway, "iris", &after).await;
    let refused = async || {
        let answer = gateway.predict(FLOWER).await;
        if answer.status == 422 { Ok(answer) } else { Err(answer.text()) }
    };
    let answer = eventually(SOON, "the proxy to read the new description", refused).await;
    let what = "must hold exactly 3 values, not 4";
    invalid(&[("/data/0", "length", what)]).assert(&answer, "/predict", &format!("/data/0 {what}"));
    let what = "must be 3, not 4";
    let wrong = invalid(&[("/inputs/0/shape/1", "out_of_range", what)]);
    let detail = format!("/inputs/0/shape/1 {what}");
    let body = json!({"inputs": [tensor()]});
    wrong.assert(&gateway.predict(&body.to_string()).await, "/predict", &detail);
    wrong.assert(&send_binary(&gateway, &body, b"").await, "/predict", &detail);

    // The job that waits is unchanged, and its cancellation does not need the description.
    let job = gateway.get(&format!("/job/{waiting}")).await;
    assert_eq!((job.status, job.json()["status"].as_str()), (200, Some("pending")));
    assert_eq!(job.json()["priority"], Priority::Normal.as_str());
}
