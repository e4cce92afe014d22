//! What an idle worker costs Redis.

use std::time::Duration;

use tepal_tests::wait::eventually;

use crate::{
    models::{repository, serves},
    queue::{Queue, SOON},
    settings::Settings,
};

const INTERVAL: Duration = Duration::from_millis(100);
/// A take, a blocking read, and the script behind it.
const COMMANDS_OF_A_ROUND: f64 = 3.0;

/// The number of commands that an idle worker sends in an interval. Those of scripts do not count.
async fn commands_in_an_interval(models: usize, workers: usize) -> f64 {
    let names: Vec<_> = (0..models).map(|number| format!("m{number}")).collect();
    let repository = repository(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let queue = Queue::start().await;
    let settings =
        Settings::onnx().with_model(repository.path(), "m0").with("MODELS", "").with("NUM_WORKERS", workers);
    let worker = queue.worker(settings.with("RECLAIM_INTERVAL_MS", INTERVAL.as_millis())).await;
    serves(&worker, models).await;
    let monitor = queue.redis.monitor();
    let sent = || monitor.executed().into_iter().filter(|command| !command.is_in_script).collect::<Vec<_>>();
    // Some fifty rounds, and everything that a worker does more rarely.
    eventually(SOON, "the commands of an idle worker", async || sent().len() >= 180).await;

    let sent = sent();
    let intervals = (sent[sent.len() - 1].at - sent[0].at).div_duration_f64(INTERVAL);
    sent.len() as f64 / intervals
}

#[tokio::test]
async fn an_idle_worker_sends_as_many_commands_whatever_it_serves_and_may_run_at_a_time() {
    for (models, workers) in [(1, 2), (20, 8)] {
        let commands = commands_in_an_interval(models, workers).await;
        assert!(
            commands < COMMANDS_OF_A_ROUND * 1.1,
            "{commands} commands with {models} models and {workers} workers"
        );
    }
}
