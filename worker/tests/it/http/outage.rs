//! An endpoint that is away, breaks answers, or hangs.

use std::time::Duration;

use tepal_shared::{
    content::Content,
    job::{JobStatus, NewJob, owner::View},
    queue::heartbeat::BackendState,
};
use tepal_tests::{
    http_server::{HttpServer, Reply},
    ports::free_port,
    wait::eventually,
};

use super::{Site, new_job, site};
use crate::{queue::SOON, settings::Settings};

/// No call ends by itself while a test waits.
fn patient() -> Settings {
    Settings::default().with("INFERENCE_TIMEOUT_MS", 60_000)
}

async fn calls(server: &HttpServer, count: usize) {
    eventually(SOON, "calls", async || server.received().len() >= count).await;
}

#[tokio::test]
async fn jobs_wait_while_nobody_listens_and_run_when_the_endpoint_is_back() {
    let addr = ([127, 0, 0, 1], free_port()).into();
    let site = Site::at(addr, ("", "")).await;
    let server = HttpServer::start_on(addr).await;
    let _worker = site.worker(Settings::default()).await;
    site.queue.completed(site.submit("0").await).await;
    server.stop().await;

    let ids = [site.submit("1").await, site.submit("2").await];
    let state = site.queue.backend_is(BackendState::Down).await;

    assert_eq!(state.backend_detail.unwrap(), "The endpoint is not available (model_unavailable)");
    for id in ids {
        site.is_released(id, 0).await;
    }
    let _server = HttpServer::start_on(addr).await;
    for job in site.queue.all_completed(&ids).await {
        assert_eq!(job.attempts, 1);
    }
    site.queue.backend_is(BackendState::Ok).await;
}

#[tokio::test]
async fn a_restart_in_the_middle_of_calls_costs_no_attempt() {
    let addr = ([127, 0, 0, 1], free_port()).into();
    let site = Site::at(addr, ("", "")).await;
    let server = HttpServer::start_on(addr).await;
    server.script([Reply::Hang, Reply::Hang, Reply::Stall]);
    let _worker = site.worker(Settings::default()).await;
    let ids = [site.submit("1").await, site.submit("2").await, site.submit("3").await];
    calls(&server, 3).await;

    server.stop().await;
    let server = HttpServer::start_on(addr).await;

    for job in site.queue.all_completed(&ids).await {
        assert_eq!(job.attempts, 1);
    }
    assert_eq!(server.received().len(), 3);
    site.queue.assert_drained().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_costs_no_attempt() {
    let (server, site) = site(("", "")).await;
    let unended = Reply::Chunks { chunks: vec![b"[1, 2]".to_vec()], is_whole: false };
    server.script([Reply::Echo, Reply::Cut(10), Reply::Close, unended]);
    let worker = site.worker(Settings::default()).await;
    site.queue.completed(site.submit("0").await).await;

    let ids = [site.submit("1").await, site.submit("2").await, site.submit("3").await];

    for job in site.queue.all_completed(&ids).await {
        assert_eq!(job.attempts, 1);
    }
    worker.wait_for_log("The connection to the endpoint broke", SOON).await;
    assert_eq!(server.received().len(), 7);
}

#[tokio::test]
async fn a_job_whose_every_answer_breaks_off_is_lost_with_its_server() {
    let (server, site) = site(("", "probe = \"/health\"")).await;
    server.set_reply(Reply::Cut(10));
    let _worker = site.worker(Settings::default()).await;

    let (_, code, _) = site.queue.failed(site.submit("1").await).await;

    assert_eq!(code, "model_lost");
}

#[tokio::test]
async fn a_slow_body_ends_with_the_time_limit_of_a_call() {
    let (server, site) = site(("[serving]\ninference_timeout_ms = 300", "")).await;
    server.script([Reply::Echo, Reply::Stall]);
    let _worker = site.worker(patient().with("RETRY_BASE_MS", 10)).await;
    site.queue.completed(site.submit("0").await).await;

    let job = site.queue.completed(site.submit("1").await).await;

    assert_eq!(job.attempts, 2);
    eventually(SOON, "the request to be closed", async || server.abandoned() == 1).await;
}

#[tokio::test]
async fn cancelling_a_job_closes_its_request() {
    let (server, site) = site(("", "")).await;
    server.set_reply(Reply::Hang);
    let _worker = site.worker(patient()).await;
    let id = site.submit("1").await;
    calls(&server, 1).await;

    site.queue.store.intake.cancel(id, View::All).await.unwrap();

    eventually(SOON, "the request to be closed", async || server.abandoned() == 1).await;
    assert_eq!(site.queue.job(id).await.status, JobStatus::Cancelled);
}

#[tokio::test]
async fn a_jobs_own_time_limit_closes_its_request() {
    let (server, site) = site(("", "")).await;
    server.set_reply(Reply::Hang);
    let _worker = site.worker(patient()).await;
    let job = NewJob { timeout: Some(Duration::from_millis(500)), ..new_job(Content::Json("1")) };

    let id = site.queue.submit_job(0, job).await;

    assert_eq!(site.queue.failed(id).await.1, "timeout");
    eventually(SOON, "the request to be closed", async || server.abandoned() == 1).await;
}
