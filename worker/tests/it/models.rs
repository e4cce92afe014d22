//! One worker serves several models.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser as _;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tepal_shared::{
    job::{JobId, JobStatus, ModelName, NewJob, Stream},
    tensor::Tensor,
};
use tepal_tests::{process::Worker, wait::eventually};
use tepal_worker::{
    backend::{self, Backend, BackendError, ModelCall, Verdict},
    settings::{Args, Config},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    flowers::input,
    queue::{Queue, SOON, stored},
    settings::Settings,
};

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models/iris");

/// A repository in which each model is Iris under another name.
pub(crate) fn repository(names: &[&str]) -> TempDir {
    let models = tempfile::tempdir().unwrap();
    for name in names {
        add_model(models.path(), name);
    }
    models
}

pub(crate) fn add_model(models: &Path, name: &str) {
    let folder = models.join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(format!("{IRIS}/model.onnx"), folder.join("model.onnx")).unwrap();
    let description = std::fs::read_to_string(format!("{IRIS}/model.toml")).unwrap();
    let named = description.replacen(r#"name = "iris""#, &format!("name = {name:?}"), 1);
    std::fs::write(folder.join("model.toml"), named).unwrap();
}

/// Adds lines to the table `[serving]` of a model.
fn serve_with(models: &Path, name: &str, lines: &str) {
    let path = models.join(name).join("model.toml");
    let description = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{description}\n[serving]\n{lines}\n")).unwrap();
}

fn named(name: &str) -> ModelName {
    name.parse().unwrap()
}

async fn submit(queue: &Queue, model: &str) -> JobId {
    queue.submit_job(0, NewJob::new(named(model), stored(&input(5.1)))).await
}

async fn submit_many(queue: &Queue, model: &str, count: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(submit(queue, model).await);
    }
    ids
}

fn settings(models: &TempDir) -> Settings {
    Settings::onnx().with_model(models.path(), "a").with("MODELS", "")
}

pub(crate) async fn serves(worker: &Worker, models: usize) {
    let up = async || {
        let lines = worker.logs().json();
        let up = lines.iter().filter(|line| line["action"] == "backend_up").count();
        if up >= models { Ok(()) } else { Err(format!("{up} models answer")) }
    };
    eventually(SOON, "the models to answer", up).await;
}

#[tokio::test]
async fn a_worker_serves_all_models_of_its_repository_and_each_batch_has_one_model() {
    let (queue, models) = (Queue::start().await, repository(&["a", "b", "c"]));
    let mut waiting = Vec::new();
    for name in ["a", "b", "c", "b", "a", "c"] {
        waiting.push(submit(&queue, name).await);
    }

    let worker = queue.worker(settings(&models)).await;
    queue.all_completed(&waiting).await;
    serves(&worker, 3).await;
    for name in ["c", "a", "b"] {
        let arriving = submit(&queue, name).await;
        queue.completed(arriving).await;
    }

    let calls = worker.metrics().await.metric("tepal_batch_jobs_count");
    assert!(calls >= 6.0, "{calls} calls");
}

#[tokio::test]
async fn a_worker_never_touches_the_jobs_of_models_that_it_does_not_serve() {
    let (queue, models) = (Queue::start().await, repository(&["a", "b"]));
    let (ours, others) = (submit(&queue, "a").await, submit(&queue, "b").await);

    let worker = queue.worker(settings(&models).with("MODELS", "a")).await;
    queue.completed(ours).await;
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());

    let job = queue.job(others).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Pending, 0));
    for stream in Stream::all_of(named("b")) {
        let key = queue.store.queue.keys().stream(0, stream);
        if queue.redis.cli(&["EXISTS", &key]) == "1" {
            assert_eq!(queue.redis.cli(&["XINFO", "GROUPS", &key]), "", "{key} has a group");
        }
    }
}

/// Iris, whose calls wait for a permit, and which can go away.
struct Gate {
    iris: Arc<dyn Backend>,
    permits: Semaphore,
    model: ModelName,
    calls: Calls,
    call_time: Duration,
}

/// The models of all calls, in the order in which the calls began.
type Calls = Arc<Mutex<Vec<ModelName>>>;

