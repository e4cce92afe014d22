//! Runs without faults: nothing may need repair, and nothing may run twice.

use tepal_tests::chaos::Faults;

use crate::Run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_nothing_is_repaired_and_no_lease_lapses() {
    let (_run, report) = Run::until(8, 11, Faults::None, |report| report.jobs() >= 400).await;

    let sum = |field| report.history.last.jobs.values().map(|job| job.number(field)).sum::<u64>();
    assert_eq!(report.history.last.repairs, 0, "{report}");
    assert_eq!((sum("lost"), sum("released"), report.verdict.ambiguous), (0, 0, 0), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_workers_uses_no_attempt() {
    // Every worker was stopped while it held jobs.
    let (_run, report) = Run::until(8, 12, Faults::RollingRestart, |report| report.hits() >= 4).await;

    assert_eq!((report.history.last.repairs, report.verdict.ambiguous), (0, 0), "{report}");
    // Jobs that a stopped worker released used no attempt, and no job waited for a lease.
    let jobs = report.history.last.jobs.values();
    let tries = jobs.map(|job| (job.number("attempt") - job.number("released"), job.number("lost")));
    assert_eq!(tries.filter(|tries| *tries > (1, 0)).count(), 0, "{report}");
}
