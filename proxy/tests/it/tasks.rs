//! Bugs that panic in the proxy's background tasks.

use clap::Parser as _;
use tepal_proxy::config::{Args, Config};
use tepal_tests::{http::Client, redis::RedisServer, saboteur::Saboteur, wait::eventually};
use tokio_util::sync::CancellationToken;

use crate::gateway::{SOON, store};

#[tokio::test]
async fn a_task_that_panics_starts_again_and_does_its_work() {
    let (saboteur, _guard) = Saboteur::start(&["health_changed", "redis_unreachable"]);
    let redis = RedisServer::shipped().start().await;
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let url = redis.proxy_url();
    let args = ["tepal-proxy", "--redis-url", &url, "--models-dir", models, "--listen-addr", "127.0.0.1:0"];
    let config = Config::try_from(Args::try_parse_from(args).unwrap()).unwrap();
    let listeners = tepal_proxy::listen(&config).unwrap();
    let client = Client::new(&format!("http://{}", listeners.http.local_addr().unwrap()));
    let shutdown = CancellationToken::new();
    let proxy = tokio::spawn(tepal_proxy::run(config, listeners, shutdown.clone()));
    let panicked = async || saboteur.armed() == ["redis_unreachable"];
    eventually(SOON, "the probe to panic", panicked).await;

    // What the probe finds now, it finds after its panic.
    store(&redis).work.heartbeat("w", r#"{"of another version": true}"#).await.unwrap();
    let live = async || client.get("/metrics").await.metric("tepal_workers_live") == 1.0;
    eventually(SOON, "the worker to be seen", live).await;

    redis.kill9();
    eventually(SOON, "the connection's task to panic", async || saboteur.armed().is_empty()).await;
    redis.restart().await;
    eventually(SOON, "a new connection", async || client.get("/readyz").await.status == 200).await;

    let page = client.get("/metrics").await.text();
    for task in ["probe", "redis_connection"] {
        assert!(page.contains(&format!("tepal_task_failures_total{{task=\"{task}\"}} 1\n")), "{page}");
    }
    assert!(page.contains("tepal_task_failures_total{task=\"metrics_upkeep\"} 0\n"), "{page}");
    shutdown.cancel();
    proxy.await.unwrap().unwrap();
}
