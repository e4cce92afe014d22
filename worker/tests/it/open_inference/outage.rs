//! An unreachable model server: jobs wait, use no attempt, and complete when the server is back.

use tepal_shared::{
    job::{JobId, JobStatus},
    queue::heartbeat::BackendState,
};
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, OpenInferenceSpec, ServerSpec},
    ports::free_port,
    wait::eventually,
};
use tonic::Code;

use crate::{
    flowers::input,
    queue::{Queue, SOON, running},
    settings::Settings,
};

fn address() -> std::net::SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// Every job waits, and none has used an attempt.
async fn assert_waiting(queue: &Queue, ids: &[JobId]) {
    for id in ids {
        let look = async || {
            let job = queue.job(*id).await;
            if job.status == JobStatus::Pending { Ok(job) } else { Err(format!("{job:?}")) }
        };
        let job = eventually(SOON, "the job to be released", look).await;
        assert_eq!(job.attempts, 0, "{job:?}");
    }
}

async fn assert_completed_at_first(queue: &Queue, ids: &[JobId]) {
    for job in queue.all_completed(ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_of_calls_costs_no_attempt() {
    let (queue, addr) = (Queue::start().await, address());
    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    server.set_behaviour(Behaviour::Hang);
    let _worker = queue.worker(Settings::open_inference_at(addr).with("BATCH_MAX_ROWS", 1)).await;
    let mut ids = queue.submit_all((0..4).map(|_| input(5.1))).await;
    running(&server, 4).await;

    let calls = server.stop().await;

    assert!(calls.iter().all(|call| call.outcome == CallOutcome::ServerStopped), "{calls:?}");
    let state = queue.backend_is(BackendState::Down).await;
    assert!(state.metadata.is_some(), "the last known metadata is still published");
    ids.extend(queue.submit_all((0..20).map(|_| input(5.1))).await);
    assert_waiting(&queue, &ids).await;
    let _server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    assert_completed_at_first(&queue, &ids).await;
    queue.backend_is(BackendState::Ok).await;
}

#[tokio::test]
async fn a_server_that_is_restarted_again_and_again_fails_no_job() {
    let (queue, addr) = (Queue::start().await, address());
    let mut server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let _worker = queue.worker(Settings::open_inference_at(addr)).await;
    for _ in 0..3 {
        server.set_behaviour(Behaviour::Hang);
        let ids = queue.submit_all((0..8).map(|_| input(5.1))).await;
        running(&server, 1).await;
        server.stop().await;
        server = ModelServer::start_on(addr, ServerSpec::iris()).await;
        assert_completed_at_first(&queue, &ids).await;
    }
}

#[tokio::test]
async fn a_job_that_kills_the_server_fails_as_model_lost_and_harms_no_other() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::CrashOnRowsOver(9.0));
    let mut others = queue.submit_all((0..15).map(|_| input(5.1))).await;
    let poison = queue.submit(input(9.5)).await;
    others.extend(queue.submit_all((0..15).map(|_| input(5.1))).await);

    let _worker = queue.worker(Settings::open_inference(&server)).await;

    queue.all_completed(&others).await;
    assert_eq!(queue.failed(poison).await.1, "model_lost");
}

#[tokio::test]
async fn unavailable_from_a_server_whose_model_is_not_ready_is_an_outage() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let worker = queue.worker(Settings::open_inference(&server)).await;
    queue.backend_is(BackendState::Ok).await;
    // Calls and probes are answered UNAVAILABLE and false.
    server.set_available(false);

    let ids = queue.submit_all((0..5).map(|_| input(5.1))).await;

    queue.backend_is(BackendState::Down).await;
    assert_waiting(&queue, &ids).await;
    worker.wait_for_log("The model is not ready on the model server", SOON).await;
    let limit = worker.metrics().await.metric("tepal_worker_batches_limit");
    assert_eq!(limit, 8.0, "an outage is no overload");
    server.set_available(true);
    assert_completed_at_first(&queue, &ids).await;
}

#[tokio::test]
async fn a_ready_model_is_served_although_the_server_is_not_ready_because_of_another() {
    let open_inference = OpenInferenceSpec { is_ready: false, ..OpenInferenceSpec::default() };
    let spec = ServerSpec { open_inference, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let _worker = queue.worker(Settings::open_inference(&server)).await;
    let id = queue.submit(input(5.1)).await;
    queue.completed(id).await;

    server.set_available(false);

    let reason = async || {
        let detail = queue.worker_state().await.and_then(|state| state.backend_detail);
        let is_right = detail.as_deref() == Some("The model server is not ready (model_unavailable)");
        if is_right { Ok(()) } else { Err(format!("{detail:?}")) }
    };
    eventually(SOON, "the reason", reason).await;
}

#[tokio::test]
async fn an_internal_error_for_everything_is_retried_and_no_outage() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.script_next(2, Behaviour::Status(Code::Internal, "out of luck".to_owned()));
    let settings =
        Settings::open_inference(&server).with("RETRY_BASE_MS", 50).with("RECLAIM_INTERVAL_MS", 20);
    let worker = queue.worker(settings).await;

    let id = queue.submit(input(5.1)).await;

    assert_eq!(queue.completed(id).await.attempts, 3);
    assert_eq!(worker.logs().find("backend_down"), None);
}
