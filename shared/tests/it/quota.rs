//! Quotas: large inputs and results are charged as long as Redis keeps them, and small ones are free.

use std::{collections::BTreeMap, time::Duration};

use tepal_shared::{
    job::{Charge, Claim, Idempotency, JobId, JobStatus, LARGE_BYTES, NewJob, owner::View},
    queue::{
        Policy,
        intake::{Origin, Requeued, Submitted},
        work::Settlement,
    },
};

use crate::queue::{ANYONE, DONE, Queue, complete, fail, new_job};

/// Bytes of an input that counts.
pub(crate) const LARGE: u64 = 10_000;

fn charge(payer: &str, most_bytes: u64) -> Charge {
    Charge { payer: payer.into(), most_bytes }
}

/// A job with an input of this size, and the quota of its payer.
pub(crate) fn job(bytes: u64, payer: &str, most_bytes: u64) -> NewJob {
    NewJob { input: "1".repeat(bytes as usize).into(), charge: Some(charge(payer, most_bytes)), ..new_job() }
}

pub(crate) fn large() -> NewJob {
    job(LARGE, "a:x", 0)
}

pub(crate) fn result_of(bytes: u64) -> Settlement {
    Settlement::Complete("1".repeat(bytes as usize))
}

async fn submit(queue: &Queue, job: NewJob) -> Submitted {
    queue.store.intake.submit(JobId::new(0), job).await.unwrap()
}

async fn take_large(queue: &Queue) -> Claim {
    queue.submit_job(&large()).await;
    queue.take_one("w").await
}

/// The sum of each payer.
pub(crate) async fn sums(queue: &Queue) -> BTreeMap<String, u64> {
    queue.redis(&["HGETALL", &queue.store.queue.keys().quota(0)[1]]).await
}

pub(crate) async fn sum(queue: &Queue, payer: &str) -> u64 {
    sums(queue).await.get(payer).copied().unwrap_or(0)
}

pub(crate) async fn charges(queue: &Queue) -> Vec<String> {
    queue.redis(&["ZRANGE", &queue.store.queue.keys().quota(0)[0], "0", "-1"]).await
}

/// Time until the only charge is due, s; `None` until its job has ended.
async fn due_in(queue: &Queue) -> Option<u64> {
    let charges = charges(queue).await;
    assert_eq!(charges.len(), 1, "{charges:?}");
    let due: u64 = charges[0].split(' ').next().unwrap().parse().unwrap();
    let (now, _): (u64, u64) = queue.redis(&["TIME"]).await;
    (due != 9_999_999_999_999).then(|| due / 1000 - now)
}

/// Lets the time of all charges of ended jobs come.
pub(crate) async fn make_due(queue: &Queue) {
    let [key, ..] = queue.store.queue.keys().quota(0);
    for charge in charges(queue).await {
        let (due, rest) = charge.split_once(' ').unwrap();
        if due != "9999999999999" {
            queue.redis::<u64>(&["ZREM", &key, &charge]).await;
            queue.redis::<u64>(&["ZADD", &key, "0", &format!("0000000000001 {rest}")]).await;
        }
    }
}

fn is_about(seconds: Option<u64>, whole: Duration) -> bool {
    seconds.is_some_and(|seconds| (whole.as_secs() - 60..=whole.as_secs()).contains(&seconds))
}

pub(crate) async fn a_large_input_is_charged_until_its_job_completes(queue: &Queue) {
    queue.submit_job(&large()).await;
    queue.submit_job(&job(LARGE, "o:shop", 0)).await;
    assert_eq!(sums(queue).await, [("a:x".to_owned(), LARGE), ("o:shop".to_owned(), LARGE)].into());

    for attempt in queue.claims("w", 2).await {
        assert_eq!(queue.settle(&attempt, complete()).await, DONE);
        assert_eq!(queue.field(attempt.job_id, "charged").await, None);
    }

    assert_eq!((sums(queue).await, charges(queue).await), (BTreeMap::new(), vec![]));
}

pub(crate) async fn a_retry_and_a_release_change_no_charge(queue: &Queue) {
    let mut attempt = take_large(queue).await;
    for settlement in [Settlement::Release, Settlement::Retry(Duration::ZERO)] {
        assert_eq!(queue.settle(&attempt, settlement).await, DONE);
        assert_eq!((sum(queue, "a:x").await, due_in(queue).await), (LARGE, None));
        attempt = queue.take_one("w").await;
    }
}

