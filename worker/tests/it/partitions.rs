//! A queue of several partitions behaves as one.

use std::time::Duration;

use futures_util::future::join_all;
use tepal_shared::{
    job::{JobId, JobStatus},
    queue::Policy,
};
use tepal_tests::{
    fault_proxy::FaultProxy,
    model_server::{Behaviour, ModelServer, ServerSpec},
    redis::RedisServer,
    wait::eventually,
};
use tokio::time::Instant;

use crate::{
    flowers::input,
    queue::{Queue, SOON, new_job, running},
    settings::Settings,
};

const PARTITIONS: u8 = 4;
const LEASE_MS: u64 = 600;

/// The longest reclaim interval: a job that only a search finds waits for a second on average.
const LONG_INTERVAL_MS: u64 = 2_000;

async fn partitioned() -> Queue {
    of_partitions(PARTITIONS.into()).await
}

pub(crate) async fn of_partitions(partitions: u16) -> Queue {
    Queue::with_policy(RedisServer::shipped().start().await, Policy { partitions, ..Policy::default() })
}

/// Waits until a read of so many partitions blocks.
pub(crate) async fn reads_block(queue: &Queue, partitions: u16) {
    let expected = format!("blocked_clients:{partitions}");
    let blocks = async || queue.redis.cli(&["INFO", "clients"]).lines().any(|line| line.trim() == expected);
    eventually(SOON, "blocking reads", blocks).await;
}

/// Submits jobs to the partition, each when the last has completed. They arrive at once, or else searches find them much later.
async fn lone_jobs_arrive(queue: &Queue, partition: u8) {
    let (count, began) = (8, Instant::now());
    for _ in 0..count {
        let id = queue.submit_job(partition, new_job(input(5.1))).await;
        assert_eq!(queue.completed(id).await.attempts, 1);
    }
    let by_searches = Duration::from_millis(LONG_INTERVAL_MS) * count / 2;
    assert!(began.elapsed() < by_searches / 2, "{:?} in partition {partition}", began.elapsed());
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

#[tokio::test]
async fn a_lone_job_of_any_partition_arrives_at_once() {
    let (queue, server) = (partitioned().await, ModelServer::start(ServerSpec::iris()).await);
    let _worker = queue.worker(settings(&server).with("RECLAIM_INTERVAL_MS", LONG_INTERVAL_MS)).await;
    reads_block(&queue, PARTITIONS.into()).await;

    for partition in 0..PARTITIONS {
        lone_jobs_arrive(&queue, partition).await;
    }
}

#[tokio::test]
async fn a_busy_worker_leaves_the_jobs_of_all_partitions_to_others() {
    let queue = partitioned().await;
    let (hanging, healthy) =
        (ModelServer::start(ServerSpec::iris()).await, ModelServer::start(ServerSpec::iris()).await);
    hanging.set_behaviour(Behaviour::Hang);
    let settings = |server| {
        Settings::serving(server).with("PARTITIONS", PARTITIONS).one_at_a_time().with("BATCH_MAX_ROWS", 1)
    };
    let _busy = queue.worker(settings(&hanging)).await;
    reads_block(&queue, PARTITIONS.into()).await;

    let ids = join_all((0..PARTITIONS).map(|number| queue.submit_job(number, new_job(input(5.1))))).await;
    running(&hanging, 1).await;
    let _idle = queue.worker(settings(&healthy)).await;

    let completed = async || {
        let jobs = join_all(ids.iter().map(|id| queue.job(*id))).await;
        assert!(jobs.iter().all(|job| job.attempts <= 1), "{jobs:?}");
        jobs.iter().filter(|job| job.status == JobStatus::Completed).count() == ids.len() - 1
    };
    eventually(SOON, "the other jobs to complete", completed).await;
}

#[tokio::test]
async fn a_partition_whose_reads_hang_delays_no_other() {
    let (queue, server) = (of_partitions(2).await, ModelServer::start(ServerSpec::iris()).await);
    let proxy = FaultProxy::start(&queue.redis.addr()).await;
    // In a blocking read, the last stream comes before the first id.
    let last = queue.store.queue.keys().streams(1, queue.model)[2].clone();
    proxy.silence(format!("{last}\r\n$1\r\n>"));
    let url = queue.redis.worker_url().replace(&queue.redis.addr(), &proxy.addr());
    let settings = Settings::serving(&server).with("PARTITIONS", 2).with("REDIS_URL", url);
    let _worker = queue.worker(settings.with("RECLAIM_INTERVAL_MS", LONG_INTERVAL_MS)).await;
    reads_block(&queue, 1).await;
    eventually(SOON, "a silent read", async || proxy.hits().half_open > 0).await;

    lone_jobs_arrive(&queue, 0).await;

    // A search finds it.
    let id = queue.submit_job(1, new_job(input(5.1))).await;
    assert_eq!(queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn a_partition_that_refuses_every_call_delays_no_other() {
    let (queue, server) = (of_partitions(2).await, ModelServer::start(ServerSpec::iris()).await);
    let broken = queue.store.queue.keys().streams(1, queue.model)[0].clone();
    queue.redis.cli(&["SET", &broken, "no stream"]);
    let settings = Settings::serving(&server).with("PARTITIONS", 2);
    let worker = queue.worker(settings.with("RECLAIM_INTERVAL_MS", LONG_INTERVAL_MS)).await;
    reads_block(&queue, 1).await;

    lone_jobs_arrive(&queue, 0).await;

    let line = worker.wait_for_log("take_failed", SOON).await;
    assert!(line.contains(r#""partition":1"#), "{line}");
    queue.redis.cli(&["DEL", &broken]);
    let id = queue.submit_job(1, new_job(input(5.1))).await;
    assert_eq!(queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn an_idle_worker_of_several_partitions_ends_at_once() {
    let queue = partitioned().await;
    let worker = queue.worker(Settings::onnx().with("PARTITIONS", PARTITIONS)).await;
    reads_block(&queue, PARTITIONS.into()).await;

    let asked = Instant::now();
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());

    // A read that is not ended blocks for 5 s.
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn jobs_of_takes_that_are_late_are_run_all_the_same() {
    let (queue, server) = (partitioned().await, ModelServer::start(ServerSpec::iris()).await);
    let proxy = FaultProxy::start(&queue.redis.addr()).await;
    proxy.delay(Duration::from_millis(150));
    let url = queue.redis.worker_url().replace(&queue.redis.addr(), &proxy.addr());
    let settings = Settings::serving(&server).with("PARTITIONS", PARTITIONS).with("REDIS_URL", url);
    let waiting = submit_to_all(&queue, 20).await;
    let _worker = queue.worker(settings).await;

    let completed = [queue.all_completed(&waiting).await, {
        let arriving = submit_to_all(&queue, 5).await;
        queue.all_completed(&arriving).await
    }];

    assert!(completed.iter().flatten().all(|job| job.attempts == 1), "{completed:?}");
    assert!(proxy.hits().delayed > 0);
    queue.assert_drained().await;
}
