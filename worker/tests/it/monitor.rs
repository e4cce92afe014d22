//! The port for Prometheus and orchestrators.

use tepal_tests::{
    http::Client,
    model_server::{Behaviour, ModelServer, ServerSpec},
    process::Worker,
    redis::RedisServer,
    wait::eventually,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, running},
    settings::Settings,
};

fn client(worker: &Worker) -> Client {
    Client::new(&format!("http://{}", worker.metrics_addr()))
}

/// Waits until /readyz answers this.
async fn ready_is(worker: &Worker, status: u16, body: &str) {
    let client = client(worker);
    let look = async || {
        let answer = client.get("/readyz").await;
        let seen = (answer.status, answer.text());
        if (seen.0, seen.1.as_str()) == (status, body) { Ok(()) } else { Err(format!("{seen:?}")) }
    };
    eventually(SOON, "the readiness", look).await;
}

async fn livez(worker: &Worker) -> (u16, String) {
    let answer = client(worker).get("/livez").await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn the_port_serves_metrics_and_probes_and_nothing_else() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnx()).await;
    let client = client(&worker);

    let metrics = client.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(livez(&worker).await, (200, "ok".to_owned()));
    ready_is(&worker, 200, "ok").await;
    for path in ["/", "/metrics/", "/livez2", "/readyz/", "/health", "/predict"] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_worker_without_redis_lives_but_is_not_ready() {
    let queue = Queue::on(RedisServer::shipped().start().await);
    let worker = queue.worker(Settings::onnx()).await;
    ready_is(&worker, 200, "ok").await;

    queue.redis.kill9();
    ready_is(&worker, 503, "Redis does not answer, or is a replica").await;
    assert_eq!(livez(&worker).await, (200, "ok".to_owned()));

    queue.redis.restart().await;
    ready_is(&worker, 200, "ok").await;
}

#[tokio::test]
async fn a_worker_whose_model_server_is_away_lives_but_is_not_ready() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let worker = queue.worker(Settings::serving(&server)).await;
    ready_is(&worker, 200, "ok").await;

    server.set_available(false);
    ready_is(&worker, 503, "No model answers: iris").await;
    assert_eq!(livez(&worker).await, (200, "ok".to_owned()));

    server.set_available(true);
    ready_is(&worker, 200, "ok").await;
}

#[tokio::test]
async fn a_worker_that_drains_lives_but_is_not_ready() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let worker = queue.worker(Settings::serving(&server).with("DRAIN_TIMEOUT_SECONDS", 60)).await;
    queue.submit(input(5.1)).await;
    running(&server, 1).await;

    worker.sigterm();

    ready_is(&worker, 503, "The worker is stopping").await;
    assert_eq!(livez(&worker).await, (200, "ok".to_owned()));
}
