//! Failures that another attempt may cure, and how often it is made.

use std::time::Duration;

use serde_json::Value;
use tepal_shared::job::JobStatus;
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
    process::Worker,
};
use tonic::Code;

use crate::{
    flowers::input,
    queue::{Queue, calls_end, outcomes, running},
    settings::Settings,
};

fn internal() -> Behaviour {
    Behaviour::Status(Code::Internal, "out of luck".to_owned())
}

fn quick(server: &ModelServer) -> Settings {
    Settings::serving(server).with("RETRY_BASE_MS", 100).with("RECLAIM_INTERVAL_MS", 20)
}

/// The announced pauses before retries, ms.
fn pauses(worker: &Worker) -> Vec<u64> {
    let lines = worker.logs().json();
    let retries = lines.iter().filter(|line| line["action"] == "attempt_retried");
    retries.map(|line| line["retry_ms"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_internal_error_is_retried_after_a_pause_until_it_is_gone() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.script_next(2, internal());
    let worker = queue.worker(quick(&server)).await;

    let id = queue.submit(input(5.1)).await;

    assert_eq!(queue.completed(id).await.attempts, 3);
    let failed = CallOutcome::Failed(Code::Internal);
    assert_eq!(outcomes(&server), [failed, failed, CallOutcome::Answered]);
    let (pauses, calls) = (pauses(&worker), server.calls());
    assert!(pauses.len() == 2 && pauses[0] <= 100 && pauses[1] <= 200, "{pauses:?}");
    for (pause, pair) in pauses.iter().zip(calls.windows(2)) {
        let waited = pair[1].started - pair[0].ended.unwrap();
        assert!(waited >= Duration::from_millis(pause.saturating_sub(1)), "{waited:?} for {pause} ms");
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_lasting_error_fails_the_job_after_its_last_retry() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(internal());
    let _worker = queue.worker(quick(&server).with("MAX_RETRIES", 2)).await;

    let id = queue.submit(input(5.1)).await;

    let error = "Model inference failed: out of luck";
    assert_eq!(queue.failed(id).await, (error.to_owned(), "model_error".to_owned(), 3));
    assert_eq!(server.calls().len(), 3);
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_job_that_waits_for_its_retry_is_pending_and_says_when_it_is_due() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(internal());
    // The pause is uniform between nothing and nine seconds: one job in 400 would be due before it is read.
    let _worker = queue.worker(Settings::serving(&server).with("RETRY_BASE_MS", 9_000)).await;
    let ids = queue.submit_all((0..4).map(|_| input(5.1))).await;

    let waits = async || {
        for id in &ids {
            let job = queue.job(*id).await;
            if let Some(due) = job.next_attempt_at_ms {
                return Some((job, due));
            }
        }
        None
    };
    let (job, due) = tepal_tests::wait::eventually(crate::queue::SOON, "a job that waits", waits).await;

    assert_eq!((job.status, job.attempts), (JobStatus::Pending, 1));
    assert!(due > job.created_at_ms && due < job.created_at_ms + 10_000, "{job:?}");
}

#[tokio::test]
async fn a_call_that_hangs_is_abandoned_and_retried() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.script_next(1, Behaviour::Hang);
    let _worker = queue.worker(quick(&server).with("INFERENCE_TIMEOUT_MS", 300)).await;

    let id = queue.submit(input(5.1)).await;

    assert_eq!(queue.completed(id).await.attempts, 2);
    calls_end(&server, &[CallOutcome::Cancelled, CallOutcome::Answered]).await;
}

#[tokio::test]
async fn a_model_that_always_hangs_fails_the_job_as_inference_timeout() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let settings = quick(&server).with("INFERENCE_TIMEOUT_MS", 200).with("MAX_RETRIES", 1);
    let _worker = queue.worker(settings).await;

    let id = queue.submit(input(5.1)).await;

    let error = "Model inference timeout";
    assert_eq!(queue.failed(id).await, (error.to_owned(), "inference_timeout".to_owned(), 2));
    calls_end(&server, &[CallOutcome::Cancelled; 2]).await;
}

#[tokio::test]
async fn a_deadline_that_the_server_missed_reads_like_one_that_we_set() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Status(Code::DeadlineExceeded, "10.0.0.7 too slow".to_owned()));
    let _worker = queue.worker(quick(&server).with("MAX_RETRIES", 0)).await;

    let id = queue.submit(input(5.1)).await;

    let error = "Model inference timeout";
    assert_eq!(queue.failed(id).await, (error.to_owned(), "inference_timeout".to_owned(), 1));
}

#[tokio::test]
async fn jobs_behind_a_hanging_call_are_run_meanwhile() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.script_next(1, Behaviour::Hang);
    let _worker = queue.worker(quick(&server)).await;
    let hanging = queue.submit(input(9.5)).await;
    running(&server, 1).await;

    let ids = queue.submit_all((0..20).map(|_| input(5.1))).await;

    queue.all_completed(&ids).await;
    assert_eq!(queue.job(hanging).await.status, JobStatus::Processing);
}

#[tokio::test]
async fn retry_lines_name_the_job_and_the_attempt() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.script_next(1, internal());
    let worker = queue.worker(quick(&server)).await;

    let id = queue.submit(input(5.1)).await;
    queue.completed(id).await;

    let line = worker.wait_for_log("prediction_completed", crate::queue::SOON).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["attempt"], 2, "a line about a repeated attempt says so");
}
