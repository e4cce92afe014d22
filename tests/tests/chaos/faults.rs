//! Runs with many faults.

use tepal_tests::chaos::{Faults, LARGE_BATCHES, NOT_READY, Options};

use crate::Run;

/// Seeds whose first seconds have killed and frozen workers, and kills of proxies and Redis.
const SEEDS: [u64; 2] = [1, 4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_faults_no_job_is_lost_or_doubled() {
    for seed in SEEDS {
        let (_run, report) =
            Run::until(10, seed, Faults::All, |report| report.hits() >= 10 && report.jobs() >= 400).await;
        let of_models = &report.verdict.by_model;
        assert!(of_models.len() == 3 && of_models.values().all(|jobs| jobs.completed > 0), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_server_that_is_not_ready_or_refuses_large_batches_fails_no_job() {
    for seconds in [20, 40, 80] {
        // Jobs must queue up: a batch is large only if its jobs waited.
        let only = |options: Options| Options { rate: 300.0, ..options.only(&[LARGE_BATCHES, NOT_READY]) };
        let run = Run::with(seconds, 31, only).await;
        let report = run.report().await;
        report.assert_holds();
        let failed = report.history.last.jobs.values().filter(|job| job.status() == "failed").count();
        assert_eq!(failed, 0, "{report}");
        let has_hit = |kind| report.faults.get(kind).is_some_and(|tallied| tallied.hit > 0);
        if has_hit(LARGE_BATCHES) && has_hit(NOT_READY) {
            return;
        }
        println!("too little happened in {seconds} s to show anything:\n{report}");
    }
    panic!("the faults hit nothing");
}