pub(crate) async fn a_large_result_is_charged_until_it_expires(queue: &Queue) {
    // Its input is small, but its result may be large.
    queue.submit_job(&job(5, "a:x", 0)).await;
    queue.submit_job(&large()).await;
    assert_eq!(sum(queue, "a:x").await, LARGE);
    let granted = queue.claims("w", 2).await;
    assert_eq!(queue.settle(&granted[1], result_of(LARGE_BYTES as u64)).await, DONE);
    assert_eq!(sum(queue, "a:x").await, 0, "what is not larger than 8 KiB does not count");

    assert_eq!(queue.settle(&granted[0], result_of(LARGE_BYTES as u64 + 1)).await, DONE);

    assert_eq!(sum(queue, "a:x").await, LARGE_BYTES as u64 + 1);
    assert!(is_about(due_in(queue).await, queue.store.queue.policy().result_ttl));
    assert_eq!(queue.store.work.uncharge(0, 10).await.unwrap(), 0);
    make_due(queue).await;
    assert_eq!(queue.store.work.uncharge(0, 10).await.unwrap(), 1);
    assert_eq!((sums(queue).await, charges(queue).await), (BTreeMap::new(), vec![]));
}

pub(crate) async fn results_that_are_stored_at_once_are_charged_to_their_own_payers(queue: &Queue) {
    for job in [new_job(), job(5, "a:x", 0), job(LARGE, "a:y", 0), job(5, "a:z", 0)] {
        queue.submit_job(&job).await;
    }
    let attempts = queue.claims("w", 4).await;
    let sizes = [9_001, 9_002, 5, 9_004];
    let settlements: Vec<_> = attempts.into_iter().zip(sizes.map(result_of)).collect();
    queue.store.work.settle(&settlements).await.unwrap();
    assert_eq!(sums(queue).await, [("a:x".to_owned(), 9_002), ("a:z".to_owned(), 9_004)].into());
}

/// Ends a large job without a result, in each way.
async fn end(queue: &Queue, way: usize) {
    let attempt = take_large(queue).await;
    let id = attempt.job_id;
    match way {
        0 => assert_eq!(queue.settle(&attempt, fail()).await, DONE),
        1 => drop(queue.store.intake.cancel(id, View::All).await.unwrap()),
        2 => {
            queue.set_field(id, "run_deadline", "1").await;
            queue.store.intake.expire(id).await.unwrap();
        }
        _ => {
            queue
                .set_field(id, "lost", &(u64::from(queue.store.queue.policy().max_lost) - 1).to_string())
                .await;
            queue.age("w").await;
            assert_eq!(queue.take("w", 1).await.ended.len(), 1);
        }
    }
}

pub(crate) async fn a_kept_input_is_charged_until_it_expires(queue: &Queue) {
    for way in 0..4 {
        let queue = queue.another();
        queue.take("w", 1).await;

        end(&queue, way).await;

        assert_eq!(sum(&queue, "a:x").await, LARGE, "{way}");
        assert!(is_about(due_in(&queue).await, queue.store.queue.policy().failed_input_ttl), "{way}");
        make_due(&queue).await;
        assert_eq!(queue.store.work.uncharge(0, 10).await.unwrap(), 1);
        assert_eq!(sums(&queue).await, BTreeMap::new());
    }
}

pub(crate) async fn charges_are_dropped_as_many_as_asked_for(queue: &Queue) {
    for _ in 0..5 {
        end(queue, 1).await;
    }
    make_due(queue).await;
    let dropped = [queue.store.work.uncharge(0, 3).await, queue.store.work.uncharge(0, 3).await];
    assert_eq!(dropped.map(Result::unwrap), [3, 2]);
    assert_eq!(sums(queue).await, BTreeMap::new());
}

pub(crate) async fn who_keeps_as_much_as_it_may_is_refused_without_a_trace(queue: &Queue) {
    let most = 2 * LARGE;
    for _ in 0..2 {
        assert_eq!(submit(queue, job(LARGE, "a:x", most)).await, Submitted::Accepted);
    }
    let before = (queue.all_keys().await, sums(queue).await);

    // Also a job with a small input: its result may be large.
    for (bytes, most) in [(LARGE, most), (LARGE, most + LARGE - 1), (5, most - 1)] {
        let refused = submit(queue, job(bytes, "a:x", most)).await;
        assert_eq!(refused, Submitted::OverQuota { room_in: Some(Duration::ZERO) });
    }

    assert_eq!((queue.all_keys().await, sums(queue).await), before);
    assert_eq!(queue.outstanding().await, (2, 0));
    assert_eq!(submit(queue, job(LARGE, "o:x", most)).await, Submitted::Accepted, "another payer");
    assert_eq!(submit(queue, new_job()).await, Submitted::Accepted, "a small job");
    let attempt = queue.claims("w", 1).await.remove(0);
    assert_eq!(queue.settle(&attempt, complete()).await, DONE);
    assert_eq!(submit(queue, job(LARGE, "a:x", most)).await, Submitted::Accepted, "there is room again");
}

