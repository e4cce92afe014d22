//! Connections that are held and not used.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tepal_tests::{http::Client, process::Proxy, redis::RedisServer, wait::eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{Siege, attackers, connect, head, outcome, to_the_end};
use crate::gateway::{Gateway, SOON};

#[tokio::test]
async fn thousands_of_idle_connections_are_held_and_then_closed() {
    let mut siege = Siege::lay("idle connections", &[("HEADER_TIMEOUT_MS", "5000")]).await;
    let count = attackers(4000);
    let idle = connect(count, siege.addr()).await;
    siege.others_are_served().await;
    // Without a byte from the client, HTTP is not set up: it would take 16 KiB and more.
    siege.held(count, 32);
    for answer in join_all(idle.into_iter().map(to_the_end)).await {
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn idle_connections_in_all_slots_make_room() {
    let settings = [("MAX_CONNECTIONS", "100"), ("HEADER_TIMEOUT_MS", "3600000")];
    let mut siege = Siege::lay("idle connections on every place", &settings).await;
    let count = attackers(1000);
    let idle = connect(count, siege.addr()).await;
    siege.others_are_served().await;
    siege.held(count, 32);
    let metrics = siege.gateway.get("/metrics").await;
    let displaced =
        |when| metrics.metric(&format!("tepal_http_connections_displaced_total{{while=\"{when}\"}}"));
    assert!(displaced("waiting") + displaced("arriving") >= (count - 100) as f64);
    assert!(metrics.metric("tepal_http_connections_limit") < 100.5);
    // The first ones have lost their slots, the last ones have not.
    let mut byte = [0];
    let mut idle = idle.into_iter();
    let mut first = idle.next().unwrap();
    assert_eq!(timeout(SOON, first.read(&mut byte)).await.unwrap().unwrap_or(0), 0);
    let mut last = idle.next_back().unwrap();
    last.write_all(head("GET /livez", "").as_bytes()).await.unwrap();
    assert_eq!(outcome(&to_the_end(last).await).0, 200);
}

#[tokio::test]
async fn clients_that_come_at_once_are_connected_before_they_are_accepted() {
    let listener = tepal_proxy::bind("LISTEN_ADDR", "127.0.0.1:0".parse().unwrap()).unwrap();
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    // Nothing accepts connections: one that the backlog cannot hold would wait here for ever.
    let count = attackers(1500.min(most.trim().parse().unwrap()));
    let waiting = timeout(SOON, connect(count, listener.local_addr().unwrap())).await;
    assert_eq!(waiting.map(|waiting| waiting.len()), Ok(count));
}

#[tokio::test]
async fn idle_connections_leave_open_files_for_others() {
    let redis = RedisServer::shipped().start().await;
    let settings = [("MAX_CONNECTIONS", "1000"), ("HEADER_TIMEOUT_MS", "3600000")];
    let proxy = Proxy::start_limited(&redis.proxy_url(), (64, 160), &settings).await;
    proxy.ready().await;

    let idle = connect(300, proxy.addr().parse().unwrap()).await;
    // A connection of its own: an idle one from before may lose its slot while it sends.
    assert_eq!(Client::new(proxy.base_url()).get("/readyz").await.status, 200);
    drop(idle);

    let limited = proxy.wait_for_log("connections_limited", SOON).await;
    let limited: Value = serde_json::from_str(&limited).unwrap();
    assert_eq!((&limited["connections"], &limited["wanted"]), (&96.into(), &1000.into()));
    assert_eq!(proxy.logs().find("accept_failed"), None);
}

#[tokio::test]
async fn a_request_is_never_given_up_for_a_new_connection() {
    let mut siege = Siege::lay("idle connections beside a busy one", &[("MAX_CONNECTIONS", "20")]).await;
    let id = siege.gateway.submit().await;
    siege.submitted += 1;
    let mut waiting = connect(1, siege.addr()).await.remove(0);
    waiting.write_all(head(&format!("GET /job/{id}"), "prefer: wait=60\r\n").as_bytes()).await.unwrap();
    let is_waiting = async || !siege.gateway.redis.cli(&["PUBSUB", "SHARDCHANNELS"]).is_empty();
    eventually(SOON, "the proxy to wait for the job", is_waiting).await;

    let idle = connect(200, siege.addr()).await;
    siege.others_are_served().await;
    drop(idle);
    let cancelled = siege.gateway.delete(&format!("/job/{id}")).await;
    assert_eq!(cancelled.status, 200);
    assert_eq!(outcome(&to_the_end(waiting).await).0, 200);
}

#[tokio::test]
async fn streams_in_all_slots_make_room() {
    let mut siege = Siege::lay("streams on every place", &[("MAX_CONNECTIONS", "50")]).await;
    let id = siege.gateway.submit().await;
    siege.submitted += 1;
    let mut streams = connect(50, siege.addr()).await;
    let ask = head(&format!("GET /job/{id}"), "accept: text/event-stream\r\n");
    let mut buffer = [0; 1024];
    for stream in &mut streams {
        stream.write_all(ask.as_bytes()).await.unwrap();
        let length = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[..length].starts_with(b"HTTP/1.1 200 OK"));
    }
    siege.others_are_served().await;
    siege.held(50, 32);
    let metrics = siege.gateway.get("/metrics").await;
    assert!(metrics.metric("tepal_http_connections_displaced_total{while=\"streaming\"}") > 0.5);
}

#[tokio::test]
async fn open_connections_are_counted() {
    let gateway = Gateway::start().await;
    let open = async || gateway.get("/metrics").await.metric("tepal_http_connections");
    let before = open().await;
    let idle = connect(20, gateway.proxy.addr().parse().unwrap()).await;
    let are_counted = async || (open().await - before - 20.0).abs() < 0.5;
    eventually(SOON, "the connections to be counted", are_counted).await;
    drop(idle);
    let are_gone = async || (open().await - before).abs() < 0.5;
    eventually(SOON, "the connections to be gone", are_gone).await;
}

#[tokio::test]
async fn who_does_not_read_the_answers_is_cut_off() {
    let mut siege = Siege::lay("answers that nobody reads", &[("BODY_TIMEOUT_MS", "2000")]).await;
    let count = attackers(20);
    let mut silent = connect(count, siege.addr()).await;
    // Each asks for more than the buffers of the connection hold.
    let id = siege.large_job().await;
    let questions = format!("GET /job/{id} HTTP/1.1\r\nhost: tepal\r\n\r\n").repeat(500);
    for connection in &mut silent {
        connection.write_all(questions.as_bytes()).await.unwrap();
    }
    siege.others_are_served().await;
    siege.held(count, 64);
    for connection in &silent {
        // It has data to read, and then nothing more is ever sent: the connection was reset.
        let is_cut = async || connection.try_write(b"x").is_err();
        eventually(Duration::from_secs(20), "the connection to be cut", is_cut).await;
    }
}
