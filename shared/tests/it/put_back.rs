//! Jobs that a worker puts back: retries after a delay, and releases.

use std::time::{Duration, Instant};

use tepal_shared::queue::work::Settlement;
use tepal_tests::wait::eventually;

use crate::queue::{DONE, Queue, SOON, complete, fail, model};

pub(crate) async fn a_retry_is_due_after_its_delay_and_not_before(queue: &Queue) {
    let lease = queue.store.queue.policy().lease;
    let attempt = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Retry(lease * 3 / 4)).await, DONE);

    // The rest of the lease must pass.
    let idle = queue.idle(attempt.job_id, "waiting").await;
    assert!((lease / 4..lease / 2).contains(&idle), "{idle:?}");
    assert_eq!(queue.takeable("w").await, []);
    let job = queue.job(attempt.job_id).await;
    assert!(
        job.next_attempt_at_ms.unwrap() >= job.created_at_ms + lease.as_millis() as u64 * 3 / 4,
        "{job:?}"
    );

    queue.age("waiting").await;
    assert_eq!(queue.take_delivery("w").await.attempt.number(), 2);
}

pub(crate) async fn a_retry_becomes_due_by_itself(queue: &Queue) {
    let attempt = queue.submit_and_take("w").await;
    let delay = Duration::from_millis(150);
    let before_the_retry = Instant::now();
    assert_eq!(queue.settle(&attempt, Settlement::Retry(delay)).await, DONE);

    eventually(SOON, "the retry", async || queue.claims("w", 1).await.pop()).await;

    assert!(before_the_retry.elapsed() >= delay);
}

pub(crate) async fn a_delay_longer_than_the_lease_is_the_lease(queue: &Queue) {
    let lease = queue.store.queue.policy().lease;
    let attempt = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Retry(lease * 10)).await, DONE);

    assert!(queue.idle(attempt.job_id, "waiting").await < lease / 2);
    let job = queue.job(attempt.job_id).await;
    assert!(job.next_attempt_at_ms.unwrap() < job.created_at_ms + lease.as_millis() as u64 * 2, "{job:?}");
}

pub(crate) async fn a_release_uses_no_attempt(queue: &Queue) {
    let mut claim = queue.submit_and_take("w").await;
    for released in 1..=5 {
        assert_eq!(queue.settle(&claim, Settlement::Release).await, DONE);
        let attempt = queue.take_delivery("w").await.attempt;
        claim = attempt.claim;
        assert_eq!((claim.token, attempt.released, attempt.number()), (released + 1, released, 1));
    }
    assert_eq!(queue.job(claim.job_id).await.attempts, 1);
}

pub(crate) async fn calls_that_broke_off_are_counted_and_use_no_attempt(queue: &Queue) {
    queue.submit().await;
    let mut attempt = queue.take_delivery("w").await.attempt;
    for (settlement, broken) in [
        (Settlement::Release, 0),
        (Settlement::Broken, 1),
        (Settlement::Release, 1),
        (Settlement::Broken, 2),
        (Settlement::Retry(Duration::ZERO), 2),
    ] {
        let tried = attempt.number() + u64::from(matches!(settlement, Settlement::Retry(_)));
        // The answer to the first call was lost.
        for _ in 0..2 {
            assert_eq!(queue.settle(&attempt.claim, settlement.clone()).await, DONE);
        }
        attempt = queue.take_delivery("w").await.attempt;
        assert_eq!((attempt.broken, attempt.lost, attempt.number()), (broken, 0, tried), "{settlement:?}");
    }
}

pub(crate) async fn of_jobs_whose_lone_call_broke_off_one_runs_at_a_time(queue: &Queue) {
    let mut ids = vec![queue.submit().await, queue.submit().await, queue.submit().await];
    for _ in 0..2 {
        for attempt in queue.claims("w", 10).await.iter().take(2) {
            assert_eq!(queue.settle(attempt, Settlement::Broken).await, DONE);
        }
    }
    let third = ids.pop().unwrap();
    assert!(queue.state(third).await.starts_with("processing"), "one call that broke off is not enough");
    let first = queue.take_delivery("w").await.attempt;
    assert_eq!((first.claim.job_id, first.broken), (ids[0], 2));
    assert_eq!(queue.state(ids[1]).await, "pending 2/2/0 waiting input next");

    // Another worker must wait, too. A worker that reclaims the job of a dead one need not.
    queue.age("waiting").await;
    assert_eq!(queue.takeable("another").await, []);
    queue.age("w").await;
    queue.age("waiting").await;
    let heirs = queue.claims("another", 1_000).await;
    let heir = heirs.iter().find(|attempt| attempt.job_id == ids[0]).unwrap();
    assert!(heirs.iter().all(|attempt| attempt.job_id != ids[1]), "{heirs:?}");

    assert_eq!(queue.settle(heir, complete()).await, DONE);
    queue.age("waiting").await;
    assert_eq!(queue.take_one("w").await.job_id, ids[1]);
}

pub(crate) async fn repeating_a_settlement_changes_nothing(queue: &Queue) {
    let lease = queue.store.queue.policy().lease;
    for (settlement, after) in [
        (complete(), "completed 1/0/0 - result ttl"),
        (fail(), "failed 1/0/0 - error ttl dead kept"),
        (Settlement::Retry(lease), "pending 1/0/0 waiting input next"),
        (Settlement::Release, "pending 1/1/0 waiting input next"),
        (Settlement::Broken, "pending 1/1/0 waiting input next"),
    ] {
        let queue = queue.another();
        let attempt = queue.submit_and_take("w").await;
        for _ in 0..3 {
            assert_eq!(queue.settle(&attempt, settlement.clone()).await, DONE, "{settlement:?}");
            assert_eq!(queue.state(attempt.job_id).await, after);
        }
        let dead_letters: u64 = queue.redis(&["XLEN", &queue.store.queue.keys().dead(0, model())]).await;
        assert_eq!(dead_letters, u64::from(after.contains("dead")));
    }
}

as_tests![
    a_retry_is_due_after_its_delay_and_not_before,
    a_retry_becomes_due_by_itself,
    a_delay_longer_than_the_lease_is_the_lease,
    a_release_uses_no_attempt,
    calls_that_broke_off_are_counted_and_use_no_attempt,
    of_jobs_whose_lone_call_broke_off_one_runs_at_a_time,
    repeating_a_settlement_changes_nothing,
];
