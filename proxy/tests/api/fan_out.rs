//! Many clients wait for one job: it is read once for all of them, and a large result is held once.

use std::time::Duration;

use serde_json::{Value, json};
use tepal_shared::{job::JobId, queue::work::Settlement};
use tepal_tests::{
    http::{Answer, Method},
    wait::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    event_stream::Events,
    site::{SOON, Site},
};

/// How many wait.
const CROWD: usize = 200;
/// The cost of scripts, and of reads that do not depend on the number of waiting clients.
const FEW: u64 = 40;

/// A client that reads nothing is not disconnected before the test ends.
const PATIENT: (&str, &str) = ("BODY_TIMEOUT_MS", "600000");

/// Allows for less memory.
const SMALL_BODIES: (&str, &str) = ("MAX_BODY_BYTES", "1048576");

/// A result of a little more than so many bytes.
fn result(bytes: usize) -> String {
    json!({"prediction": 0, "text": "x".repeat(bytes)}).to_string()
}

/// How many times jobs or parts of them were read so far, in scripts, too.
fn reads(site: &Site) -> u64 {
    site.redis.calls("hmget") + site.redis.calls("hget")
}

/// So many streams of a job; each has reported that it is pending.
async fn streams(site: &Site, id: &str, count: usize) -> Vec<Events> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut events = Events::open(site, id, "").await;
        assert_eq!(events.status().await, ("status".to_owned(), "pending".to_owned()));
        streams.push(events);
    }
    streams
}

#[tokio::test]
async fn one_read_serves_all_streams_of_a_job() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let mut streams = streams(&site, &id, CROWD).await;
    let attempt = site.take().await;
    for events in &mut streams {
        assert_eq!(events.status().await.1, "processing");
    }
    let before = reads(&site);

    site.settle(&attempt, Settlement::Complete(result(1 << 20))).await;

    let mut outcomes: Vec<Value> = Vec::new();
    for events in &mut streams {
        let outcome = events.next().await.unwrap();
        assert_eq!(outcome.name, "outcome");
        outcomes.push(outcome.data);
        assert!(events.next().await.is_none());
    }
    let made = reads(&site) - before;
    assert!(made <= FEW, "{made} reads for {CROWD} streams");
    let job = site.client.job(&id).await;
    assert!(
        job["result"]["text"].as_str().unwrap().len() == 1 << 20
            && outcomes.iter().all(|outcome| *outcome == job)
    );
}

#[tokio::test]
async fn one_read_serves_all_who_prefer_to_wait_for_a_job() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let before = reads(&site);
    let mut waiters = JoinSet::new();
    for _ in 0..CROWD {
        let (client, path) = (site.client.clone(), format!("/job/{id}"));
        waiters.spawn(async move { client.request(Method::GET, &path, &[("prefer", "wait=60")], "").await });
    }
    let have_come = async || reads(&site) - before >= CROWD as u64;
    eventually(SOON, "all to come", have_come).await;

    let attempt = site.take().await;
    site.settle(&attempt, Settlement::Retry(Duration::ZERO)).await;
    let attempt = site.take().await;
    site.settle(&attempt, Settlement::Complete(result(1 << 20))).await;

    let answers: Vec<Answer> = waiters.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(answers[0].json()["status"], "completed");
    // Each reads the job when it comes, and may read it once more when it follows it.
    let (made, most) = (reads(&site) - before, 2 * CROWD as u64 + FEW);
    assert!(made <= most, "{made} reads for {CROWD} waiters");
}

