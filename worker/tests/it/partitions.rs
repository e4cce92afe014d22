//! A queue of several partitions behaves as one.

use std::time::Duration;

use tepal_shared::{job::JobId, queue::Policy};
use tepal_tests::{
    model_server::{Behaviour, ModelServer, ServerSpec},
    redis::RedisServer,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, new_job, running},
    settings::Settings,
};

const PARTITIONS: u8 = 4;
const LEASE_MS: u64 = 600;

async fn partitioned() -> Queue {
    let partitions = PARTITIONS.into();
    Queue::with_policy(RedisServer::shipped().start().await, Policy { partitions, ..Policy::default() })
}

fn settings(server: &ModelServer) -> Settings {
    Settings::serving(server).with("PARTITIONS", PARTITIONS).with_lease_ms(LEASE_MS)
}

async fn submit_to_all(queue: &Queue, count: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        for partition in 0..PARTITIONS {
            ids.push(queue.submit_job(partition, new_job(input(5.1))).await);
        }
    }
    ids
}

#[tokio::test]
async fn jobs_of_every_partition_complete_whether_they_wait_or_arrive() {
    let (queue, server) = (partitioned().await, ModelServer::start(ServerSpec::iris()).await);
    let waiting = submit_to_all(&queue, 20).await;
    let worker = queue.worker(settings(&server)).await;
    queue.all_completed(&waiting).await;
    worker.wait_for_log("backend_up", SOON).await;

    let arriving = submit_to_all(&queue, 5).await;

    queue.all_completed(&arriving).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn jobs_of_a_killed_worker_are_recovered_in_every_partition() {
    let queue = partitioned().await;
    let (doomed, healthy) =
        (ModelServer::start(ServerSpec::iris()).await, ModelServer::start(ServerSpec::iris()).await);
    doomed.set_behaviour(Behaviour::Hang);
    let ids = submit_to_all(&queue, 2).await;
    let worker = queue.worker(settings(&doomed)).await;
    running(&doomed, PARTITIONS.into()).await;

    worker.kill9();
    let _next = queue.worker(settings(&healthy)).await;

    for job in queue.all_completed(&ids).await {
        assert!(job.attempts <= 2, "{job:?}");
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn long_jobs_keep_their_leases_in_every_partition() {
    let (queue, server) = (partitioned().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Delay(Duration::from_millis(3 * LEASE_MS)));
    let _workers = [queue.worker(settings(&server)).await, queue.worker(settings(&server)).await];

    let ids = submit_to_all(&queue, 1).await;

    for job in queue.all_completed(&ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
    }
}
