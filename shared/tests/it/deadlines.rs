//! Deadlines: a job's own limits of its time in the queue and of its run time.

use std::time::Duration;

use tepal_shared::{
    job::{JobId, JobStatus, NewJob},
    queue::{intake::Expired, work::Settlement},
};
use tepal_tests::wait::eventually;

use crate::queue::{DONE, Queue, SOON, complete, ended, ids, new_job};

const LONG_AGO: &str = "1";

async fn submit_limited(queue: &Queue) -> JobId {
    let (max_queue, timeout) = (Some(Duration::from_secs(100)), Some(Duration::from_secs(50)));
    queue.submit_job(&NewJob { max_queue, timeout, ..new_job() }).await
}

fn failed(code: &str) -> Expired {
    Expired::Failed(code.to_owned())
}

pub(crate) async fn a_job_that_waited_too_long_is_not_run(queue: &Queue) {
    let id = submit_limited(queue).await;
    queue.set_field(id, "queue_deadline", LONG_AGO).await;

    let granted = queue.take("w", 10).await;

    assert_eq!((ids(&granted), ended(&granted)), (vec![], vec![(id, "queue_timeout".to_owned())]));
    assert_eq!(queue.state(id).await, "failed 0/0/0 - error ttl dead kept");
}

pub(crate) async fn a_reader_sees_a_missed_deadline_without_any_worker(queue: &Queue) {
    let job = NewJob { max_queue: Some(Duration::from_millis(30)), ..new_job() };
    let id = queue.submit_job(&job).await;

    let expired = eventually(SOON, "the end of the wait", async || {
        match queue.store.intake.expire(id).await.unwrap() {
            Expired::Failed(code) => Some(code),
            _ => None,
        }
    });

    assert_eq!(expired.await, "queue_timeout");
    assert_eq!(queue.outstanding().await, (0, 0));
    assert_eq!(queue.store.intake.expire(id).await.unwrap(), Expired::Kept(JobStatus::Failed));
}

pub(crate) async fn a_job_within_its_limits_is_kept_and_shows_the_next_one(queue: &Queue) {
    let id = submit_limited(queue).await;
    let job = queue.job(id).await;
    assert_eq!(job.deadline_ms, Some(job.created_at_ms + 100_000));
    assert_eq!(queue.store.intake.expire(id).await.unwrap(), Expired::Kept(JobStatus::Pending));

    let attempt = queue.take_delivery("w").await.attempt;

    assert_eq!(attempt.time_left, Some(Duration::from_secs(50)));
    let job = queue.job(id).await;
    assert_eq!(job.deadline_ms, Some(job.started_at_ms.unwrap() + 50_000));
    assert_eq!(queue.store.intake.expire(id).await.unwrap(), Expired::Kept(JobStatus::Processing));
    assert_eq!(queue.settle(&attempt.claim, complete()).await, DONE);
    assert_eq!(queue.job(id).await.deadline_ms, None);
    assert_eq!(queue.state(id).await, "completed 1/0/0 - result ttl");
}

pub(crate) async fn the_longest_limits_are_never_reached(queue: &Queue) {
    let job = NewJob { max_queue: Some(Duration::MAX), timeout: Some(Duration::MAX), ..new_job() };
    let id = queue.submit_job(&job).await;
    assert_eq!(queue.store.intake.expire(id).await.unwrap(), Expired::Kept(JobStatus::Pending));

    let attempt = queue.take_delivery("w").await.attempt;

    assert!(attempt.time_left > Some(Duration::from_secs(1 << 40)), "{:?}", attempt.time_left);
    assert_eq!(queue.store.intake.expire(id).await.unwrap(), Expired::Kept(JobStatus::Processing));
}

pub(crate) async fn the_queue_limit_ends_with_the_first_attempt(queue: &Queue) {
    let id = submit_limited(queue).await;
    let attempt = queue.take_one("w").await;
    queue.set_field(id, "queue_deadline", LONG_AGO).await;
    assert_eq!(queue.settle(&attempt, Settlement::Release).await, DONE);

    assert_eq!(queue.store.intake.expire(id).await.unwrap(), Expired::Kept(JobStatus::Pending));
    assert_eq!(queue.takeable("w").await, [id]);
}

pub(crate) async fn the_run_time_begins_once_and_goes_on_over_retries(queue: &Queue) {
    let id = submit_limited(queue).await;
    let first = queue.take_one("w").await;
    let (waited, deadline) = (queue.field(id, "waited_ms").await, queue.field(id, "run_deadline").await);
    assert_eq!(queue.settle(&first, Settlement::Retry(Duration::ZERO)).await, DONE);
    queue.set_field(id, "waited_ms", "1000").await;

    let second = queue.take_delivery("w").await.attempt;

    assert!(waited.is_some() && deadline.is_some());
    assert_eq!(queue.field(id, "waited_ms").await.as_deref(), Some("1000"));
    assert_eq!(queue.field(id, "run_deadline").await, deadline);
    assert!(second.time_left.unwrap() <= Duration::from_secs(50));
}

pub(crate) async fn a_job_that_ran_too_long_is_not_tried_again(queue: &Queue) {
    for settlement in [Settlement::Release, Settlement::Retry(Duration::ZERO)] {
        let id = submit_limited(queue).await;
        let attempt = queue.take_one("w").await;
        assert_eq!(queue.settle(&attempt, settlement).await, DONE);
        queue.set_field(id, "run_deadline", LONG_AGO).await;

        let granted = queue.take("w", 10).await;

        assert_eq!((ids(&granted), ended(&granted)), (vec![], vec![(id, "timeout".to_owned())]));
        assert_eq!(queue.job(id).await.error_code.as_deref(), Some("timeout"));
    }
}

pub(crate) async fn a_job_that_ran_too_long_ends_under_its_worker(queue: &Queue) {
    let id = submit_limited(queue).await;
    let attempt = queue.take_one("w").await;
    queue.set_field(id, "run_deadline", LONG_AGO).await;

    assert_eq!(queue.store.intake.expire(id).await.unwrap(), failed("timeout"));

    assert!(!queue.renews("w", &attempt).await);
    assert_ne!(queue.settle(&attempt, complete()).await, DONE);
    assert_eq!(queue.state(id).await, "failed 1/0/0 - error ttl dead kept");
}

pub(crate) async fn a_lost_job_whose_time_is_over_times_out(queue: &Queue) {
    let id = submit_limited(queue).await;
    queue.take_one("w").await;
    queue.set_field(id, "run_deadline", LONG_AGO).await;
    queue.age("w").await;

    let granted = queue.take("heir", 10).await;

    assert_eq!((granted.reclaimed.len(), ended(&granted)), (1, vec![(id, "timeout".to_owned())]));
    assert_eq!(queue.state(id).await, "failed 1/0/1 - error ttl dead kept");
}

as_tests![
    a_job_that_waited_too_long_is_not_run,
    a_reader_sees_a_missed_deadline_without_any_worker,
    a_job_within_its_limits_is_kept_and_shows_the_next_one,
    the_longest_limits_are_never_reached,
    the_queue_limit_ends_with_the_first_attempt,
    the_run_time_begins_once_and_goes_on_over_retries,
    a_job_that_ran_too_long_is_not_tried_again,
    a_job_that_ran_too_long_ends_under_its_worker,
    a_lost_job_whose_time_is_over_times_out,
];
