//! The order in which the parts start does not matter.

use tepal_shared::queue::heartbeat::BackendState;
use tepal_tests::{
    model_server::{ModelServer, ServerSpec},
    ports::free_port,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON},
    settings::Settings,
};

#[tokio::test]
async fn a_worker_may_start_before_its_model_server() {
    let queue = Queue::start().await;
    let addr = ([127, 0, 0, 1], free_port()).into();
    let _worker = queue.worker(Settings::serving_at(addr)).await;
    let id = queue.submit(input(5.1)).await;
    queue.backend_is(BackendState::Down).await;

    let _server = ModelServer::start_on(addr, ServerSpec::iris()).await;

    assert_eq!(queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn a_worker_may_start_before_redis() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    queue.redis.kill9();
    let worker = queue.worker(Settings::serving(&server)).await;
    worker.wait_for_log("redis_unreachable", SOON).await;

    queue.redis.restart().await;
    queue.store.queue.redis().up().await;
    let id = queue.submit(input(5.1)).await;

    assert_eq!(queue.completed(id).await.attempts, 1);
    assert!(worker.is_running());
}
