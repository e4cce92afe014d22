//! Jobs that pin a version of their model.

use serde_json::Value;
use tempfile::TempDir;
use tepal_shared::{
    job::{JobId, NewJob, input},
    model::Model,
};

use crate::{
    queue::{Queue, result_of},
    settings::Settings,
};

/// A model whose versions have different inputs: 1 is Iris, and 2 is the toy.
fn repository() -> TempDir {
    let (models, root) = (tempfile::tempdir().unwrap(), concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for (version, source) in [("1", "compose/models/iris"), ("2", "tests/models/toy")] {
        let folder = models.path().join("m").join(version);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(format!("{root}/{source}/model.onnx"), folder.join("model.onnx")).unwrap();
    }
    models
}

/// Submits the sample of this version, with these bytes before it.
async fn submit(queue: &Queue, description: &Model, pinned: Option<&str>) -> JobId {
    let stored = description.stored(&description.sample_input().unwrap());
    let stored = pinned.map_or(stored.clone(), |version| input::pin(version, &stored));
    queue.submit_job(0, NewJob::new("m".parse().unwrap(), stored)).await
}

#[tokio::test]
async fn only_the_pinned_version_runs_a_job_and_the_newest_runs_the_others() {
    let (queue, models) = (Queue::start().await, repository());
    let newest = Model::load(models.path(), "m").unwrap();
    let oldest = &newest.other_versions[0];
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push((submit(&queue, oldest, Some("1")).await, 3));
        jobs.push((submit(&queue, &newest, None).await, 1));
        jobs.push((submit(&queue, &newest, Some("2")).await, 1));
    }
    let removed = submit(&queue, oldest, Some("3")).await;
    let unfit = submit(&queue, &newest, Some("1")).await;

    let _worker = queue.worker(Settings::onnx().with_model(models.path(), "m").with("MODELS", "m")).await;

    for (id, values) in jobs {
        let result = result_of(&queue.completed(id).await);
        let given = match &result["prediction"] {
            Value::Array(values) => values.len(),
            other => panic!("{other}"),
        };
        assert_eq!(given, values, "{result}");
    }
    let (error, code, _) = queue.failed(removed).await;
    assert_eq!(
        (code.as_str(), error.as_str()),
        ("model_not_found", "Version `3` of the model `m` was removed")
    );
    let (error, code, _) = queue.failed(unfit).await;
    assert_eq!(code, "invalid_input");
    assert!(error.ends_with("has the shape [1, 2, 3], but the model takes [-1, 4]"), "{error}");
    // A worker that runs still runs both.
    let later = submit(&queue, oldest, Some("1")).await;
    queue.completed(later).await;
    queue.assert_drained().await;
}