/// Requests the job and reads only the status of the answer.
async fn ask(site: &Site, id: JobId) -> (u16, TcpStream) {
    // A small buffer, so that the proxy and not the kernel holds the answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(site.proxy.addr().parse().unwrap()).await.unwrap();
    let ask = format!("GET /job/{id} HTTP/1.1\r\nhost: tepal\r\n\r\n");
    connection.write_all(ask.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    timeout(SOON, connection.read_exact(&mut start)).await.expect("an answer in time").unwrap();
    (String::from_utf8_lossy(&start[9..]).parse().unwrap(), connection)
}

#[tokio::test]
async fn a_large_result_is_held_once_for_all_answers() {
    const BYTES: usize = 8_000_000;
    let site = Site::start(&[("BODY_MEMORY_BYTES", "16777216"), SMALL_BODIES, PATIENT]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        site.submit().await;
        let attempt = site.take().await;
        site.settle(&attempt, Settlement::Complete(result(BYTES))).await;
        ids.push(attempt.job_id);
    }
    let before = reads(&site);
    let mut held = Vec::new();
    for _ in 0..50 {
        let (status, connection) = ask(&site, ids[0]).await;
        assert_eq!(status, 200);
        held.push(connection);
    }
    // Its record for each, and its result once.
    let made = reads(&site) - before;
    assert!(made <= 51 + FEW, "{made}");

    // There is memory for one other, and for a third one when no answer holds the first any more.
    let (second, connection) = ask(&site, ids[1]).await;
    let (third, _) = ask(&site, ids[2]).await;
    assert_eq!((second, third), (200, 503));
    drop(held);
    let has_room = async || ask(&site, ids[2]).await.0 == 200;
    eventually(SOON, "room for another", has_room).await;
    drop(connection);
}

#[tokio::test]
async fn a_stream_waits_for_memory_and_then_goes_on() {
    let site = Site::start(&[("BODY_MEMORY_BYTES", "8388608"), SMALL_BODIES, PATIENT]).await;
    site.submit().await;
    let attempt = site.take().await;
    site.settle(&attempt, Settlement::Complete(result(8_000_000))).await;
    let (status, holder) = ask(&site, attempt.job_id).await;
    assert_eq!(status, 200);

    let id = site.submit().await;
    let mut events = streams(&site, &id, 1).await.remove(0);
    let attempt = site.take().await;
    assert_eq!(events.status().await.1, "processing");
    site.settle(&attempt, Settlement::Complete(result(1 << 20))).await;
    assert_eq!(ask(&site, attempt.job_id).await.0, 503);
    drop(holder);
    let outcome = events.next().await.unwrap();
    assert_eq!(outcome.data["result"]["text"].as_str().unwrap().len(), 1 << 20);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn line_ends_in_a_result_do_not_divide_an_event() {
    let site = Site::start(&[]).await;
    for bytes in [1, 20_000] {
        let id = site.submit().await;
        let mut events = streams(&site, &id, 1).await.remove(0);
        let attempt = site.take().await;
        let lines = format!("{{\"prediction\":\r\n0,\n\"text\":\"{}\"}}", "x".repeat(bytes));
        site.settle(&attempt, Settlement::Complete(lines)).await;
        let outcome = loop {
            let event = events.next().await.unwrap();
            if event.name == "outcome" {
                break event;
            }
        };
        assert_eq!(outcome.data["result"]["text"].as_str().unwrap().len(), bytes);
        assert_eq!(outcome.data, site.client.job(&id).await);
    }
}

/// What is left of the limit after a request that costs one.
async fn left(site: &Site) -> String {
    let answer = site.client.get("/job/none").await;
    assert_eq!(answer.status, 404);
    answer.header("ratelimit").unwrap().to_owned()
}

#[tokio::test]
async fn a_stream_is_charged_for_what_it_sends() {
    let site = Site::start(&[("RATE_LIMIT_PER_MINUTE", "20")]).await;
    let id = site.submit().await;
    let mut events = streams(&site, &id, 1).await.remove(0);
    assert!(left(&site).await.starts_with(r#""client";r=17;"#), "the submission, the stream and this");

    let attempt = site.take().await;
    site.settle(&attempt, Settlement::Complete(result(1 << 20))).await;
    while events.next().await.is_some() {}
    // A little more than 1 MiB.
    assert!(left(&site).await.starts_with(r#""client";r=12;"#));
}

#[tokio::test]
async fn a_stream_ends_when_nothing_is_left_and_its_client_learns_when_to_come_back() {
    let site = Site::start(&[("RATE_LIMIT_PER_MINUTE", "3")]).await;
    let id = site.submit().await;
    let mut events = streams(&site, &id, 1).await.remove(0);
    assert!(left(&site).await.starts_with(r#""client";r=0;"#));

    let attempt = site.take().await;
    site.settle(&attempt, Settlement::Complete(result(1 << 20))).await;
    while let Some(event) = events.next().await {
        assert_eq!(event.name, "status", "it costs nothing; the outcome does");
    }
    let again = Events::open(&site, &id, "").await;
    assert!(again.head.starts_with("http/1.1 429"), "{}", again.head);
    assert!(again.head.contains("retry-after: "), "{}", again.head);
}
