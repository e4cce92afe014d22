//! An unreachable model server: jobs wait, use no attempt, and complete when the server is back.

use std::time::{Duration, Instant};

use tepal_shared::{
    job::{JobId, JobStatus},
    queue::heartbeat::BackendState,
};
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
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

/// Every job completes with its first attempt.
async fn assert_completed_at_first(queue: &Queue, ids: &[JobId]) {
    for job in queue.all_completed(ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn jobs_wait_while_the_server_is_down_and_run_when_it_is_back_on_its_port() {
    let (queue, addr) = (Queue::start().await, address());
    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let worker = queue.worker(Settings::serving_at(addr)).await;
    queue.backend_is(BackendState::Ok).await;
    server.stop().await;

    let ids = queue.submit_all((0..20).map(|_| input(5.1))).await;
    let state = queue.backend_is(BackendState::Down).await;
    assert_waiting(&queue, &ids).await;

    let detail = state.backend_detail.unwrap();
    assert_eq!(detail, "The model server is not available (model_unavailable)");
    assert!(state.metadata.is_some(), "the last known metadata is still published");
    assert_eq!(worker.metrics().await.metric("tepal_breaker_open"), 1.0);
    let _server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    assert_completed_at_first(&queue, &ids).await;
    queue.backend_is(BackendState::Ok).await;
    assert_eq!(worker.metrics().await.metric("tepal_breaker_open"), 0.0);
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_calls_costs_no_attempt() {
    let (queue, addr) = (Queue::start().await, address());
    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    server.set_behaviour(Behaviour::Hang);
    let _worker = queue.worker(Settings::serving_at(addr).with("BATCH_MAX_ROWS", 1)).await;
    let ids = queue.submit_all((0..4).map(|_| input(5.1))).await;
    running(&server, 4).await;

    let calls = server.stop().await;

    assert!(calls.iter().all(|call| call.outcome == CallOutcome::ServerStopped), "{calls:?}");
    queue.backend_is(BackendState::Down).await;
    assert_waiting(&queue, &ids).await;
    let _server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    assert_completed_at_first(&queue, &ids).await;
}

#[tokio::test]
async fn calls_answered_unavailable_are_repeated_with_pauses_and_cost_no_attempt() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Status(Code::Unavailable, "batch threads are busy".to_owned()));
    let worker = queue.worker(Settings::serving(&server).with("RECLAIM_INTERVAL_MS", 10)).await;

    let id = queue.submit(input(5.1)).await;
    let several = async || server.calls().len() >= 5;
    eventually(SOON, "several calls", several).await;

    assert!(queue.job(id).await.attempts <= 1);
    queue.backend_is(BackendState::Down).await;
    server.set_behaviour(Behaviour::Normal);
    assert_completed_at_first(&queue, &[id]).await;
    let calls = server.calls();
    let pauses: Vec<_> = calls.windows(2).map(|pair| pair[1].started - pair[0].started).collect();
    assert!(pauses[3] > pauses[0], "the pauses do not grow: {pauses:?}");
    let limit = worker.metrics().await.metric("tepal_worker_batches_limit");
    assert_eq!(limit, 8.0, "an outage is no overload");
}

#[tokio::test]
async fn calls_that_the_server_refuses_to_all_are_repeated_with_pauses_and_cost_no_attempt() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    for code in [Code::NotFound, Code::Unimplemented, Code::Unauthenticated, Code::PermissionDenied] {
        server.script_next(1, Behaviour::Status(code, "not this one".to_owned()));
    }
    let worker = queue.worker(Settings::serving(&server).with("RECLAIM_INTERVAL_MS", 10)).await;

    let id = queue.submit(input(5.1)).await;

    assert_completed_at_first(&queue, &[id]).await;
    worker.wait_for_log("The model server accepts no calls for the model: not this one", SOON).await;
    let calls = server.calls();
    let pauses: Vec<_> = calls.windows(2).map(|pair| pair[1].started - pair[0].started).collect();
    // The job, then the model's sample at once and again after each pause, then the job.
    assert!(pauses.len() == 5 && pauses[3] > pauses[1], "the pauses do not grow: {pauses:?}");
}

#[tokio::test]
async fn a_server_may_lack_one_of_the_calls_of_a_probe_and_not_both() {
    for (with_status, with_metadata, expected) in
        [(true, false, BackendState::Ok), (false, true, BackendState::Ok), (false, false, BackendState::Down)]
    {
        let spec = ServerSpec { with_status, with_metadata, ..ServerSpec::iris() };
        let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
        let _worker = queue.worker(Settings::serving(&server)).await;
        let probed = async || {
            let state = queue.worker_state().await;
            // A worker is down until its first probe has ended.
            let is_probed = state.as_ref().is_some_and(|state| {
                state.backend_detail.as_ref().is_none_or(|why| why.contains("accepts no calls"))
            });
            state.filter(|_| is_probed).map(|state| state.backend_state)
        };
        let state = eventually(SOON, "the first probe", probed).await;
        assert_eq!(state, expected, "{with_status} {with_metadata}");
    }
}

#[tokio::test]
async fn nothing_is_claimed_before_the_model_is_loaded() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_available(false);
    let _worker = queue.worker(Settings::serving(&server)).await;
    let ids = queue.submit_all((0..3).map(|_| input(5.1))).await;

    let state = queue.backend_is(BackendState::Down).await;

    let expected = "The model server has no available version of the model (model_unavailable)";
    let reason = async || {
        let detail = queue.worker_state().await.and_then(|state| state.backend_detail);
        if detail.as_deref() == Some(expected) { Ok(()) } else { Err(format!("{detail:?}")) }
    };
    eventually(SOON, "the reason", reason).await;
    assert_eq!(state.metadata, None);
    assert_eq!(server.calls().len(), 0);
    server.set_available(true);
    assert_completed_at_first(&queue, &ids).await;
}

#[tokio::test]
async fn an_idle_worker_notices_that_its_server_is_gone() {
    let (queue, addr) = (Queue::start().await, address());
    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let worker = queue.worker(Settings::serving_at(addr)).await;
    queue.backend_is(BackendState::Ok).await;

    server.stop().await;

    queue.backend_is(BackendState::Down).await;
    worker.wait_for_log("backend_down", SOON).await;
}

#[tokio::test]
async fn an_unreachable_server_is_probed_with_growing_pauses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let queue = Queue::start().await;
    let ids = queue.submit_all((0..3).map(|_| input(5.1))).await;

    let worker = queue.worker(Settings::serving_at(listener.local_addr().unwrap())).await;
    let mut knocks = Vec::new();
    while knocks.len() < 6 {
        drop(listener.accept().await.unwrap());
        knocks.push(Instant::now());
    }

    let pauses: Vec<_> = knocks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[4] > pauses[0] && knocks[5] - knocks[0] > Duration::from_secs(1), "{pauses:?}");
    assert_waiting(&queue, &ids).await;
    worker.wait_for_log("backend_down", SOON).await;
}
