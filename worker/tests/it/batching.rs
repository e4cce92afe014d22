//! Waiting jobs share calls. A job that need not wait is called at once.

use std::time::{Duration, Instant};

use tepal_shared::job::owner::View;
use tepal_tests::{
    model_server::{ModelServer, ServerSpec},
    wait::eventually,
};

use crate::{
    flowers::{input, input_of_rows},
    queue::{Queue, SOON, rows, running},
    settings::Settings,
};

async fn slow_server() -> ModelServer {
    ModelServer::start(ServerSpec { call_cost: Duration::from_millis(5), ..ServerSpec::iris() }).await
}

#[tokio::test]
async fn a_backlog_of_four_hundred_jobs_needs_few_calls() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    let ids = queue.submit_all((0..400).map(|_| input(5.1))).await;

    let _worker = queue.worker(Settings::serving(&server)).await;
    queue.all_completed(&ids).await;

    assert!(server.calls().len() <= 4, "{:?}", rows(&server));
}

#[tokio::test]
async fn jobs_that_arrive_faster_than_calls_return_share_calls() {
    let queue = Queue::start().await;
    // Many submissions long, each of which waits for the disk.
    let call_cost = Duration::from_millis(20);
    let server = ModelServer::start(ServerSpec { call_cost, ..ServerSpec::iris() }).await;
    let worker = queue.worker(Settings::serving(&server).one_at_a_time()).await;
    worker.wait_for_log("backend_up", SOON).await;

    let ids = queue.submit_all((0..400).map(|_| input(5.1))).await;
    queue.all_completed(&ids).await;

    assert!(server.calls().len() <= 400 / 8, "{:?}", rows(&server));
    assert_eq!(rows(&server).iter().sum::<usize>(), 400);
}

#[tokio::test]
async fn a_lone_job_is_called_at_once() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    // The longest wait for an arrival. A worker that only polled would need a second on average.
    let worker = queue.worker(Settings::serving(&server).with("RECLAIM_INTERVAL_MS", 2_000)).await;
    worker.wait_for_log("backend_up", SOON).await;

    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let submitted = Instant::now();
        let id = queue.submit(input(5.1)).await;
        queue.completed(id).await;
        fastest = fastest.min(submitted.elapsed());
    }

    assert_eq!(rows(&server), [1; 5]);
    assert!(fastest < Duration::from_millis(250), "{fastest:?}");
}

#[tokio::test]
async fn no_call_has_more_rows_than_allowed_and_no_job_is_split() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    let ids = queue.submit_all((0..20).map(|_| input_of_rows(3))).await;

    let _worker = queue.worker(Settings::serving(&server).with("BATCH_MAX_ROWS", 10)).await;
    queue.all_completed(&ids).await;

    let rows = rows(&server);
    assert!(rows.iter().all(|rows| *rows <= 9 && rows % 3 == 0), "{rows:?}");
    assert!(rows.contains(&9), "{rows:?}");
}

#[tokio::test]
async fn a_job_larger_than_a_call_may_be_is_called_alone_and_whole() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    let ids = queue.submit_all([1, 1, 9, 1].map(input_of_rows)).await;

    let _worker = queue.worker(Settings::serving(&server).one_at_a_time().with("BATCH_MAX_ROWS", 4)).await;
    queue.all_completed(&ids).await;

    assert_eq!(rows(&server), [2, 9, 1]);
}

#[tokio::test]
async fn a_batch_takes_no_more_jobs_after_its_limit_of_bytes() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    let ids = queue.submit_all((0..64).map(|_| input_of_rows(10))).await;

    let settings = Settings::serving(&server).one_at_a_time().with("BATCH_MAX_ROWS", 4_096);
    let _worker = queue.worker(settings.with("BATCH_MAX_BYTES", 400)).await;
    queue.all_completed(&ids).await;

    // A job has 181 bytes of JSON, and a worker that starts takes one job with care.
    let rows = rows(&server);
    assert_eq!((rows.len(), rows[0]), (22, 30), "{rows:?}");
    assert!(rows.iter().all(|rows| *rows <= 30), "{rows:?}");
}

#[tokio::test]
async fn a_batch_that_is_not_full_waits_for_more_if_configured() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    let settings = Settings::serving(&server).one_at_a_time().with("BATCH_MAX_WAIT_MS", 500);
    let worker = queue.worker(settings).await;
    worker.wait_for_log("backend_up", SOON).await;

    let first = queue.submit(input(5.1)).await;
    eventually(SOON, "the first job to be taken", async || queue.in_flight().await == 1).await;
    let second = queue.submit(input(5.1)).await;
    queue.all_completed(&[first, second]).await;

    assert_eq!(rows(&server), [2]);
}

#[tokio::test]
async fn no_more_batches_run_at_a_time_than_allowed() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    server.set_behaviour(tepal_tests::model_server::Behaviour::Hang);
    let settings = Settings::serving(&server).with("NUM_WORKERS", 2).with("MAX_IN_FLIGHT", 3);
    let _worker = queue.worker(settings.with("BATCH_MAX_ROWS", 1)).await;

    queue.submit_all((0..40).map(|_| input(5.1))).await;
    running(&server, 6).await;

    let settled = async || queue.in_flight().await == 6;
    eventually(SOON, "six jobs to be in flight", settled).await;
    assert_eq!(server.calls().len(), 6);
}

#[tokio::test]
async fn large_jobs_claimed_together_are_called_at_the_same_time() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    server.set_behaviour(tepal_tests::model_server::Behaviour::Hang);
    queue.submit_all((0..6).map(|_| input_of_rows(8))).await;

    let settings = Settings::serving(&server).with("NUM_WORKERS", 1).with("MAX_IN_FLIGHT", 6);
    let _worker = queue.worker(settings.with("BATCH_MAX_ROWS", 8)).await;

    running(&server, 6).await;
    assert_eq!(rows(&server), [8; 6]);
}

#[tokio::test]
async fn a_worker_claims_no_more_large_jobs_than_a_call_may_hold() {
    let (queue, server) = (Queue::start().await, slow_server().await);
    server.set_behaviour(tepal_tests::model_server::Behaviour::Hang);
    let settings = Settings::serving(&server).one_at_a_time().with("BATCH_MAX_ROWS", 16);
    let worker = queue.worker(settings).await;
    let first = queue.submit(input_of_rows(8)).await;
    running(&server, 1).await;
    queue.store.intake.cancel(first, View::All).await.unwrap();

    queue.submit_all((0..50).map(|_| input_of_rows(8))).await;

    worker.wait_for_log("job_gone", SOON).await;
    running(&server, 1).await;
    assert_eq!(queue.in_flight().await, 2, "the others are left to other workers");
}
