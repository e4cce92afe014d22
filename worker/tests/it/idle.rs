//! What an idle worker costs Redis.

use std::time::Duration;

use tepal_tests::wait::eventually;
use tokio::time::Instant;

use crate::{
    models::{repository, serves},
    partitions::{of_partitions, reads_block},
    queue::{Queue, SOON},
    settings::Settings,
};

const INTERVAL: Duration = Duration::from_millis(100);
/// A take, and what a worker does more rarely.
const COMMANDS_OF_AN_INTERVAL: f64 = 2.0;
/// Two rounds of the janitor, and two blocking reads.
const WINDOW: Duration = Duration::from_secs(10);

/// The number of commands that Redis executes in a second, without those of scripts.
async fn commands_per_second(queue: &Queue) -> f64 {
    let (monitor, began) = (queue.redis.monitor(), Instant::now());
    eventually(SOON, "the end of the window", async || began.elapsed() >= WINDOW).await;
    let executed = monitor.executed();
    let window = executed[executed.len() - 1].at - executed[0].at;
    let sent = executed.iter().filter(|command| !command.is_in_script).count();
    sent as f64 / window.as_secs_f64()
}

#[tokio::test]
async fn an_idle_worker_sends_as_many_commands_whatever_it_serves_and_may_run_at_a_time() {
    for (models, workers) in [(1, 2), (20, 8)] {
        let names: Vec<_> = (0..models).map(|number| format!("m{number}")).collect();
        let repository = repository(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let queue = Queue::start().await;
        let settings = Settings::onnx().with_model(repository.path(), "m0").with("MODELS", "");
        let settings =
            settings.with("NUM_WORKERS", workers).with("RECLAIM_INTERVAL_MS", INTERVAL.as_millis());
        let worker = queue.worker(settings).await;
        serves(&worker, models).await;
        reads_block(&queue, 1).await;

        let commands = commands_per_second(&queue).await * INTERVAL.as_secs_f64();

        assert!(
            commands < COMMANDS_OF_AN_INTERVAL,
            "{commands} commands with {models} models and {workers} workers"
        );
    }
}

#[tokio::test]
async fn the_commands_of_an_idle_worker_grow_slowly_with_the_partitions() {
    for (partitions, most) in [(16, 150.0), (256, 1_500.0)] {
        let queue = of_partitions(partitions).await;
        let _worker = queue.worker(Settings::onnx().with("PARTITIONS", partitions)).await;
        reads_block(&queue, partitions).await;

        let commands = commands_per_second(&queue).await;

        assert!(commands < most, "{commands} commands a second with {partitions} partitions");
    }
}
