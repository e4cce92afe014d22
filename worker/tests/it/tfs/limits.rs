//! Overload, and the limits that jobs have of their own.

use std::time::Duration;

use tepal_shared::job::{JobStatus, NewJob};
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
    wait::eventually,
};
use tonic::Code;

use crate::{
    flowers::input,
    queue::{Queue, SOON, calls_end, new_job, outcomes},
    settings::Settings,
};

#[tokio::test]
async fn an_overloaded_server_gets_fewer_calls_at_a_time_and_every_job_completes() {
    let call_cost = Duration::from_millis(20);
    let spec = ServerSpec { max_concurrent_calls: 2, call_cost, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let settings = Settings::serving(&server)
        .with("BATCH_MAX_ROWS", 1)
        .with("RECLAIM_INTERVAL_MS", 20)
        .with("RETRY_BASE_MS", 50);
    let ids = queue.submit_all((0..100).map(|_| input(5.1))).await;

    let _worker = queue.worker(settings).await;

    queue.all_completed(&ids).await;
    let refused = outcomes(&server).into_iter().filter(|outcome| is_refusal(*outcome)).count();
    assert!(refused > 0, "the server was never overloaded");
    assert!(refused < 50, "{refused} refusals for 100 jobs");
    queue.assert_drained().await;
}

#[tokio::test]
async fn the_number_of_calls_at_a_time_grows_back_after_an_overload() {
    let spec = ServerSpec { call_cost: Duration::from_millis(1), ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    server.script_next(1, Behaviour::Status(Code::ResourceExhausted, String::new()));
    let settings = Settings::serving(&server).with("BATCH_MAX_ROWS", 1).with("RETRY_BASE_MS", 1);
    let worker = queue.worker(settings).await;
    let limit = async || worker.metrics().await.metric("tepal_worker_batches_limit");
    // The port answers before the number is known.
    eventually(SOON, "the limit", async || limit().await == 8.0).await;

    let first = queue.submit(input(5.1)).await;
    assert_eq!(queue.completed(first).await.attempts, 1, "the job waited, and used no attempt for that");
    assert!(limit().await < 8.0, "{}", limit().await);
    // Each place must see eight successes before there is one more: 8 x (1 + 2 + ... + 7) at most.
    let ids = queue.submit_all((0..250).map(|_| input(5.1))).await;
    queue.all_completed(&ids).await;

    assert_eq!(limit().await, 8.0);
}

fn is_refusal(outcome: CallOutcome) -> bool {
    outcome == CallOutcome::Failed(Code::ResourceExhausted)
}

#[tokio::test]
async fn a_job_that_runs_longer_than_its_own_limit_fails_and_its_call_is_abandoned() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let _worker = queue.worker(Settings::serving(&server)).await;

    let timeout = Some(Duration::from_millis(300));
    let id = queue.submit_job(0, NewJob { timeout, ..new_job(input(5.1)) }).await;

    let error = "The job ran longer than its timeout";
    assert_eq!(queue.failed(id).await, (error.to_owned(), "timeout".to_owned(), 1));
    calls_end(&server, &[CallOutcome::Cancelled]).await;
    let job = queue.job(id).await;
    let ran_ms = job.finished_at_ms.unwrap() - job.started_at_ms.unwrap();
    assert!((299..5_000).contains(&ran_ms), "{ran_ms} ms");
}

#[tokio::test]
async fn the_time_that_a_claimed_job_waits_counts_to_its_own_limit() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Delay(Duration::from_secs(2)));
    let job = || NewJob { timeout: Some(Duration::from_secs(3)), ..new_job(input(5.1)) };
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(queue.submit_job(0, job()).await);
    }

    // Taken together and called one after the other.
    let _worker = queue.worker(Settings::serving(&server).one_at_a_time()).await;

    queue.completed(ids[0]).await;
    for id in &ids[1..] {
        assert_eq!(queue.failed(*id).await.1, "timeout");
    }
    calls_end(&server, &[CallOutcome::Answered, CallOutcome::Cancelled]).await;
}

