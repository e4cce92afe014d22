//! Folders that hold no model, or only a part of one: what the worker logs, reports and serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use tempfile::TempDir;
use tepal_shared::{
    job::{JobId, JobStatus, NewJob},
    queue::heartbeat::WorkerState,
};
use tepal_tests::{
    process::{Service, Worker},
    wait::eventually,
};

use crate::{
    flowers::input,
    models::repository,
    queue::{Queue, SOON, stored},
    settings::Settings,
};

/// What is wrong with each model, as the log says it.
const FAILURES: [(&str, &str); 7] = [
    (
        "claimant",
        "the folders `claimant` and `good` both claim the model name `good`: change `name` in models/claimant/model.toml",
    ),
    (
        "damaged",
        "models/damaged/model.onnx is damaged or no ONNX file: byte 0 begins no field of an ONNX file",
    ),
    (
        "empty",
        "the folder models/empty has no model: it needs a model.onnx, a number folder with one for each version, or a model.toml",
    ),
    (
        "half",
        "the ONNX file models/half/model.onnx is incomplete: it has 300 bytes, but needs at least 509; copy it again",
    ),
    (
        "misnamed",
        "the model description models/misnamed/model.toml is inconsistent: its name is `other`, but its folder's is `misnamed`",
    ),
    (
        "neither",
        "no version in the folder models/neither can be used, neither 2 nor 1: version 2 of the model is broken: \
         the ONNX file models/neither/2/model.onnx is empty: copy it again",
    ),
    ("zero", "the ONNX file models/zero/model.onnx is empty: copy it again"),
];

fn write(models: &TempDir, file: &str, content: &[u8]) {
    let path = models.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A good model, one with a broken version, and those of [`FAILURES`].
fn broken_repository() -> TempDir {
    let models = repository(&["good", "claimant", "damaged", "half", "misnamed", "zero"]);
    let file = fs::read(models.path().join("good/model.onnx")).unwrap();
    let rename = |folder: &str, name: &str| {
        let path = models.path().join(folder).join("model.toml");
        let description = fs::read_to_string(&path).unwrap();
        fs::write(path, description.replacen(&format!("name = {folder:?}"), &format!("name = {name:?}"), 1))
            .unwrap();
    };
    rename("claimant", "good");
    rename("misnamed", "other");
    fs::create_dir(models.path().join("empty")).unwrap();
    write(&models, "damaged/model.onnx", b"<html>");
    write(&models, "half/model.onnx", &file[..300]);
    write(&models, "zero/model.onnx", b"");
    for (name, newest) in [("versions", &file[..300]), ("neither", b"")] {
        write(&models, &format!("{name}/1/model.onnx"), if name == "neither" { b"{" } else { &file });
        write(&models, &format!("{name}/2/model.onnx"), newest);
    }
    models
}

/// The errors that the worker logged with this action, by their models.
fn errors(worker: &Worker, action: &str, models: &Path) -> BTreeMap<String, String> {
    let lines = worker.logs().json();
    let errors = lines.iter().filter(|line| line["action"] == action);
    let folder = models.display().to_string();
    let error = |line: &serde_json::Value| {
        let text = |member: &str| line[member].as_str().unwrap().replace(&folder, "models");
        (text("model"), text("error"))
    };
    errors.map(error).collect()
}

async fn submit(queue: &Queue, model: &str) -> JobId {
    queue.submit_job(0, NewJob::new(model.parse().unwrap(), stored(&input(5.1)))).await
}

#[tokio::test]
async fn each_folder_without_a_good_model_is_reported_and_stops_no_other() {
    let (queue, models) = (Queue::start().await, broken_repository());
    let mut waiting = Vec::new();
    for (model, _) in FAILURES {
        waiting.push(submit(&queue, model).await);
    }
    let served = [submit(&queue, "good").await, submit(&queue, "versions").await];

    let settings = Settings::onnx().with_model(models.path(), "good").with("MODELS", "");
    let worker = queue.worker(settings).await;
    queue.all_completed(&served).await;

    let failures: BTreeMap<_, _> = FAILURES.map(|(model, error)| (model.to_owned(), error.to_owned())).into();
    assert_eq!(errors(&worker, "model_failed", models.path()), failures);
    let version = "version 2 of the model is broken: the ONNX file models/versions/2/model.onnx is incomplete: it has 300 bytes, but \
                   needs at least 509; copy it again";
    let broken = BTreeMap::from([("versions".to_owned(), version.to_owned())]);
    assert_eq!(errors(&worker, "model_version_broken", models.path()), broken);

    let look = async || match queue.worker_state().await {
        Some(state) if state.models.len() == 2 => Ok(state),
        other => Err(format!("{other:?}")),
    };
    let WorkerState { models: reported, failed_models, undescribed_models, .. } =
        eventually(SOON, "the heartbeat", look).await;
    assert_eq!(reported.keys().collect::<Vec<_>>(), ["good", "versions"]);
    assert_eq!(failed_models, FAILURES.map(|(model, _)| model));
    assert_eq!(undescribed_models, [""; 0]);
    let published: BTreeSet<_> = queue.store.views.published_models().await.unwrap().into_keys().collect();
    assert_eq!(published.iter().collect::<Vec<_>>(), ["good", "versions"]);
    let page = worker.metrics().await.text();
    for (model, failed) in
        FAILURES.map(|(model, _)| (model, 1)).into_iter().chain([("good", 0), ("versions", 0)])
    {
        assert!(
            page.contains(&format!("tepal_model_failed{{model=\"{model}\"}} {failed}\n")),
            "{model}: {page}"
        );
    }
    for id in waiting {
        let job = queue.job(id).await;
        assert_eq!((job.status, job.attempts), (JobStatus::Pending, 0));
    }
}

#[tokio::test]
async fn a_worker_does_not_start_if_its_default_model_is_broken() {
    let (queue, models) = (Queue::start().await, broken_repository());
    for (model, error) in FAILURES {
        let url = queue.redis.worker_url();
        let settings = Settings::onnx().with_model(models.path(), model).with("REDIS_URL", &url);
        let worker =
            Service::binary("tepal-worker").envs(&settings.pairs()).env("METRICS_ADDR", "127.0.0.1:0");
        let worker = worker.start();
        assert_eq!(worker.wait_exit(SOON).await.code(), Some(1), "{model}");
        let text = worker.logs().lines().join("\n").replace(&models.path().display().to_string(), "models");
        assert!(text.contains(error), "{model}: {text}");
    }
}

#[tokio::test]
async fn two_folders_that_claim_one_name_are_served_once_one_gives_it_up() {
    let (queue, models) = (Queue::start().await, repository(&["a", "b"]));
    let description = models.path().join("b/model.toml");
    let good = fs::read_to_string(&description).unwrap();
    fs::write(&description, good.replacen("name = \"b\"", "name = \"a\"", 1)).unwrap();
    let worker = queue.worker(Settings::onnx().with_model(models.path(), "a").with("MODELS", "")).await;
    let (ours, theirs) = (submit(&queue, "a").await, submit(&queue, "b").await);
    queue.completed(ours).await;
    let expected =
        "the folders `b` and `a` both claim the model name `a`: change `name` in models/b/model.toml";
    let expected = BTreeMap::from([("b".to_owned(), expected.to_owned())]);
    assert_eq!(errors(&worker, "model_failed", models.path()), expected);
    assert_eq!(queue.job(theirs).await.status, JobStatus::Pending);

    fs::write(&description, good).unwrap();

    queue.completed(theirs).await;
}
