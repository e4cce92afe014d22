//! What an idle worker costs Redis.

use std::time::Duration;

use tepal_tests::wait::eventually;

use crate::{
    queue::{Queue, SOON},
    settings::Settings,
};

const INTERVAL: Duration = Duration::from_millis(100);
/// A take, a blocking read, and the script behind it.
const COMMANDS_OF_A_ROUND: f64 = 3.0;

/// The number of commands that an idle worker sends in an interval. Those of scripts do not count.
async fn commands_in_an_interval(settings: Settings) -> f64 {
    let queue = Queue::start().await;
    let worker = queue.worker(settings.with("RECLAIM_INTERVAL_MS", INTERVAL.as_millis())).await;
    worker.wait_for_log("backend_up", SOON).await;
    let monitor = queue.redis.monitor();
    let sent = || monitor.executed().into_iter().filter(|command| !command.is_in_script).collect::<Vec<_>>();
    // Some fifty rounds, and everything that a worker does more rarely.
    eventually(SOON, "the commands of an idle worker", async || sent().len() >= 180).await;

    let sent = sent();
    let intervals = (sent[sent.len() - 1].at - sent[0].at).div_duration_f64(INTERVAL);
    sent.len() as f64 / intervals
}

#[tokio::test]
async fn an_idle_worker_sends_as_many_commands_whatever_it_may_run_at_a_time() {
    for workers in [2, 8] {
        let commands = commands_in_an_interval(Settings::onnx().with("NUM_WORKERS", workers)).await;
        assert!(commands < COMMANDS_OF_A_ROUND * 1.1, "{commands} commands with {workers} workers");
    }
}
