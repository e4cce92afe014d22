//! MODELS_DIR while the proxy runs: folders that are added, replaced, broken and removed.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use tepal_shared::model::Model;
use tepal_tests::{http::Answer, wait::eventually};

use crate::{
    gateway::{FLOWER, Gateway, SOON, accepted},
    models::{self, TOY, fingerprint, repository},
};

/// The models that the proxy lists.
async fn listed(gateway: &Gateway) -> Vec<String> {
    let models = gateway.get("/models").await.json()["models"].as_array().unwrap().clone();
    models.iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

async fn lists(gateway: &Gateway, expected: &[&str]) {
    let same = async || {
        let listed = listed(gateway).await;
        if listed == expected { Ok(()) } else { Err(format!("{listed:?}")) }
    };
    eventually(SOON, "the list of models", same).await;
}

/// The warnings of /health, which is 503 because no worker lives.
async fn warnings(gateway: &Gateway) -> Value {
    gateway.get("/health").await.json()["warnings"].clone()
}

fn failed(metrics: &Answer, model: &str) -> bool {
    metrics.text().contains(&format!("tepal_model_failed{{model=\"{model}\"}} 1\n"))
}

#[tokio::test]
async fn a_folder_that_is_added_or_removed_is_noticed() {
    let (folder, elsewhere) = (repository(), TempDir::new().unwrap());
    let (toy, away) = (folder.path().join("toy"), elsewhere.path().join("toy"));
    fs::rename(&toy, &away).unwrap();
    let gateway = models::gateway(&folder, &[]).await;
    assert_eq!(listed(&gateway).await, ["iris"]);
    assert_eq!(gateway.predict(TOY).await.status, 404);

    fs::rename(&away, &toy).unwrap();
    lists(&gateway, &["iris", "toy"]).await;
    accepted(&gateway.predict(TOY).await);

    fs::rename(&toy, &away).unwrap();
    lists(&gateway, &["iris"]).await;
    assert_eq!(gateway.predict(TOY).await.status, 404);
    gateway.proxy.wait_for_log("description_removed", SOON).await;
    // Nobody counts its jobs any more.
    let forgotten = async || {
        let page = gateway.get("/metrics").await.text();
        let line = "tepal_queue_length{model=\"toy\",priority=\"normal\"} 0\n";
        if page.contains(line) { Ok(()) } else { Err(page) }
    };
    eventually(SOON, "the gauges of the removed model", forgotten).await;
    accepted(&gateway.predict(FLOWER).await);
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_read_again() {
    let folder = repository();
    let gateway = models::gateway(&folder, &[]).await;
    let path = folder.path().join("toy/model.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("max_queue_depth = 7\n{text}")).unwrap();
    let is_new = async || {
        let model = gateway.get("/models/toy").await.json();
        if model["max_queue_depth"] == 7 { Ok(()) } else { Err(model.to_string()) }
    };
    eventually(SOON, "the new description", is_new).await;
    assert_eq!(warnings(&gateway).await, Value::Null);
}

#[tokio::test]
async fn a_broken_folder_keeps_the_earlier_description_and_is_reported_until_it_is_mended() {
    let folder = repository();
    let gateway = models::gateway(&folder, &[]).await;
    let onnx = folder.path().join("toy/model.onnx");
    let whole = fs::read(&onnx).unwrap();
    let expected = json!([{"code": "descriptions_rejected", "detail": "This proxy cannot read the present files of toy"}]);
    for broken in [whole[..whole.len() / 2].to_vec(), b"damaged".to_vec()] {
        fs::write(&onnx, broken).unwrap();
        let reported = async || {
            let warnings = warnings(&gateway).await;
            if warnings == expected { Ok(()) } else { Err(warnings.to_string()) }
        };
        eventually(SOON, "the warning", reported).await;
        let line: Value =
            serde_json::from_str(&gateway.proxy.wait_for_log("description_rejected", SOON).await).unwrap();
        assert_eq!(line["model"], "toy");
        assert!(failed(&gateway.get("/metrics").await, "toy"));
        // The earlier description stays.
        accepted(&gateway.predict(TOY).await);

        fs::write(&onnx, &whole).unwrap();
        let mended = async || warnings(&gateway).await == Value::Null;
        eventually(SOON, "the end of the warning", mended).await;
        assert!(!failed(&gateway.get("/metrics").await, "toy"));
    }

    // A folder without its model is as broken.
    fs::remove_file(&onnx).unwrap();
    fs::remove_file(folder.path().join("toy/model.toml")).unwrap();
    let reported = async || warnings(&gateway).await == expected;
    eventually(SOON, "the warning of an empty folder", reported).await;
    accepted(&gateway.predict(TOY).await);
}

#[tokio::test]
async fn a_repository_that_is_away_removes_nothing() {
    let (parent, folder) = (TempDir::new().unwrap(), repository());
    let models = parent.path().join("models");
    fs::rename(folder.path(), &models).unwrap();
    let gateway = Gateway::with(&[("MODELS_DIR", models.to_str().unwrap())]).await;
    let away = parent.path().join("away");
    fs::rename(&models, &away).unwrap();
    gateway.proxy.wait_for_log("models_unreadable", SOON).await;
    assert_eq!(listed(&gateway).await, ["iris", "toy"]);

    fs::rename(away.join("toy"), parent.path().join("toy")).unwrap();
    fs::rename(&away, &models).unwrap();
    lists(&gateway, &["iris"]).await;
}

#[tokio::test]
async fn a_model_is_broken_from_the_start() {
    let folder = repository();
    fs::write(folder.path().join("toy/model.onnx"), "damaged").unwrap();
    let gateway = models::gateway(&folder, &[]).await;
    assert_eq!(listed(&gateway).await, ["iris"]);
    let expected = json!([{"code": "descriptions_rejected", "detail": "This proxy cannot read the present files of toy"}]);
    assert_eq!(warnings(&gateway).await, expected);
    assert!(failed(&gateway.get("/metrics").await, "toy"));
}

#[tokio::test]
async fn a_worker_with_another_description_is_a_warning() {
    let folder = repository();
    let gateway = models::gateway(&folder, &[]).await;
    let iris = fingerprint(&folder, "iris");
    // A worker that calls a model server lets clients pin other versions, which is no contradiction.
    let toy = Model::load(folder.path(), "toy").unwrap().on_a_server();
    gateway
        .heartbeat_of("w1", &[("iris", true, &iris), ("toy", true, &Model::fingerprint(&toy.published()))]);
    let healthy =
        r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"},"models":{"iris":"ok","toy":"ok"}}"#;
    gateway.health_is(200, healthy).await;

    gateway.heartbeat_of("w1", &[("iris", true, &iris), ("toy", true, "other")]);
    let expected = r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"},"models":{"iris":"ok","toy":"ok"},"warnings":[{"code":"descriptions_differ","detail":"Live workers have other descriptions than this proxy of toy"}]}"#;
    gateway.health_is(200, expected).await;
}

#[tokio::test]
async fn a_broken_replacement_in_a_worker_is_a_warning() {
    let folder = repository();
    let gateway = models::gateway(&folder, &[]).await;
    let [iris, toy] = ["iris", "toy"].map(|name| fingerprint(&folder, name));
    gateway.heartbeat_of("w1", &[("iris", true, &iris), ("toy", true, &toy)]);
    let healthy =
        r#"{"status":"healthy","components":{"redis":"ok","onnx":"ok"},"models":{"iris":"ok","toy":"ok"}"#;
    gateway.health_is(200, &format!("{healthy}}}")).await;

    gateway.heartbeat_of_failing(
        "w1",
        &[("iris", true, &iris), ("toy", true, &toy)],
        &["resnet", "toy"],
        &["bert"],
    );
    let failed = r#"{"code":"models_failed","detail":"Live workers cannot load the present files of resnet, toy; they go on with earlier ones, if any"}"#;
    let undescribed =
        r#"{"code":"models_undescribed","detail":"No model server has described bert to the workers yet"}"#;
    gateway.health_is(200, &format!(r#"{healthy},"warnings":[{failed},{undescribed}]}}"#)).await;

    gateway.heartbeat_of("w1", &[("iris", true, &iris), ("toy", true, &toy)]);
    gateway.health_is(200, &format!("{healthy}}}")).await;
}

/// Adds a folder with these ONNX files: version and content.
fn add(folder: &TempDir, name: &str, versions: &[(&str, &[u8])]) {
    for (version, content) in versions {
        let of_version = folder.path().join(name).join(version);
        fs::create_dir_all(&of_version).unwrap();
        fs::write(of_version.join("model.onnx"), content).unwrap();
    }
}

#[tokio::test]
async fn folders_that_cannot_be_used_are_named_and_stop_no_other() {
    let folder = repository();
    let onnx = fs::read(folder.path().join("toy/model.onnx")).unwrap();
    add(&folder, "half", &[("1", &onnx[..onnx.len() / 2])]);
    add(&folder, "damaged", &[("", b"damaged")]);
    // The good version is served.
    add(&folder, "versions", &[("1", &onnx), ("2", b"damaged")]);
    // An empty folder may be that of a model server.
    fs::create_dir(folder.path().join("empty")).unwrap();
    // It claims the name of another folder.
    add(&folder, "twin", &[("", &onnx)]);
    fs::write(folder.path().join("twin/model.toml"), "name = \"toy\"\n").unwrap();

    let gateway = models::gateway(&folder, &[]).await;
    assert_eq!(listed(&gateway).await, ["iris", "toy", "versions"]);
    assert_eq!(gateway.get("/models/versions").await.json()["version"], "1");
    let detail = "This proxy cannot read the present files of damaged, half, twin";
    assert_eq!(warnings(&gateway).await, json!([{"code": "descriptions_rejected", "detail": detail}]));
    let lines = gateway.proxy.logs().lines();
    let reason = |model: &str| {
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut of_model =
            lines.filter(|line| line["action"] == "description_rejected" && line["model"] == model);
        of_model.next().unwrap()["error"].as_str().unwrap().to_owned()
    };
    for (model, words) in
        [("half", "half/1/model.onnx"), ("damaged", "damaged/model.onnx"), ("twin", "`toy`")]
    {
        assert!(reason(model).contains(words), "{model}: {}", reason(model));
    }
}
