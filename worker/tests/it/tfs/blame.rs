//! Failures that are not the input's fault: of the batch, of the server's state, of the load.

use std::{fmt::Write as _, time::Duration};

use tepal_shared::{job::JobId, queue::heartbeat::BackendState};
use tepal_tests::{
    model_server::{Behaviour, ModelServer, ServerSpec, TensorSpec},
    process::Worker,
    wait::eventually,
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    flowers::input,
    queue::{Queue, SOON, rows},
    settings::Settings,
};

fn status(code: Code, text: &str) -> Behaviour {
    Behaviour::Status(code, text.to_owned())
}

async fn assert_completed_at_first(queue: &Queue, ids: &[JobId]) {
    for job in queue.all_completed(ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
    }
    queue.assert_drained().await;
}

fn assert_never_down(worker: &Worker) {
    assert_eq!(worker.logs().find("backend_down"), None);
}

#[tokio::test]
async fn calls_that_exceed_the_servers_memory_are_made_smaller_and_every_job_completes() {
    for code in [Code::ResourceExhausted, Code::InvalidArgument, Code::Internal, Code::Unknown] {
        let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
        let oom = "OOM when allocating tensor with shape[256,4]".to_owned();
        server.set_behaviour(Behaviour::FailCallsOver(16, code, oom));
        let ids = queue.submit_all((0..600).map(|_| input(5.1))).await;

        let worker = queue.worker(Settings::serving(&server)).await;

        assert_completed_at_first(&queue, &ids).await;
        assert_never_down(&worker);
        let metrics = worker.metrics().await;
        let limit = metrics.metric("tepal_worker_batch_rows_limit");
        assert!((8.0..=128.0).contains(&limit), "{code:?}: {limit}");
        assert!(metrics.text().contains("tepal_batch_splits_total{model=\"iris\",reason="), "{code:?}");
    }
}

/// A model whose rows have 200 kB, and jobs of one such row. Everything is a tenth of 24 jobs of 2 MB against gRPC's limit of
/// 4 MiB, because unoptimised builds read JSON slowly.
struct Wide {
    models: tempfile::TempDir,
    spec: ServerSpec,
}

impl Wide {
    const VALUES: usize = 50_000;

    fn new() -> Self {
        let models = tempfile::tempdir().unwrap();
        let values = Self::VALUES;
        let description = format!(
            "name = \"wide\"\nversion = \"1\"\nmax_batch = 8\nsample = {}\n\
             inputs = [{{ name = \"x\", datatype = \"FP32\", shape = [{values}] }}]\n\
             [[outputs]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = [1]\n",
            Self::input().replace('0', "0.0"),
        );
        std::fs::create_dir(models.path().join("wide")).unwrap();
        std::fs::write(models.path().join("wide/model.toml"), description).unwrap();
        let spec = ServerSpec {
            model: "wide".to_owned(),
            inputs: vec![TensorSpec::new("x", &[values])],
            output: TensorSpec::new("y", &[1]),
            compute: std::sync::Arc::new(|_| vec![1.0]),
            ..ServerSpec::iris()
        };
        Self { models, spec }
    }

    fn input() -> String {
        let mut text = "[[0".to_owned();
        (1..Self::VALUES).for_each(|_| text.push_str(",0"));
        write!(text, "]]").unwrap();
        text
    }

    fn settings(&self, server: &ModelServer) -> Settings {
        let all_at_once = Settings::serving(server).with("BATCH_MAX_BYTES", 100 << 20);
        all_at_once.with_model(self.models.path(), "wide")
    }
}

#[tokio::test]
async fn calls_larger_than_the_servers_messages_may_be_are_made_smaller() {
    let wide = Wide::new();
    let limit = (4 << 20) / 10;
    for (jobs, behaviour, max_request_bytes) in
        [(24, Behaviour::FailBytesOver(limit), usize::MAX), (24, Behaviour::Normal, limit)]
    {
        let spec = ServerSpec { max_request_bytes, ..wide.spec.clone() };
        let (queue, server) = (Queue::start().await.of("wide"), ModelServer::start(spec).await);
        server.set_behaviour(behaviour);
        let ids = queue.submit_all((0..jobs).map(|_| Wide::input())).await;

        let worker = queue.worker(wide.settings(&server)).await;

        assert_completed_at_first(&queue, &ids).await;
        assert_never_down(&worker);
    }
}