impl Backend for Gate {
    fn name(&self) -> &'static str {
        self.iris.name()
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        self.calls.lock().unwrap().push(self.model);
        Box::pin(async {
            let _permit = self.permits.acquire().await.map_err(|_| gone())?;
            tokio::time::sleep(self.call_time).await;
            self.iris.predict(call).await
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<serde_json::Value, BackendError>> {
        if self.permits.is_closed() {
            return Box::pin(async { Err(gone()) });
        }
        self.iris.probe()
    }
}

fn gone() -> BackendError {
    BackendError::new(Verdict::Unavailable, "model_unavailable", "It went away")
}

/// A worker in this process, with a gate for each of two models.
struct Gates {
    queue: Queue,
    a: Arc<Gate>,
    b: Arc<Gate>,
    calls: Calls,
    waiting: Vec<JobId>,
    shutdown: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    _models: TempDir,
}

impl Gates {
    async fn start(call_time: Duration, arguments: &[&str]) -> Self {
        Self::start_with(call_time, arguments, "", 0).await
    }

    /// With these lines about the serving of b, and so many jobs of each model before the worker starts.
    async fn start_with(call_time: Duration, arguments: &[&str], serving: &str, backlog: usize) -> Self {
        let (queue, models) = (Queue::start().await, repository(&["a", "b"]));
        serve_with(models.path(), "b", serving);
        let mut waiting = submit_many(&queue, "a", backlog).await;
        waiting.extend(submit_many(&queue, "b", backlog).await);
        let (url, folder) = (queue.redis.worker_url(), models.path().display().to_string());
        let args = ["tepal-worker", "--redis-url", &url, "--models-dir", &folder, "--model-name", "a"];
        let args = args.into_iter().chain(["--batch-max-rows", "1"]).chain(arguments.iter().copied());
        let config = Config::try_from(Args::try_parse_from(args).unwrap()).unwrap();
        let calls = Calls::default();
        let gate = |name| {
            let iris = backend::open(&config.backend, config.common.model.as_ref().unwrap()).unwrap();
            let (permits, calls) = (Semaphore::new(Semaphore::MAX_PERMITS), Arc::clone(&calls));
            Arc::new(Gate { iris, permits, model: named(name), calls, call_time })
        };
        let (a, b) = (gate("a"), gate("b"));
        let backends = (Arc::clone(&a), Arc::clone(&b));
        let open = move |model: ModelName| -> Arc<dyn Backend> {
            if model == backends.0.model {
                Arc::<Gate>::clone(&backends.0)
            } else {
                Arc::<Gate>::clone(&backends.1)
            }
        };
        let shutdown = CancellationToken::new();
        let running = tepal_worker::run_with_each(config, open, shutdown.clone());
        let worker = tokio::spawn(async { running.await.unwrap() });
        Self { queue, a, b, calls, waiting, shutdown, worker, _models: models }
    }

    fn calls_of(&self, gate: &Gate) -> usize {
        self.calls.lock().unwrap().iter().filter(|model| **model == gate.model).count()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.worker.await.unwrap();
    }
}

#[tokio::test]
async fn calls_that_hang_leave_a_slot_to_a_model_with_work_now_and_then() {
    let gates = Gates::start(Duration::ZERO, &["--num-workers", "2", "--max-in-flight", "4"]).await;
    let first = submit(&gates.queue, "b").await;
    gates.queue.completed(first).await;

    gates.a.permits.forget_permits(Semaphore::MAX_PERMITS);
    let hanging = submit_many(&gates.queue, "a", 20).await;
    let full = async || gates.calls_of(&gates.a) == 7;
    eventually(SOON, "the calls to hang", full).await;

    for _ in 0..3 {
        let job = submit(&gates.queue, "b").await;
        gates.queue.completed(job).await;
    }
    assert_eq!(gates.calls_of(&gates.a), 7, "one slot in eight is kept free");
    gates.a.permits.add_permits(1000);
    gates.queue.all_completed(&hanging).await;
    gates.stop().await;
}

/// How many of the first 60 calls are of b, if both models have a backlog and there is one slot.
async fn calls_of_b_among_60(serving: &str) -> usize {
    let one_slot = ["--num-workers", "1", "--max-in-flight", "1"];
    let gates = Gates::start_with(Duration::from_millis(5), &one_slot, serving, 60).await;
    gates.queue.all_completed(&gates.waiting).await;
    let calls = gates.calls.lock().unwrap().clone();
    let of_b = calls.iter().take(60).filter(|model| **model == gates.b.model).count();
    gates.stop().await;
    of_b
}

#[tokio::test]
async fn two_models_with_a_backlog_share_the_only_slot() {
    let of_b = calls_of_b_among_60("").await;
    assert!((20..=40).contains(&of_b), "{of_b} of 60 calls");
}

#[tokio::test]
async fn a_model_with_a_weight_gets_more_of_the_only_slot() {
    let of_b = calls_of_b_among_60("weight = 3").await;
    assert!((38..=52).contains(&of_b), "{of_b} of 60 calls");
}

#[tokio::test]
async fn a_model_that_went_away_stops_no_other() {
    let gates = Gates::start(Duration::ZERO, &["--num-workers", "1"]).await;
    let first = submit(&gates.queue, "a").await;
    gates.queue.completed(first).await;

    gates.a.permits.close();
    let stuck = submit_many(&gates.queue, "a", 3).await;
    for _ in 0..5 {
        let job = submit(&gates.queue, "b").await;
        gates.queue.completed(job).await;
    }

    for id in stuck {
        let job = gates.queue.job(id).await;
        assert!(!job.status.is_terminal(), "{job:?}");
    }
    gates.stop().await;
}

/// How often a line with this action names the model.
fn lines(worker: &Worker, action: &str, model: &str) -> usize {
    let lines = worker.logs().json();
    lines.iter().filter(|line| line["action"] == action && line["model"] == model).count()
}

async fn line(worker: &Worker, action: &str, model: &str) {
    let look = async || lines(worker, action, model) > 0;
    eventually(SOON, &format!("the line {action} of {model}"), look).await;
}

#[tokio::test]
async fn a_model_can_be_added_and_removed_while_the_worker_runs() {
    let (queue, models) = (Queue::start().await, repository(&["a"]));
    let worker = queue.worker(settings(&models)).await;
    let early = submit(&queue, "b").await;

    add_model(models.path(), "b");
    queue.completed(early).await;

    std::fs::remove_dir_all(models.path().join("b")).unwrap();
    line(&worker, "model_stopped", "b").await;
    let late = submit(&queue, "b").await;
    let ours = submit(&queue, "a").await;
    queue.completed(ours).await;
    assert_eq!(queue.job(late).await.status, JobStatus::Pending);

    add_model(models.path(), "b");
    queue.completed(late).await;
    assert_eq!(lines(&worker, "model_failed", "b"), 0);
}

/// Waits until the heartbeat names these models as those that cannot be loaded. Proxies warn of them in /health.
async fn failed_models_are(queue: &Queue, expected: &[&str]) {
    let reported = async || match queue.worker_state().await {
        Some(state) if state.failed_models == expected => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually(SOON, "the heartbeat to name the models", reported).await;
}

#[tokio::test]
async fn a_broken_replacement_keeps_the_old_model_and_a_good_one_replaces_it() {
    let (queue, models) = (Queue::start().await, repository(&["a", "b"]));
    let worker = queue.worker(settings(&models)).await;
    serves(&worker, 2).await;
    let file = models.path().join("b/model.onnx");
    let good = std::fs::read(&file).unwrap();

    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    line(&worker, "model_failed", "b").await;
    assert_eq!(worker.metrics().await.metric("tepal_model_failed"), 1.0);
    failed_models_are(&queue, &["b"]).await;
    let job = submit(&queue, "b").await;
    queue.completed(job).await;

    std::fs::write(&file, &good).unwrap();
    line(&worker, "model_stopped", "b").await;
    let job = submit(&queue, "b").await;
    queue.completed(job).await;
    assert_eq!(worker.metrics().await.metric("tepal_model_failed"), 0.0);
    failed_models_are(&queue, &[]).await;
}

#[tokio::test]
async fn a_folder_that_is_half_copied_is_served_when_it_is_whole() {
    let (queue, models) = (Queue::start().await, repository(&["a"]));
    let worker = queue.worker(settings(&models)).await;
    add_model(models.path(), "b");
    let file = models.path().join("b/model.onnx");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..100]).unwrap();
    line(&worker, "model_failed", "b").await;
    let job = submit(&queue, "b").await;

    std::fs::write(&file, whole).unwrap();

    queue.completed(job).await;
}

#[tokio::test]
async fn a_model_has_limits_and_lifetimes_of_its_own() {
    let (queue, models) = (Queue::start().await, repository(&["a", "b"]));
    serve_with(models.path(), "b", "max_result_bytes = 10\nresult_ttl_seconds = 60\nmax_in_flight = 1");
    let worker = queue.worker(settings(&models)).await;
    serves(&worker, 2).await;

    let (ours, theirs) = (submit(&queue, "a").await, submit(&queue, "b").await);
    queue.completed(ours).await;
    let (_, code, _) = queue.failed(theirs).await;

    assert_eq!(code, "result_too_large");
    assert!((1..=60).contains(&queue.ttl(theirs)) && queue.ttl(ours) > 60);
    let page = worker.metrics().await.text();
    assert!(page.contains("tepal_worker_batches_limit{model=\"b\"} 1\n"), "{page}");
}

#[tokio::test]
async fn an_unknown_backend_of_a_model_is_reported_and_stops_no_other() {
    let (queue, models) = (Queue::start().await, repository(&["a", "b"]));
    serve_with(models.path(), "b", "backend = \"keras\"");
    let worker = queue.worker(settings(&models)).await;

    let error = worker.wait_for_log("model_failed", SOON).await;
    assert!(error.contains("`backend` under [serving] in model.toml: `keras` must be "), "{error}");
    let job = submit(&queue, "a").await;
    queue.completed(job).await;
}