#[tokio::test]
async fn a_job_that_waits_for_a_retry_past_its_own_limit_fails_as_timeout() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Status(Code::Internal, String::new()));
    let settings = Settings::serving(&server).with("RETRY_BASE_MS", 50).with("MAX_RETRIES", 1000);
    let _worker = queue.worker(settings).await;

    let timeout = Some(Duration::from_millis(700));
    let id = queue.submit_job(0, NewJob { timeout, ..new_job(input(5.1)) }).await;

    let (error, code, attempts) = queue.failed(id).await;
    assert_eq!((error.as_str(), code.as_str()), ("The job ran longer than its timeout", "timeout"));
    assert_eq!(attempts as usize, server.calls().len());
}

#[tokio::test]
async fn a_job_that_waits_for_its_turn_after_an_overload_fails_when_its_own_limit_ends() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.script_next(1, Behaviour::Hang);
    server.set_behaviour(Behaviour::Status(Code::ResourceExhausted, String::new()));
    let settings = Settings::serving(&server).with("NUM_WORKERS", 1).with("MAX_IN_FLIGHT", 2);
    let _worker = queue.worker(settings.with("INFERENCE_TIMEOUT_MS", 600_000)).await;
    let long = queue.submit(input(5.1)).await;
    crate::queue::running(&server, 1).await;

    // Its refusal leaves one place, and the long call has that.
    let timeout = Some(Duration::from_secs(2));
    let id = queue.submit_job(0, NewJob { timeout, ..new_job(input(5.1)) }).await;

    let error = "The job ran longer than its timeout";
    assert_eq!(queue.failed(id).await, (error.to_owned(), "timeout".to_owned(), 1));
    assert_eq!(queue.job(long).await.status, JobStatus::Processing);
}

#[tokio::test]
async fn a_job_that_waits_in_a_worker_for_another_ones_call_fails_when_its_own_limit_ends() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let job = |seconds| NewJob { timeout: Some(Duration::from_secs(seconds)), ..new_job(input(5.1)) };
    let (long, short) = (queue.submit_job(0, job(600)).await, queue.submit_job(0, job(2)).await);

    // Taken together.
    let settings = Settings::serving(&server).one_at_a_time().with("INFERENCE_TIMEOUT_MS", 600_000);
    let _worker = queue.worker(settings).await;

    assert_eq!(queue.failed(short).await.1, "timeout");
    assert_eq!(queue.job(long).await.status, JobStatus::Processing);
    assert_eq!(outcomes(&server), [CallOutcome::Running]);
}

#[tokio::test]
async fn a_job_that_waited_too_long_in_the_queue_fails_without_a_call() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let max_queue = Some(Duration::from_millis(100));
    let late = queue.submit_job(0, NewJob { max_queue, ..new_job(input(9.5)) }).await;
    let patient = queue.submit(input(5.1)).await;
    let deadline = queue.job(late).await.deadline_ms.unwrap();
    eventually(SOON, "the deadline to pass", async || redis_now_ms(&queue) > deadline).await;

    let worker = queue.worker(Settings::serving(&server)).await;

    let error = "The job waited longer than max_queue_seconds";
    assert_eq!(queue.failed(late).await, (error.to_owned(), "queue_timeout".to_owned(), 0));
    queue.completed(patient).await;
    assert!(server.calls().iter().all(|call| call.values[0] < 9.0), "the late job was run");
    worker.wait_for_log("queue_timeout", SOON).await;
    queue.assert_drained().await;
}

fn redis_now_ms(queue: &Queue) -> u64 {
    let time = queue.redis.cli(&["TIME"]);
    let (seconds, micros) = time.split_once('\n').unwrap();
    seconds.parse::<u64>().unwrap() * 1_000 + micros.parse::<u64>().unwrap() / 1_000
}