#[tokio::test]
async fn a_job_larger_than_the_servers_messages_may_be_fails_and_says_so() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::FailBytesOver(200));
    let worker = queue.worker(Settings::serving(&server)).await;
    let large = queue.submit(crate::flowers::input_of_rows(20)).await;

    let (error, code, attempts) = queue.failed(large).await;

    let what = "The input or its result exceeds the message size limit of the model server: \
                Received message larger than max";
    assert!(error.starts_with(what), "{error}");
    assert_eq!((code.as_str(), attempts), ("payload_too_large_for_model", 1));
    let small = queue.submit(input(5.1)).await;
    assert_completed_at_first(&queue, &[small]).await;
    assert_never_down(&worker);
}

#[tokio::test]
async fn answers_larger_than_our_messages_may_be_are_asked_for_in_parts() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::PadReply(20 << 20));
    let ids = queue.submit_all((0..4).map(|_| input(5.1))).await;

    let _worker = queue.worker(Settings::serving(&server).one_at_a_time()).await;

    assert_completed_at_first(&queue, &ids).await;
    assert_eq!(rows(&server), [4, 2, 2]);
    let too_large = queue.submit(crate::flowers::input_of_rows(4)).await;
    assert_eq!(queue.failed(too_large).await.1, "payload_too_large_for_model");
}

/// Four seconds of this code, as while a version is swapped.
async fn swap(code: Code) {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(status(code, "Serving signature key \"serving_default\" not found."));
    let _worker = queue.worker(Settings::serving(&server)).await;
    let began = Instant::now();
    let ids = queue.submit_all((0..50).map(|_| input(5.1))).await;

    queue.backend_is(BackendState::Down).await;
    tokio::time::sleep_until(began + Duration::from_secs(4)).await;
    server.set_behaviour(Behaviour::Normal);

    assert_completed_at_first(&queue, &ids).await;
    queue.backend_is(BackendState::Ok).await;
    let calls = server.calls().len();
    assert!(calls < 60, "{code:?}: {calls} calls");
}

#[tokio::test]
async fn a_server_that_cannot_serve_for_seconds_fails_no_job_and_is_down() {
    let codes = [
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::DataLoss,
        Code::AlreadyExists,
        Code::NotFound,
        Code::Unimplemented,
        Code::Unauthenticated,
        Code::PermissionDenied,
        Code::InvalidArgument,
    ];
    for some in codes.chunks(3) {
        futures_util::future::join_all(some.iter().copied().map(swap)).await;
    }
}

#[tokio::test]
async fn an_input_that_the_server_refuses_while_it_serves_others_fails_alone() {
    for code in [
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::DataLoss,
        Code::NotFound,
        Code::Unimplemented,
    ] {
        let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
        server.set_behaviour(Behaviour::FailRowsOver(9.0, code));
        let first_values = (0..40).map(|number| if number == 17 { 9.5 } else { 5.1 });
        let mut ids = queue.submit_all(first_values.map(input)).await;
        let settings = Settings::serving(&server).with("RETRY_BASE_MS", 10).with("RECLAIM_INTERVAL_MS", 20);

        let _worker = queue.worker(settings).await;

        let (_, failed, attempts) = queue.failed(ids.remove(17)).await;
        let tries = if code == Code::InvalidArgument { 1 } else { 4 };
        assert_eq!((failed.as_str(), attempts), ("model_rejected", tries), "{code:?}");
        assert_completed_at_first(&queue, &ids).await;
    }
}

/// The iris model with a sample that [`Behaviour::FailRowsOver`] fails.
fn with_wrong_sample() -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models/iris/model.toml");
    let description = std::fs::read_to_string(shipped).unwrap();
    let (sample, wrong) = ("sample = [[5.1,", "sample = [[9.5,");
    assert!(description.contains(sample), "{description}");
    std::fs::create_dir(models.path().join("iris")).unwrap();
    std::fs::write(models.path().join("iris/model.toml"), description.replace(sample, wrong)).unwrap();
    models
}

/// The iris model without a sample. The derived one holds the middle of the bounds, 5.
fn with_wrong_derived_sample() -> tempfile::TempDir {
    let models = with_wrong_sample();
    let file = models.path().join("iris/model.toml");
    let description = std::fs::read_to_string(&file).unwrap();
    let kept = description.lines().filter(|line| !line.starts_with("sample ="));
    std::fs::write(&file, kept.collect::<Vec<_>>().join("\n")).unwrap();
    models
}

