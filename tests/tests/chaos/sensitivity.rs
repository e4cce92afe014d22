//! A checker that cannot fail proves nothing. Here the test does, on the running system, what a broken script
//! or a worker without a fence would do: each must be noticed.

use std::collections::BTreeSet;

use tepal_tests::chaos::{self, Faults, Stack, oracle};
use tepal_tests::history::{Event, History, Invariant, Outcome, Record, Rules, now_us};
use tepal_tests::wait::eventually;

use crate::Run;

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// The key of a completed job of `toy` other than `not`. The results of this model are small: they are in the field `result`.
async fn completed_job(stack: &Stack, not: &str) -> String {
    let look = async || {
        let keys = stack.redis.cli(&["KEYS", "{predict_queue:0}:job:*"]);
        let mut others = keys.lines().filter(|key| *key != not).map(str::to_owned);
        others.find(|key| stack.redis.cli(&["HMGET", key, "m", "status"]) == "toy\ncompleted")
    };
    eventually(SOON, "a completed job", look).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_result_a_lost_job_and_a_lost_entry_are_noticed() {
    let run = Run::new(6, 21, Faults::None).await;

    let report = chaos::run_with(&run.options, async |stack: &Stack| {
        // A frozen worker would do this if no token stopped it.
        let late = completed_job(stack, "").await;
        stack.redis.cli(&["HSET", &late, "result", r#"{"prediction":[0.5]}"#]);
        // A Redis that evicts would do this.
        stack.redis.cli(&["DEL", &completed_job(stack, &late).await]);
        // A second entry for a job that has ended, as a submit without its check would leave: it must vanish again.
        let stream = "{predict_queue:0}:stream:toy:normal";
        let id = late.rsplit(':').next().unwrap_or_default();
        stack.redis.cli(&["XADD", stream, "*", "id", id]);
    })
    .await;

    let breached: BTreeSet<Invariant> =
        report.verdict.violations.iter().map(|violation| violation.invariant).collect();
    assert!(breached.contains(&Invariant::I1), "the lost job went unnoticed\n{report}");
    assert!(breached.contains(&Invariant::I2), "the changed bytes went unnoticed\n{report}");
    assert!(breached.contains(&Invariant::I3), "the wrong result went unnoticed\n{report}");
    assert!(!breached.contains(&Invariant::I6), "the stray entry was not removed\n{report}");
    assert_eq!(report.verdict.all.lost, 1, "{report}");
}

/// The evidence of a real run, changed as a broken promise would have changed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_forged_record_among_all_of_a_run_is_noticed() {
    let run = Run::new(4, 22, Faults::None).await;
    let report = run.report().await;
    report.assert_holds();
    let done = |job: &&String| report.history.last.jobs[*job].status() == "completed";
    let id = report.history.last.jobs.keys().find(done).unwrap();
    let granted = report.history.last.jobs[id].number("attempt");

    let with = |event: Event| {
        let mut history = report.history.clone();
        history.records.push(Record::at(now_us(), event));
        history
    };
    let settled = |attempt| Event::Settled { id: id.clone(), attempt, outcome: Outcome::Completed };
    let breaks = |history: &History, invariant: Invariant| {
        let verdict = history.check(Rules::default(), oracle);
        assert!(verdict.breaches(invariant), "expected a breach of {invariant:?}\n{verdict}");
        verdict
    };
    // The late result of a zombie, stored.
    let doubled = breaks(&with(settled(granted + 1)), Invariant::I1);
    assert_eq!(doubled.all.doubled, 1);
    // The same token granted to two workers.
    breaks(&with(Event::Started { id: id.clone(), attempt: granted }), Invariant::I3);
    // A cancel that was acknowledged but not carried out.
    breaks(&with(Event::CancelAcked { id: id.clone() }), Invariant::I4);
    // A lost job.
    let mut lost = report.history.clone();
    lost.last.jobs.remove(id);
    assert_eq!(breaks(&lost, Invariant::I1).all.lost, 1);
    // A result that never expires.
    let mut immortal = report.history.clone();
    immortal.last.jobs.get_mut(id).unwrap().ttl_ms = None;
    breaks(&immortal, Invariant::I6);
    // An entry that nobody removes.
    let mut leaked = report.history.clone();
    leaked.last.streams.values_mut().next().unwrap().length = 1;
    breaks(&leaked, Invariant::I6);
}
