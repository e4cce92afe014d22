//! The page of metrics.

use tepal_shared::job::owner::View;
use tepal_tests::model_server::{Behaviour, ModelServer, ServerSpec};

use crate::{
    flowers::input,
    queue::{Queue, SOON},
    settings::Settings,
};

const COUNTERS: [&str; 13] = [
    "tepal_batch_splits_total",
    "tepal_jobs_processed_total",
    "tepal_jobs_failed_total",
    "tepal_jobs_reclaimed_total",
    "tepal_outcomes_fenced_total",
    "tepal_entries_repaired_total",
    "tepal_entries_stale_total",
    "tepal_groups_created_total",
    "tepal_settle_repeats_total",
    "tepal_task_failures_total",
    "tepal_data_loss_total",
    "tepal_log_lines_dropped_total",
    "tepal_jobs_lost_total",
];
const GAUGES: [&str; 7] = [
    "tepal_model_failed",
    "tepal_breaker_open",
    "tepal_build_info",
    "tepal_worker_jobs_held",
    "tepal_worker_batches_running",
    "tepal_worker_batches_limit",
    "tepal_worker_batch_rows_limit",
];
const HISTOGRAMS: [&str; 5] = [
    "tepal_job_processing_seconds",
    "tepal_job_wait_seconds",
    "tepal_inference_seconds",
    "tepal_batch_rows",
    "tepal_batch_jobs",
];

#[tokio::test]
async fn the_page_has_every_metric_with_its_help_and_buckets() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnx()).await;
    worker.wait_for_log("backend_up", SOON).await;
    let idle = worker.metrics().await.text();
    for name in COUNTERS.into_iter().chain(GAUGES) {
        assert!(idle.contains(&format!("\n{name}")), "{name} appears only with its first event");
    }

    let id = queue.submit(input(5.1)).await;
    queue.completed(id).await;
    worker.wait_for_log("prediction_completed", SOON).await;
    let histograms = async || {
        worker.metrics().await.text().contains("tepal_job_processing_seconds_count{model=\"iris\"} 1")
    };
    tepal_tests::wait::eventually(SOON, "the job to be counted", histograms).await;

    let page = worker.metrics().await.text();
    let typed = [("counter", &COUNTERS[..]), ("gauge", &GAUGES), ("histogram", &HISTOGRAMS)];
    for (kind, names) in typed {
        for name in names {
            assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {page}");
            assert!(page.contains(&format!("# HELP {name} ")), "{name}: {page}");
        }
    }
    for name in HISTOGRAMS {
        let bucket =
            page.lines().any(|line| line.starts_with(&format!("{name}_bucket{{")) && line.contains("+Inf"));
        assert!(bucket, "{name} has no buckets: {page}");
    }
    let described = page.lines().filter(|line| line.starts_with("# TYPE tepal_")).count();
    assert_eq!(described, COUNTERS.len() + GAUGES.len() + HISTOGRAMS.len(), "{page}");
    assert!(page.contains("tepal_jobs_processed_total{model=\"iris\",outcome=\"completed\"} 1"), "{page}");
}

#[tokio::test]
async fn only_batches_that_run_are_counted_as_running() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let worker =
        queue.worker(Settings::serving(&server).with("NUM_WORKERS", 2).with("MAX_IN_FLIGHT", 1)).await;
    let running = async || worker.metrics().await.metric("tepal_worker_batches_running");
    let first = queue.submit(input(5.1)).await;
    let is_running = async || running().await == 1.0;
    tepal_tests::wait::eventually(SOON, "one batch to run", is_running).await;

    queue.store.intake.cancel(first, View::All).await.unwrap();

    // The consumers wait for jobs again, each with a slot.
    let is_idle = async || running().await == 0.0;
    tepal_tests::wait::eventually(SOON, "no batch to run", is_idle).await;
    assert_eq!(worker.metrics().await.metric("tepal_worker_batches_limit"), 2.0);
}

#[tokio::test]
async fn outcomes_and_calls_are_counted_by_kind() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.script_next(1, Behaviour::Status(tonic::Code::Internal, String::new()));
    server.script_next(1, Behaviour::Status(tonic::Code::InvalidArgument, String::new()));
    let worker = queue.worker(Settings::serving(&server).with("RETRY_BASE_MS", 1)).await;

    let id = queue.submit(input(5.1)).await;
    queue.failed(id).await;
    let id = queue.submit(input(5.1)).await;
    queue.completed(id).await;

    let expected = [
        "tepal_jobs_processed_total{model=\"iris\",outcome=\"retried\"} 1\n",
        "tepal_jobs_processed_total{model=\"iris\",outcome=\"failed\"} 1\n",
        "tepal_jobs_failed_total{model=\"iris\",code=\"model_rejected\"} 1\n",
        "tepal_jobs_failed_total{model=\"iris\",code=\"result_too_large\"} 0\n",
        "tepal_jobs_processed_total{model=\"iris\",outcome=\"completed\"} 1\n",
        "tepal_jobs_processed_total{model=\"iris\",outcome=\"released\"} 0\n",
        "tepal_inference_seconds_count{model=\"iris\",outcome=\"ok\"} 1\n",
        "tepal_inference_seconds_count{model=\"iris\",outcome=\"error\"} 2\n",
        "tepal_job_wait_seconds_count{model=\"iris\",priority=\"normal\"} 2\n",
        "tepal_worker_jobs_held{model=\"iris\"} 0\n",
        "tepal_jobs_reclaimed_total{model=\"iris\"} 0\n",
        "tepal_settle_repeats_total{model=\"iris\"} 0\n",
    ];
    let look = async || {
        let page = worker.metrics().await.text();
        let missing = expected.iter().find(|line| !page.contains(**line));
        missing.map_or(Ok(()), |line| Err(format!("no {line}{page}")))
    };
    tepal_tests::wait::eventually(SOON, "the counts", look).await;
}
