//! `GET /job/{id}` as server-sent events.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tepal_shared::{content::Content, job::LARGE_BYTES, queue::work::Settlement};
use tepal_tests::{fault_proxy::FaultProxy, http::Method, redis::RedisServer, wait::eventually};
use tokio::time::timeout;

use crate::{
    event_stream::Events,
    site::{SOON, Site},
};

fn event(name: &str, status: &str) -> (String, String) {
    (name.to_owned(), status.to_owned())
}

#[tokio::test]
async fn every_change_is_an_event_and_the_outcome_ends_the_stream() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let mut events = Events::open(&site, &id, "").await;
    assert!(events.head.starts_with("http/1.1 200"), "{}", events.head);
    assert!(events.head.contains("content-type: text/event-stream"), "{}", events.head);
    assert!(events.head.contains("cache-control: no-store"), "{}", events.head);
    assert_eq!(events.status().await, event("status", "pending"));

    let attempt = site.take().await;
    assert_eq!(events.status().await, event("status", "processing"));
    site.settle(&attempt, Settlement::Retry(Duration::ZERO)).await;
    assert_eq!(events.status().await, event("status", "pending"));
    let attempt = site.take().await;
    assert_eq!(events.status().await, event("status", "processing"));
    site.complete(&attempt).await;

    let outcome = events.next().await.unwrap();
    assert_eq!(outcome.name, "outcome");
    assert_eq!(outcome.data, site.client.job(&id).await);
    assert!(events.next().await.is_none());
    eventually(SOON, "the job is not followed any more", || async { site.channels() == 0 }).await;
}

#[tokio::test]
async fn a_followed_job_whose_result_is_bytes_ends_with_them_in_json() {
    let site = Site::start(&[]).await;
    for length in [5, 2 * LARGE_BYTES] {
        let (content_type, bytes) = ("image/png", vec![0xfe; length]);
        let id = site.submit().await;
        let mut events = Events::open(&site, &id, "").await;
        assert_eq!(events.status().await, event("status", "pending"));

        let attempt = site.take().await;
        let stored = Content::Bytes { content_type, bytes: &bytes }.stored();
        site.settle(&attempt, Settlement::CompleteStored(stored)).await;
        let mut outcome = events.next().await.unwrap();
        if outcome.name == "status" {
            outcome = events.next().await.unwrap();
        }
        assert_eq!(outcome.name, "outcome");
        let expected = json!({"content_type": content_type, "b64": STANDARD.encode(&bytes)});
        assert_eq!(outcome.data["result"], expected);
        assert_eq!(outcome.data, site.client.job(&id).await);
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn a_finished_job_is_sent_once_and_the_stream_ends() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    site.complete_one().await;
    let mut events = Events::open(&site, &id, "").await;
    let outcome = events.next().await.unwrap();
    assert_eq!((outcome.name.as_str(), &outcome.data["status"]), ("outcome", &"completed".into()));
    assert!(events.next().await.is_none());

    let again = Events::open(&site, &id, &format!("last-event-id: {}\r\n", outcome.id)).await;
    assert!(again.head.starts_with("http/1.1 204"), "{}", again.head);
}

#[tokio::test]
async fn a_client_that_reconnects_gets_no_event_twice() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let first = Events::open(&site, &id, "").await.next().await.unwrap();
    let mut events = Events::open(&site, &id, &format!("last-event-id: {}\r\n", first.id)).await;
    site.complete_one().await;
    let (_, status) = events.status().await;
    assert_ne!(status, "pending");
}

#[tokio::test]
async fn a_silent_stream_is_kept_alive_and_freed_when_its_client_goes() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let mut events = Events::open(&site, &id, "").await;
    assert_eq!(events.status().await, event("status", "pending"));
    events.comment().await;
    let _attempt = site.take().await;
    assert_eq!(events.status().await, event("status", "processing"));

    drop(events);
    eventually(SOON, "the job is not followed any more", || async { site.channels() == 0 }).await;
}

#[tokio::test]
async fn a_stream_outlives_redis_and_ends_with_the_service() {
    let redis = RedisServer::shipped().start().await;
    let fault = FaultProxy::start(&redis.addr()).await;
    let url = redis.proxy_url_at(&fault.addr());
    let site = Site::start_at(redis, &url, &[]).await;
    let id = site.submit().await;
    let mut events = Events::open(&site, &id, "").await;
    assert_eq!(events.status().await, event("status", "pending"));
    fault.down().await;
    site.take().await;
    fault.pass();
    assert_eq!(events.status().await, event("status", "processing"));

    site.proxy.sigterm();
    assert!(events.next().await.is_none());
    assert!(site.proxy.wait_exit(SOON).await.success());
}

#[tokio::test]
async fn what_does_not_exist_is_a_problem_as_always() {
    let site = Site::start(&[]).await;
    let headers = [("accept", "text/event-stream")];
    let answer = site.client.request(Method::GET, "/job/none", &headers, "").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn the_stream_of_a_job_that_is_gone_ends_and_others_go_on() {
    let site = Site::start(&[]).await;
    let (gone, kept) = (site.submit().await, site.submit().await);
    let mut streams = [Events::open(&site, &gone, "").await, Events::open(&site, &kept, "").await];
    for events in &mut streams {
        assert_eq!(events.status().await, event("status", "pending"));
    }
    eventually(SOON, "the jobs are followed", || async { site.channels() == 2 }).await;

    site.redis.cli(&["DEL", &site.store.queue.keys().job(gone.parse().unwrap())]);

    let [of_gone, of_kept] = &mut streams;
    assert!(timeout(SOON, of_gone.next()).await.expect("the end in time").is_none());
    site.redis.cli(&["DEL", &site.store.queue.keys().job(kept.parse().unwrap())]);
    assert!(timeout(SOON, of_kept.next()).await.expect("the end in time").is_none());
    assert_eq!(site.client.request(Method::GET, &format!("/job/{gone}"), &[], "").await.status, 404);
}