pub(crate) async fn a_refusal_says_when_there_may_be_room(queue: &Queue) {
    let refused = async || match submit(queue, job(LARGE, "a:x", LARGE)).await {
        Submitted::OverQuota { room_in } => room_in,
        other => panic!("{other:?}"),
    };
    end(queue, 1).await;
    let room_in = refused().await.map(|time| time.as_secs());
    assert!(is_about(room_in, queue.store.queue.policy().failed_input_ttl), "{room_in:?}");

    queue.submit_job(&large()).await;
    assert_eq!(refused().await, Some(Duration::ZERO), "its job may end at any moment");

    let [key, sums, _] = queue.store.queue.keys().quota(0);
    queue.redis::<u64>(&["DEL", &key]).await;
    assert_eq!(refused().await, None);
    queue.redis::<u64>(&["DEL", &sums]).await;
    assert_eq!(submit(queue, job(LARGE, "a:x", LARGE)).await, Submitted::Accepted);
}

pub(crate) async fn what_is_accepted_once_is_charged_once(queue: &Queue) {
    let keyed = |fingerprint: &str| NewJob {
        idempotency: Some(Idempotency { key_hash: "aa".to_owned(), fingerprint: fingerprint.to_owned() }),
        ..job(LARGE, "a:x", LARGE)
    };
    let id = JobId::new(0);
    for _ in 0..3 {
        assert_eq!(queue.store.intake.submit(id, keyed("bb")).await.unwrap(), Submitted::Accepted);
        assert_eq!(sum(queue, "a:x").await, LARGE);
    }

    let duplicate = Submitted::Duplicate { job_id: id, status: JobStatus::Pending };
    assert_eq!(submit(queue, keyed("bb")).await, duplicate);
    assert_eq!(submit(queue, keyed("cc")).await, Submitted::Conflict);

    assert_eq!((sum(queue, "a:x").await, charges(queue).await.len()), (LARGE, 1));
}

pub(crate) async fn each_job_of_a_call_is_charged_before_the_next(queue: &Queue) {
    let jobs: Vec<_> = (0..4).map(|_| (JobId::new(0), job(LARGE, "a:x", 2 * LARGE).into())).collect();
    let outcomes = queue.store.intake.submit_all(&jobs).await.unwrap();
    let over = Submitted::OverQuota { room_in: Some(Duration::ZERO) };
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Submitted::Accepted, Submitted::Accepted, over.clone(), over]);
}

pub(crate) async fn a_job_that_runs_again_is_charged_to_its_owner_or_to_who_asks(queue: &Queue) {
    let asks = charge("a:y", 2 * LARGE);
    let origin = Origin { charge: Some(&asks), ..ANYONE };
    for (owner, payer) in [(Some("shop"), "o:shop"), (None, "a:y")] {
        let old = queue.submit_job(&NewJob { owner: owner.map(str::to_owned), ..job(LARGE, "a:x", 0) }).await;
        queue.store.intake.cancel(old, View::All).await.unwrap();
        for room in [2, 1, 0] {
            let before = sum(queue, payer).await;
            let id = JobId::new(0);
            let requeued = queue.store.intake.requeue(old, id, origin).await.unwrap();
            if room == 0 {
                assert_eq!(requeued, Requeued::OverQuota { room_in: Some(Duration::ZERO) });
                assert_eq!(sum(queue, payer).await, before);
            } else {
                // Repeating it charges nothing.
                assert_eq!(queue.store.intake.requeue(old, id, origin).await.unwrap(), Requeued::Accepted);
                assert_eq!((requeued, sum(queue, payer).await), (Requeued::Accepted, before + LARGE));
            }
        }
    }
    assert_eq!(sum(queue, "a:x").await, 2 * LARGE, "the old inputs are kept, too");
}

