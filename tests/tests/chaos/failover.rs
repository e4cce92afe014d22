//! The run of `make failover`, without a fault.

use std::time::Duration;

use tepal_tests::failover::{self, Kind, Options};

use crate::TURN;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_no_job_is_lost_or_stuck() {
    let _turn = TURN.lock().await;
    let options = Options {
        kind: Kind::Sentinel,
        length: Duration::ZERO,
        replicas_required: 0,
        min_replicas: 0,
        seed: 1,
        only: Vec::new(),
        rate: 50.0,
        logs: None,
    };

    let report = failover::run(&options).await;

    assert!(report.holds(), "{report}");
}
