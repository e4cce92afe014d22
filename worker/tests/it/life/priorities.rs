//! Jobs of high priority come first, but no job starves.

use std::time::Duration;

use tepal_shared::{
    job::{JobId, NewJob, Priority},
    queue::Policy,
};
use tepal_tests::{
    model_server::{ModelServer, ServerSpec},
    redis::RedisServer,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, new_job},
    settings::Settings,
};

const FIRST_VALUES: [(Priority, f32); 3] =
    [(Priority::High, 1.5), (Priority::Normal, 2.5), (Priority::Low, 3.5)];

async fn submit(queue: &Queue, partition: u8, priority: Priority, count: usize) -> Vec<JobId> {
    let first = FIRST_VALUES.into_iter().find(|(of, _)| *of == priority).unwrap().1;
    let mut ids = Vec::new();
    for _ in 0..count {
        let job = NewJob { priority, ..new_job(input(first)) };
        ids.push(queue.submit_job(partition, job).await);
    }
    ids
}

/// How many rows of each priority were among the first `count`.
fn shares(server: &ModelServer, count: usize) -> [usize; 3] {
    let first_values: Vec<f32> =
        server.calls().iter().flat_map(|call| call.values.iter().step_by(4).copied()).take(count).collect();
    FIRST_VALUES.map(|(_, value)| first_values.iter().filter(|first| **first == value).count())
}

#[tokio::test]
async fn low_priority_gets_its_share_while_high_is_saturated() {
    let spec = ServerSpec { call_cost: Duration::from_millis(1), ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let mut ids = submit(&queue, 0, Priority::High, 600).await;
    ids.extend(submit(&queue, 0, Priority::Normal, 100).await);
    ids.extend(submit(&queue, 0, Priority::Low, 60).await);

    let _worker = queue.worker(Settings::serving(&server).with("BATCH_MAX_ROWS", 4)).await;
    queue.all_completed(&ids).await;

    // While jobs of all three priorities wait.
    let [high, normal, low] = shares(&server, 320);
    assert!(high > 160, "high, normal, low: {high}, {normal}, {low} of 320");
    assert!(normal > 320 / 10, "high, normal, low: {high}, {normal}, {low} of 320");
    assert!(low >= 320 / 20, "high, normal, low: {high}, {normal}, {low} of 320");
}

#[tokio::test]
async fn low_priority_gets_its_share_in_every_partition() {
    let redis = RedisServer::shipped().start().await;
    let queue = Queue::with_policy(redis, Policy { partitions: 2, ..Policy::default() });
    let server = ModelServer::start(ServerSpec::iris()).await;
    let mut high = Vec::new();
    let mut low = [Vec::new(), Vec::new()];
    for partition in 0..2 {
        high.extend(submit(&queue, partition, Priority::High, 300).await);
        low[usize::from(partition)] = submit(&queue, partition, Priority::Low, 10).await;
    }

    let settings = Settings::serving(&server).one_at_a_time().with("BATCH_MAX_ROWS", 1);
    let _worker = queue.worker(settings.with("PARTITIONS", 2)).await;

    let high = queue.all_completed(&high).await;
    let end_of_high = high.iter().map(|job| job.finished_at_ms.unwrap()).max().unwrap();
    for low in low {
        let low = queue.all_completed(&low).await;
        let end_of_low = low.iter().map(|job| job.finished_at_ms.unwrap()).max().unwrap();
        assert!(end_of_low < end_of_high, "low had to wait for the end of high");
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn an_idle_worker_starts_jobs_of_any_priority_at_once() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let worker = queue.worker(Settings::serving(&server)).await;
    worker.wait_for_log("backend_up", SOON).await;

    for priority in Priority::ALL {
        let ids = submit(&queue, 0, priority, 1).await;
        queue.all_completed(&ids).await;
    }

    assert_eq!(shares(&server, 3), [1, 1, 1]);
}
