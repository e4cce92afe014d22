//! Every fault of the proxy against a real Redis.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tepal_tests::fault_proxy::{FaultHits, FaultProxy};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::SOON;

/// A Redis, a proxy in front of it, and a connection through the proxy that waits 300 ms for a reply.
async fn redis_behind_a_proxy() -> (RedisServer, FaultProxy, MultiplexedConnection) {
    let server = RedisServer::start().await;
    let proxy = FaultProxy::start(&server.addr()).await;
    let connection = connect(&server, &proxy).await.unwrap();
    (server, proxy, connection)
}

async fn connect(server: &RedisServer, proxy: &FaultProxy) -> redis::RedisResult<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_millis(300)));
    let client = redis::Client::open(server.url_at(&proxy.addr()))?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

#[tokio::test]
async fn a_frozen_redis_answers_only_after_it_goes_on() {
    let (server, proxy, mut connection) = redis_behind_a_proxy().await;

    server.sigstop();
    assert!(connection.incr::<_, _, u64>("a", 1).await.unwrap_err().is_timeout());
    server.sigcont();

    assert_eq!(server.cli(&["GET", "a"]), "1");
    assert_eq!(proxy.hits(), FaultHits { connections: 1, ..FaultHits::default() });
}

#[tokio::test]
async fn a_dropped_reply_belongs_to_a_request_that_was_executed() {
    let (server, proxy, mut connection) = redis_behind_a_proxy().await;
    assert_eq!(connection.incr::<_, _, u64>("a", 1).await.unwrap(), 1);

    proxy.drop_next_reply();
    let error = connection.incr::<_, _, u64>("a", 1).await.unwrap_err();

    assert!(error.is_connection_dropped() || error.is_io_error(), "{error:?}");
    assert_eq!(server.cli(&["GET", "a"]), "2");
    assert_eq!(proxy.hits().replies_dropped, 1);
    let mut connection = connect(&server, &proxy).await.unwrap();
    assert_eq!(connection.incr::<_, _, u64>("a", 1).await.unwrap(), 3);
}

#[tokio::test]
async fn the_reply_to_one_kind_of_request_can_be_dropped() {
    let (server, proxy, mut connection) = redis_behind_a_proxy().await;

    proxy.drop_reply_to("INCR");
    let () = connection.set("other", 1).await.unwrap();
    assert_eq!(proxy.hits().replies_dropped, 0);
    assert!(connection.incr::<_, _, u64>("a", 1).await.is_err());

    assert_eq!(server.cli(&["GET", "a"]), "1");
    assert_eq!(proxy.hits().replies_dropped, 1);
}

#[tokio::test]
async fn a_half_open_connection_leads_to_a_client_timeout() {
    let (server, proxy, mut connection) = redis_behind_a_proxy().await;

    proxy.half_open();
    assert!(connection.incr::<_, _, u64>("a", 1).await.unwrap_err().is_timeout());
    let mut silent = TcpStream::connect(proxy.addr()).await.unwrap();
    silent.write_all(b"PING\r\n").await.unwrap();
    eventually(SOON, "the swallowed PING", async || proxy.hits().half_open == 2).await;
    let answer = tokio::time::timeout(Duration::from_millis(50), silent.read_u8()).await;
    assert!(answer.is_err(), "{answer:?}");

    proxy.pass();
    assert!(
        connection.incr::<_, _, u64>("a", 1).await.unwrap_err().is_timeout(),
        "a dead connection stays dead"
    );
    assert_eq!(proxy.cut_all().await, 2);
    assert!(connect(&server, &proxy).await.is_ok());
    assert_eq!(server.cli(&["EXISTS", "a"]), "0");
}

#[tokio::test]
async fn cutting_and_refusing_hit_every_connection() {
    let (server, proxy, mut connection) = redis_behind_a_proxy().await;

    assert_eq!(proxy.down().await, 1);
    assert!(connection.incr::<_, _, u64>("a", 1).await.is_err());
    assert!(connect(&server, &proxy).await.is_err());
    assert_eq!((proxy.hits().cut, proxy.hits().refused), (1, 1));

    proxy.pass();
    let _connection = connect(&server, &proxy).await.unwrap();
    assert_eq!(proxy.cut_all().await, 1);
    assert_eq!(proxy.hits().cut, 2);
}

#[tokio::test]
async fn delayed_and_dripped_replies_arrive_late_and_whole() {
    let (server, proxy, _) = redis_behind_a_proxy().await;
    let mut connection = connect(&server, &proxy).await.unwrap();

    proxy.delay(Duration::from_millis(80));
    let started = Instant::now();
    let () = connection.set("a", "x".repeat(100)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(80));
    assert_eq!(proxy.hits().delayed, 1);

    proxy.drip(10, Duration::from_millis(2));
    assert_eq!(connection.get::<_, String>("a").await.unwrap().len(), 100);
    assert!(proxy.hits().dripped >= 12, "{:?}", proxy.hits());
}

#[tokio::test]
async fn the_proxy_survives_a_restart_of_its_upstream() {
    let (server, proxy, mut connection) = redis_behind_a_proxy().await;

    server.kill9();
    assert!(connection.incr::<_, _, u64>("a", 1).await.is_err());
    assert!(connect(&server, &proxy).await.is_err());
    server.restart().await;

    assert!(connect(&server, &proxy).await.is_ok());
}
