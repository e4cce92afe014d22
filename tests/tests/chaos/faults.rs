//! Runs in which much goes wrong.

use tepal_tests::chaos::Faults;

use crate::Run;

/// Seeds whose first seconds hold kills and zombies of workers, and kills of proxies and Redis.
const SEEDS: [u64; 2] = [1, 4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_faults_no_job_is_lost_or_doubled() {
    for seed in SEEDS {
        Run::until(10, seed, Faults::All, |report| report.hits() >= 10 && report.jobs() >= 400).await;
    }
}
