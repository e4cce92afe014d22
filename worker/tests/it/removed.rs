//! Jobs that wait for a model that was removed.

use std::net::SocketAddr;

use tepal_shared::{
    job::{JobId, JobStatus, ModelName, NewJob, Priority},
    queue::heartbeat::BackendState,
};
use tepal_tests::{ports::free_port, wait::eventually};

use crate::{
    flowers::input,
    models::repository,
    queue::{Queue, SOON, stored},
    settings::Settings,
};

fn named(name: &str) -> ModelName {
    name.parse().unwrap()
}

async fn submit(queue: &Queue, model: &str, priority: Priority) -> JobId {
    let job = NewJob { priority, ..NewJob::new(named(model), stored(&input(5.1))) };
    queue.submit_job(0, job).await
}

/// Publishes a description of the model, as a worker that served it.
async fn was_served(queue: &Queue, model: &str) {
    queue.store.work.publish(&[(named(model), "{}".to_owned())]).await.unwrap();
}

async fn remove(queue: &Queue, model: &str) {
    queue.store.views.unpublish(named(model)).await.unwrap();
}

/// Waits until a worker has seen that the model was removed.
async fn is_noticed(queue: &Queue, model: &str) {
    let key = queue.store.queue.keys().models();
    let look = async || queue.redis.cli(&["HGET", &key, model]) != "0";
    eventually(SOON, "a worker to mark the time of the removal", look).await;
}

async fn is_not_found(queue: &Queue, id: JobId, model: &str) {
    let (error, code, _) = queue.failed(id).await;
    assert_eq!((code.as_str(), error), ("model_not_found", format!("The model `{model}` was removed")));
}

#[tokio::test]
async fn jobs_of_a_removed_model_wait_unless_they_shall_fail() {
    let (queue, models) = (Queue::start().await, repository(&["a"]));
    let settings = || Settings::onnx().with_model(models.path(), "a").with("MODELS", "a");
    was_served(&queue, "b").await;
    was_served(&queue, "absent").await;
    let waiting = [submit(&queue, "b", Priority::Low).await, submit(&queue, "b", Priority::High).await];
    let absent = submit(&queue, "absent", Priority::Normal).await;
    remove(&queue, "b").await;

    let worker = queue.worker(settings()).await;
    is_noticed(&queue, "b").await;
    let ours = submit(&queue, "a", Priority::Normal).await;
    queue.completed(ours).await;
    for id in waiting {
        let job = queue.job(id).await;
        assert_eq!((job.status, job.attempts), (JobStatus::Pending, 0));
    }

    let failing = queue.worker(settings().with("REMOVED_MODEL_JOBS", "fail")).await;
    for id in waiting {
        is_not_found(&queue, id, "b").await;
        assert!(queue.ttl(id) > 0);
    }
    let late = submit(&queue, "b", Priority::Normal).await;
    is_not_found(&queue, late, "b").await;
    assert_eq!(queue.job(absent).await.status, JobStatus::Pending, "its model was not removed");
    let page = failing.metrics().await.text();
    let counted = "tepal_jobs_failed_total{model=\"b\",code=\"model_not_found\"} 3\n";
    assert!(page.contains(counted), "{page}");
    assert!(worker.is_running());
}

#[tokio::test]
async fn jobs_of_a_removed_model_that_a_worker_serves_again_do_not_fail() {
    let (queue, models) = (Queue::start().await, repository(&["a", "b"]));
    // Its server does not answer, so the jobs of b wait.
    let b = models.path().join("b");
    let description = std::fs::read_to_string(b.join("model.toml")).unwrap();
    let serving = "\n[serving]\nbackend = \"tensorflow_serving\"\n";
    std::fs::write(b.join("model.toml"), description + serving).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = Settings::serving_at(addr).with_model(models.path(), "a").with("MODELS", "a,b");
    let settings = settings.with("MODEL_BACKEND", "onnx").with("REMOVED_MODEL_JOBS", "fail");
    let _worker = queue.worker(settings).await;
    queue.backend_is(BackendState::Ok).await;
    let kept = submit(&queue, "b", Priority::Normal).await;

    remove(&queue, "b").await;
    was_served(&queue, "c").await;
    remove(&queue, "c").await;
    remove(&queue, "b").await;

    // The worker looks at b before c.
    let of_c = submit(&queue, "c", Priority::Normal).await;
    is_not_found(&queue, of_c, "c").await;
    assert_eq!(queue.job(kept).await.status, JobStatus::Pending);
}
