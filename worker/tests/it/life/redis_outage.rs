//! Redis becomes unreachable, comes back, and comes back with less data.

use std::time::Duration;

use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
    redis::RedisServer,
    wait::eventually,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, outcomes, running},
    settings::Settings,
};

async fn durable() -> Queue {
    Queue::on(RedisServer::shipped().start().await)
}

#[tokio::test]
async fn every_job_completes_although_redis_is_killed_in_the_middle() {
    let spec = ServerSpec { call_cost: Duration::from_millis(10), ..ServerSpec::iris() };
    let (queue, server) = (durable().await, ModelServer::start(spec).await);
    let settings = Settings::serving(&server).with_lease_ms(1_500).with("BATCH_MAX_ROWS", 2);
    let worker = queue.worker(settings).await;
    let ids = queue.submit_all((0..300).map(|_| input(5.1))).await;
    for kills in 1..=3 {
        let progress = async || server.calls().len() >= kills * 30;
        eventually(SOON, "some calls", progress).await;
        queue.redis.restart().await;
    }

    queue.all_completed(&ids).await;

    assert!(worker.is_running());
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_result_that_is_ready_while_redis_is_down_is_recorded_afterwards() {
    let (queue, server) = (durable().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Delay(Duration::from_millis(300)));
    let worker = queue.worker(Settings::serving(&server)).await;
    let id = queue.submit(input(5.1)).await;
    running(&server, 1).await;

    queue.redis.kill9();
    worker.wait_for_log("settle_failed", SOON).await;
    queue.redis.restart().await;

    assert_eq!(queue.completed(id).await.attempts, 1);
    assert_eq!(outcomes(&server), [CallOutcome::Answered], "the model was not called again");
    let repeated = async || worker.metrics().await.metric("tepal_settle_repeats_total") >= 1.0;
    eventually(SOON, "the repetition to be counted", repeated).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn an_idle_worker_goes_on_after_redis_was_away() {
    let (queue, server) = (durable().await, ModelServer::start(ServerSpec::iris()).await);
    let worker = queue.worker(Settings::serving(&server)).await;
    worker.wait_for_log("backend_up", SOON).await;

    queue.redis.kill9();
    worker.wait_for_log("redis_unreachable", SOON).await;
    queue.redis.restart().await;

    let id = queue.submit(input(5.1)).await;
    assert_eq!(queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn a_worker_goes_on_after_redis_lost_its_data_and_its_scripts() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let worker = queue.worker(Settings::serving(&server)).await;
    let before = queue.submit(input(5.1)).await;
    queue.completed(before).await;

    queue.redis.cli(&["FLUSHALL"]);
    queue.redis.cli(&["SCRIPT", "FLUSH"]);

    let ids = queue.submit_all((0..10).map(|_| input(5.1))).await;
    queue.all_completed(&ids).await;
    assert!(
        worker.metrics().await.metric("tepal_groups_created_total") >= 4.0,
        "three at the start, then more"
    );
}

#[tokio::test]
async fn the_address_of_a_sentinel_is_reported_once_and_not_used() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let sentinel = RedisServer::options().sentinel().start().await;
    let worker = queue.worker(Settings::serving(&server).with("REDIS_URL", sentinel.url())).await;

    let line = worker.wait_for_log("redis_wrong_topology", SOON).await;
    assert!(line.contains("set REDIS_URL to redis+sentinel://host:26379/name"), "{line}");
    // Each try opens a connection, and so does each check.
    let looks = std::cell::Cell::new(0);
    let tries = || {
        looks.set(looks.get() + 1);
        let stats = sentinel.cli(&["INFO", "stats"]);
        let received = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        received.unwrap().trim().parse::<u64>().unwrap() - looks.get()
    };
    let before = tries();
    eventually(SOON, "further tries", async || tries() >= before + 4).await;

    let said = |what: &str| worker.logs().lines().iter().filter(|line| line.contains(what)).count();
    assert_eq!(said("redis_wrong_topology"), 1);
    for failure in ["take_failed", "heartbeat_failed", "upkeep_failed"] {
        assert_eq!(said(failure), 0, "{failure}");
    }
}