async fn sample_is_wrong(code: Code) {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::FailRowsOver(9.0, code));
    let models = with_wrong_sample();
    let settings = Settings::serving(&server).with("RETRY_BASE_MS", 10).with("RECLAIM_INTERVAL_MS", 20);
    let worker = queue.worker(settings.with_model(models.path(), "iris")).await;
    let refused = queue.submit(input(9.6)).await;

    // Nothing shows yet whether the sample is wrong or the server.
    let reason = async || {
        let state = queue.worker_state().await.and_then(|state| state.backend_detail);
        state.filter(|why| why.contains("the sample of its description, model.toml: The model server"))
    };
    eventually(SOON, "the reason", reason).await;
    let ids = queue.submit_all((0..5).map(|_| input(5.1))).await;

    queue.all_completed(&ids).await;
    assert_eq!(queue.failed(refused).await.1, "model_rejected", "{code:?}");
    let downs = || worker.logs().lines().iter().filter(|line| line.contains("backend_down")).count();
    let before = downs();
    let again = queue.submit(input(9.7)).await;
    assert_eq!(queue.failed(again).await.1, "model_rejected", "{code:?}");
    worker.wait_for_log("sample_wrong", SOON).await;
    assert_eq!(downs(), before, "a job stopped the worker again");
}

#[tokio::test]
async fn a_wrong_sample_is_reported_and_jobs_go_on_once_one_shows_that_the_server_serves() {
    tokio::join!(sample_is_wrong(Code::InvalidArgument), sample_is_wrong(Code::FailedPrecondition));
}

#[tokio::test]
async fn a_wrong_derived_sample_stops_no_job_once_others_have_succeeded() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::FailRowsOver(4.0, Code::InvalidArgument));
    let models = with_wrong_derived_sample();
    let settings = Settings::serving(&server).with("RETRY_BASE_MS", 10).with("RECLAIM_INTERVAL_MS", 20);
    let worker = queue.worker(settings.with_model(models.path(), "iris")).await;
    let asked = async || !server.calls().is_empty();
    eventually(SOON, "the sample", asked).await;
    let ids = queue.submit_all((0..5).map(|_| input(3.9))).await;
    queue.all_completed(&ids).await;

    let refused = queue.submit(input(9.6)).await;

    assert_eq!(queue.failed(refused).await.1, "model_rejected");
    worker.wait_for_log("sample_wrong", SOON).await;
    assert_never_down(&worker);
}

#[tokio::test]
async fn a_full_batching_queue_is_load_and_no_outage() {
    let spec = ServerSpec {
        max_concurrent_calls: 2,
        refusal: Code::Unavailable,
        call_cost: Duration::from_millis(20),
        ..ServerSpec::iris()
    };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let ids = queue.submit_all((0..200).map(|_| input(5.1))).await;

    let worker = queue.worker(Settings::serving(&server).with("BATCH_MAX_ROWS", 1)).await;

    assert_completed_at_first(&queue, &ids).await;
    assert!(server.calls().len() > 200, "the server was never overloaded");
    assert_never_down(&worker);
}

#[tokio::test]
async fn a_server_that_is_busy_with_a_long_call_is_not_down() {
    let spec = ServerSpec { handlers: 1, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let worker = queue.worker(Settings::serving(&server).with("INFERENCE_TIMEOUT_MS", 60_000)).await;
    queue.backend_is(BackendState::Ok).await;
    server.script_next(1, Behaviour::Hang);
    let probes = server.probe_count();
    let id = queue.submit(input(5.1)).await;
    crate::queue::running(&server, 1).await;

    // The second probe starts when the first has timed out.
    let given_up = async || server.probe_count() >= probes + 2;
    eventually(SOON, "a probe without an answer", given_up).await;

    assert_never_down(&worker);
    assert_eq!(queue.worker_state().await.unwrap().backend_state, BackendState::Ok);
    assert_eq!(queue.job(id).await.status, tepal_shared::job::JobStatus::Processing);
}

#[tokio::test]
async fn connections_that_the_server_closes_in_order_cost_nothing() {
    let age = Some(Duration::from_millis(50));
    let spec = ServerSpec { max_connection_age: age, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let worker = queue.worker(Settings::serving(&server).with("BATCH_MAX_ROWS", 1)).await;
    queue.backend_is(BackendState::Ok).await;

    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let ids = queue.submit_all((0..20).map(|_| input(5.1))).await;
        assert_completed_at_first(&queue, &ids).await;
    }

    assert_never_down(&worker);
}

#[tokio::test]
async fn the_log_names_the_reason_for_an_unreachable_server() {
    let queue = Queue::start().await;
    let addr = ([127, 0, 0, 1], tepal_tests::ports::free_port()).into();
    for (settings, why) in [
        (Settings::serving_at(addr), "Connection refused"),
        (Settings::serving_at(addr).with("TF_SERVING_HOST", "no-such-host.invalid"), "lookup address"),
    ] {
        let worker = queue.worker(settings).await;
        worker.wait_for_log(why, SOON).await;
        worker.sigterm();
        assert!(worker.wait_exit(SOON).await.success());
    }
}
