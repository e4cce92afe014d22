//! How a job ends: once, in public, with a time to live and, if it failed, a dead letter.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use tepal_shared::{
    job::{Attempt, JobId, Priority},
    store::Settlement,
};
use tokio::time::timeout;

use crate::queue::{DONE, Queue, SOON, complete, fail, new_job};

/// Ends a job in each way; the status it then has.
async fn end(queue: &Queue, attempt: &Attempt, way: usize) -> &'static str {
    match way {
        0 => assert_eq!(queue.settle(attempt, complete()).await, DONE),
        1 => assert_eq!(queue.settle(attempt, fail()).await, DONE),
        2 => {
            queue.store.cancel(attempt.job_id).await.unwrap();
        }
        _ => {
            queue.set_field(attempt.job_id, "run_deadline", "1").await;
            queue.store.expire(attempt.job_id).await.unwrap();
        }
    }
    ["completed", "failed", "cancelled", "failed"][way]
}

pub(crate) async fn every_end_is_published_to_whoever_waits_for_it(queue: &Queue) {
    for way in 0..4 {
        let attempt = queue.submit_and_take("w").await;
        let channel = queue.store.keys().job(attempt.job_id);
        let mut subscription = queue.store.redis().pubsub().await.unwrap();
        subscription.subscribe(&channel).await.unwrap();

        let status = end(queue, &attempt, way).await;

        let message = timeout(SOON / 10, subscription.on_message().next()).await;
        let message: String = message.unwrap().unwrap().get_payload().unwrap();
        assert_eq!(message, status);
    }
}

pub(crate) async fn no_byte_of_a_job_changes_after_its_end(queue: &Queue) {
    for way in 0..4 {
        let attempt = queue.submit_and_take("w").await;
        end(queue, &attempt, way).await;
        let record = record(queue, attempt.job_id).await;

        for settlement in [complete(), fail(), Settlement::Retry(SOON), Settlement::Release] {
            queue.settle(&attempt, settlement).await;
        }
        let other = Settlement::Complete("{}".to_owned());
        queue.settle(&attempt, other).await;
        queue.renews("w", &attempt).await;
        queue.store.cancel(attempt.job_id).await.unwrap();
        queue.store.expire(attempt.job_id).await.unwrap();
        queue.store.submit(attempt.job_id, &new_job()).await.unwrap();
        queue.store.sweep(0, None, 100).await.unwrap();
        let stream = queue.store.keys().stream(0, Priority::Normal);
        queue.redis::<String>(&["XADD", &stream, "*", "id", &attempt.job_id.to_string()]).await;
        assert_eq!(queue.takeable("heir").await, []);

        assert_eq!(self::record(queue, attempt.job_id).await, record);
    }
}

async fn record(queue: &Queue, id: JobId) -> BTreeMap<String, String> {
    queue.redis(&["HGETALL", &queue.store.keys().job(id)]).await
}

pub(crate) async fn a_dead_letter_tells_what_failed_and_why(queue: &Queue) {
    let attempt = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Release).await, DONE);
    let attempt = queue.take_one("w").await;
    assert_eq!(queue.settle(&attempt, fail()).await, DONE);

    let dead: Vec<(String, BTreeMap<String, String>)> =
        queue.redis(&["XRANGE", &queue.store.keys().dead(0), "-", "+"]).await;

    let id = attempt.job_id.to_string();
    let expected = [("attempts", "1"), ("error_code", "invalid_argument"), ("id", &id)];
    let fields: Vec<_> = dead[0].1.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    assert_eq!(fields, expected);
    assert_eq!(queue.store.dead_letters(0).await.unwrap(), 1);
}

pub(crate) async fn dead_letters_are_kept_up_to_a_limit(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_dead_letters = 10);
    for _ in 0..250 {
        let attempt = queue.submit_and_take("w").await;
        assert_eq!(queue.settle(&attempt, fail()).await, DONE);
    }
    // Redis trims whole nodes, of 100 entries.
    let kept = queue.store.dead_letters(0).await.unwrap();
    assert!((10..=110).contains(&kept), "{kept}");
}

as_tests![
    every_end_is_published_to_whoever_waits_for_it,
    no_byte_of_a_job_changes_after_its_end,
    a_dead_letter_tells_what_failed_and_why,
    dead_letters_are_kept_up_to_a_limit,
];
