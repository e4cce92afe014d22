//! A run in which nothing goes wrong: then nothing may have to be repaired, and nothing runs twice.

use tepal_tests::chaos;

use crate::options;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_nothing_is_repaired_and_no_lease_lapses() {
    let (_dir, options) = options(8, 11);

    let report = chaos::run(&options.without_faults()).await;

    report.assert_holds();
    let sum = |field| report.history.last.jobs.values().map(|job| job.number(field)).sum::<u64>();
    assert_eq!(report.history.last.repairs, 0, "{report}");
    assert_eq!((sum("lost"), sum("released"), report.verdict.ambiguous), (0, 0, 0), "{report}");
    assert!(report.jobs() >= 400, "too few jobs to show anything\n{report}");
}
