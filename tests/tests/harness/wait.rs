//! Waiting.

use std::sync::Arc;
use std::time::Duration;

use tepal_tests::fault_proxy::FaultProxy;
use tepal_tests::http::Client;
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::{eventually, poll};

use crate::{SOON, panic_text, shell};

#[tokio::test]
async fn eventually_returns_the_value_once_it_is_there() {
    let mut looks = 0;
    let value = eventually(SOON, "the third look", async || {
        looks += 1;
        (looks == 3).then_some(looks)
    });

    assert_eq!(value.await, 3);
}

#[tokio::test]
async fn eventually_says_what_it_waited_for_where_and_what_it_saw() {
    let text = panic_text(async {
        eventually(Duration::from_millis(30), "the job to finish", async || Err::<(), _>("pending")).await;
    });
    let text = text.await;

    assert!(text.starts_with("tests/tests/harness/wait.rs:"), "{text}");
    assert!(text.contains("waited for the job to finish, gave up after 30ms and "), "{text}");
    assert!(text.ends_with("last seen: pending"), "{text}");
}

#[tokio::test]
async fn eventually_gives_up_on_a_look_that_hangs() {
    let text = panic_text(async {
        eventually(Duration::from_millis(30), "a reply", async || std::future::pending::<bool>().await).await;
    });

    assert!(text.await.ends_with("last seen: nothing at all; the last look never returned"));
}

#[tokio::test]
async fn what_waits_can_be_part_of_a_spawned_task() {
    let server = Arc::new(RedisServer::start().await);
    let proxy = Arc::new(FaultProxy::start(&server.addr()).await);
    let service = Arc::new(shell("echo ready"));

    let chaos = tokio::spawn(async move {
        server.restart().await;
        proxy.down().await;
        service.wait_for_log("ready", SOON).await;
        service.wait_exit(SOON).await;
        let nobody = Client::new("http://127.0.0.1:1");
        poll(SOON, || async { nobody.try_get("/").await.is_err() }).await
    });

    assert_eq!(chaos.await.unwrap(), Ok(()));
}