pub(crate) async fn a_job_that_runs_again_may_have_a_large_result_again(queue: &Queue) {
    let old = queue.submit_job(&job(5, "a:x", 0)).await;
    queue.store.intake.cancel(old, View::All).await.unwrap();
    let small = queue.submit().await;
    queue.store.intake.cancel(small, View::All).await.unwrap();
    let asks = charge("a:y", 0);
    for old in [old, small] {
        let origin = Origin { charge: Some(&asks), ..ANYONE };
        assert_eq!(queue.store.intake.requeue(old, JobId::new(0), origin).await.unwrap(), Requeued::Accepted);
        assert_eq!(sums(queue).await, BTreeMap::new());
    }

    for attempt in queue.claims("w", 2).await {
        assert_eq!(queue.settle(&attempt, result_of(LARGE)).await, DONE);
    }

    assert_eq!(sums(queue).await, [("a:y".to_owned(), LARGE)].into(), "the payer of the other is unknown");
}

pub(crate) async fn without_a_charge_a_large_job_is_not_counted(queue: &Queue) {
    let old = queue.submit_job(&NewJob { charge: None, ..large() }).await;
    queue.store.intake.cancel(old, View::All).await.unwrap();
    assert_eq!(queue.store.intake.requeue(old, JobId::new(0), ANYONE).await.unwrap(), Requeued::Accepted);
    let attempt = queue.take_one("w").await;
    assert_eq!(queue.settle(&attempt, result_of(LARGE)).await, DONE);
    assert_eq!((sums(queue).await, charges(queue).await), (BTreeMap::new(), vec![]));
}

pub(crate) async fn the_life_of_a_small_job_takes_these_commands_and_no_others(queue: &Queue) {
    queue.submit_and_take("w").await;
    // A job that is accepted in the same millisecond as another takes one more TIME.
    let millisecond = async || {
        let (seconds, micros): (u64, u64) = queue.redis(&["TIME"]).await;
        seconds * 1000 + micros / 1000
    };
    let accepted = millisecond().await;
    while millisecond().await == accepted {}
    queue.redis::<String>(&["CONFIG", "RESETSTAT"]).await;
    let small = NewJob { input: "1".repeat(LARGE_BYTES).into(), ..new_job() };
    let id = queue.submit_job(&small).await;
    let attempt = queue.take_one("w").await;
    assert_eq!(queue.settle(&attempt, result_of(LARGE_BYTES as u64)).await, DONE);
    let stats: String = queue.redis(&["INFO", "commandstats"]).await;
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse::<u64>().ok()?))
    });
    let mut calls: BTreeMap<String, u64> = calls.collect();
    // Ours, and those that look after connections.
    for other in ["config|resetstat", "info", "hello", "cluster|slots"] {
        calls.remove(other);
    }
    let expected = [
        ("evalsha", 3),
        ("exists", 1),
        ("expire", 1),
        ("hdel", 1),
        ("hmget", 2),
        ("hset", 3),
        ("spublish", 2),
        ("time", 2),
        ("xack", 1),
        ("xadd", 2),
        ("xautoclaim", 3),
        ("xdel", 1),
        ("xlen", 3),
        ("xreadgroup", 3),
    ];
    assert_eq!(calls, expected.map(|(name, calls)| (name.to_owned(), calls)).into());
    let record: BTreeMap<String, String> = queue.redis(&["HGETALL", &queue.store.queue.keys().job(id)]).await;
    let fields: Vec<_> = record.keys().map(String::as_str).collect();
    assert_eq!(fields, ["at", "attempt", "m", "result", "status", "took_ms", "waited_ms"]);
    let keys = queue.store.queue.keys();
    let unused = keys.quota(0).into_iter().chain([keys.input(id)]);
    assert!(queue.all_keys().await.is_disjoint(&unused.collect()));
}

#[test]
fn an_input_is_kept_no_longer_than_its_job_by_default() {
    let policy = Policy::default();
    assert!(policy.failed_input_ttl <= policy.result_ttl);
}

as_tests![
    a_large_input_is_charged_until_its_job_completes,
    a_retry_and_a_release_change_no_charge,
    a_large_result_is_charged_until_it_expires,
    results_that_are_stored_at_once_are_charged_to_their_own_payers,
    a_kept_input_is_charged_until_it_expires,
    charges_are_dropped_as_many_as_asked_for,
    who_keeps_as_much_as_it_may_is_refused_without_a_trace,
    a_refusal_says_when_there_may_be_room,
    what_is_accepted_once_is_charged_once,
    each_job_of_a_call_is_charged_before_the_next,
    a_job_that_runs_again_is_charged_to_its_owner_or_to_who_asks,
    a_job_that_runs_again_may_have_a_large_result_again,
    without_a_charge_a_large_job_is_not_counted,
    the_life_of_a_small_job_takes_these_commands_and_no_others,
];
