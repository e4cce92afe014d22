//! Who is to blame for a status.

use std::time::{Duration, Instant};

use tepal_shared::queue::heartbeat::BackendState;
use tepal_tests::{http_server::Reply, wait::eventually};

use super::{Site, site};
use crate::{queue::SOON, settings::Settings};

#[tokio::test]
async fn a_storm_of_429_uses_no_attempt_and_its_retry_after_is_honoured() {
    let (server, site) = site(("", "")).await;
    let busy = || Reply::status(429).with("retry-after", "1");
    server.script([Reply::Echo, busy(), busy(), busy()]);
    let _worker = site.worker(Settings::default().one_at_a_time()).await;
    site.queue.completed(site.submit("0").await).await;
    let began = Instant::now();

    let ids = [site.submit("1").await, site.submit("2").await];

    for job in site.queue.all_completed(&ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
    }
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(server.received().len(), 6);
    site.queue.assert_drained().await;
}

#[tokio::test]
async fn a_long_retry_after_releases_the_job_and_delays_all_calls() {
    let (server, site) = site(("", "")).await;
    server.script([Reply::Echo, Reply::status(503).with("retry-after", "60")]);
    let worker = site.worker(Settings::default()).await;
    site.queue.completed(site.submit("0").await).await;

    let id = site.submit("1").await;
    site.is_released(id, 1).await;
    assert_eq!(server.received().len(), 2);

    // It holds no job, so it stops at once.
    let began = Instant::now();
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_endpoint_that_is_busy_for_all_is_down_and_uses_no_attempt() {
    let (server, site) = site(("", "")).await;
    server.set_reply(Reply::status(503));
    let _worker = site.worker(Settings::default()).await;
    let id = site.submit("1").await;
    eventually(SOON, "several calls", async || server.received().len() >= 4).await;

    assert!(site.queue.job(id).await.attempts <= 1);
    server.set_reply(Reply::Echo);
    assert_eq!(site.queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn a_failure_of_the_server_is_retried() {
    let (server, site) = site(("", "")).await;
    server.script([Reply::status(500).saying("secret trace"), Reply::status(504)]);
    let _worker = site.worker(Settings::default().with("RETRY_BASE_MS", 10)).await;
    let id = site.submit("1").await;
    assert_eq!(site.queue.completed(id).await.attempts, 3);

    server.set_reply(Reply::status(500).saying("secret trace"));
    let id = site.submit("1").await;
    let (error, code, attempts) = site.queue.failed(id).await;
    assert_eq!((error.as_str(), code.as_str(), attempts), ("Model inference failed (500)", "model_error", 4));
    let keys: Vec<_> =
        server.received().iter().rev().take(4).map(|request| request.headers.clone()).collect();
    let key = ("idempotency-key".to_owned(), id.to_string());
    assert!(keys.iter().all(|headers| headers.contains(&key)), "one key for all attempts");
}

#[tokio::test]
async fn a_rejected_input_fails_at_once_with_the_reason() {
    let (server, site) = site(("", "")).await;
    let _worker = site.worker(Settings::default()).await;
    for (status, body, message, expected) in [
        (
            400,
            "{\"error\": {\"message\": \"no prompt\"}}",
            "The endpoint rejected the input (400): no prompt",
            "model_rejected",
        ),
        (422, "<p>", "The endpoint rejected the input (422)", "model_rejected"),
        (
            413,
            "too big",
            "The input exceeds a limit of the endpoint (413): too big",
            "payload_too_large_for_model",
        ),
    ] {
        server.script([Reply::status(status).saying(body)]);
        let (error, code, attempts) = site.queue.failed(site.submit("1").await).await;
        assert_eq!((error.as_str(), code.as_str(), attempts), (message, expected, 1));
    }
}

#[tokio::test]
async fn a_sample_that_is_rejected_too_blames_the_endpoint() {
    let (server, site) = site(("sample = { a = 1 }", "")).await;
    server.set_reply(Reply::status(400));
    let worker = site.worker(Settings::default()).await;
    let id = site.submit("1").await;

    worker.wait_for_log("sample_failed", SOON).await;
    site.is_released(id, 1).await;
    assert_eq!(server.received()[1].text(), "{\"a\":1}");
    server.set_reply(Reply::Echo);
    assert_eq!(site.queue.completed(id).await.attempts, 1);
}

/// Every job waits while all calls are answered so, and the worker says why.
async fn waits(reply: Reply, reason: &str) {
    let (server, site) = site(("", "")).await;
    server.set_reply(reply);
    let worker = site.worker(Settings::default()).await;
    let id = site.submit("1").await;

    site.is_released(id, 2).await;
    worker.wait_for_log(reason, SOON).await;
    server.set_reply(Reply::Echo);
    assert_eq!(site.queue.completed(id).await.attempts, 1, "{reason}");
}

#[tokio::test]
async fn a_path_that_is_not_there_makes_jobs_wait() {
    waits(Reply::status(404), "The endpoint accepts no calls (404)").await;
}

#[tokio::test]
async fn wrong_credentials_make_jobs_wait() {
    waits(Reply::status(401), "The endpoint accepts no calls (401)").await;
}

#[tokio::test]
async fn a_gateway_without_a_server_makes_jobs_wait() {
    waits(Reply::status(502), "The gateway before the endpoint has no server (502)").await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_named_as_a_wrong_setting() {
    let (other, site) = site(("", "")).await;
    drop(site);
    let place = format!("http://{}/run", other.addr());
    let reply = Reply::status(307).with("location", &place);
    waits(
        reply,
        "The endpoint redirects, which is not followed: `url` in model.toml is not its address (307)",
    )
    .await;
    assert_eq!(other.received(), []);
}

#[tokio::test]
async fn bytes_that_are_no_http_make_jobs_wait() {
    waits(Reply::Noise, "The endpoint does not speak HTTP/1.1").await;
}

#[tokio::test]
async fn a_job_that_is_refused_while_others_succeed_fails_in_the_end() {
    let (server, site) = site(("sample = 0", "")).await;
    let _worker = site.worker(Settings::default().with("RETRY_BASE_MS", 10)).await;
    // The endpoint knows no such thing, as a server of many models that gets the name in the body. The sample between is answered.
    let no = || Reply::status(404).saying("{\"message\": \"no such model\"}");
    let sample_and_no = || [no(), Reply::Echo, no()];
    server.script((0..4).flat_map(|_| sample_and_no()));

    let (error, code, attempts) = site.queue.failed(site.submit("1").await).await;

    assert_eq!(
        (error.as_str(), code.as_str(), attempts),
        ("The endpoint accepts no calls (404)", "model_rejected", 4)
    );
    assert_eq!(site.queue.backend_is(BackendState::Ok).await.backend_state, BackendState::Ok);
}

#[tokio::test]
async fn without_a_sample_other_jobs_show_that_a_refused_one_is_to_blame() {
    let server = tepal_tests::http_server::HttpServer::start().await;
    let site = Site::at(server.addr(), ("[serving]\nmax_retries = 0", "")).await;
    server.script_for("\"bad\"", Reply::status(404));
    let _worker = site.worker(Settings::default()).await;
    let bad = site.submit("\"bad\"").await;

    let mut number = 0;
    let ended = async || {
        number += 1;
        site.queue.completed(site.submit(&number.to_string()).await).await;
        site.queue.job(bad).await.status.is_terminal()
    };
    eventually(SOON, "the end of the job", ended).await;

    let (error, code, _) = site.queue.failed(bad).await;
    assert_eq!((error.as_str(), code.as_str()), ("The endpoint accepts no calls (404)", "model_rejected"));
}
