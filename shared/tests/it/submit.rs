//! Submissions: accepted once, refused without a trace, or recognised as a repetition.

use std::collections::HashSet;

use futures_util::future::join_all;
use tepal_shared::{
    job::{Delivery, Idempotency, JobId, JobStatus, NewJob, Priority, owner::View},
    queue::{
        error::StoreError,
        intake::{Origin, Requeued, Submitted},
        work::Settlement,
    },
};

use crate::queue::{ANYONE, DONE, INPUT, Queue, complete, fail, ids, model, new_job, stream};

/// A job with an idempotency key; `body` distinguishes requests.
fn keyed(key: &str, body: &str) -> NewJob {
    let idempotency = Some(Idempotency { key_hash: key.to_owned(), fingerprint: body.to_owned() });
    NewJob { idempotency, ..new_job() }
}

/// Submits under a new id.
async fn submit(queue: &Queue, job: &NewJob) -> (JobId, Submitted) {
    let id = JobId::new(0);
    (id, queue.store.intake.submit(id, job.clone()).await.unwrap())
}

async fn listed(queue: &Queue) -> Vec<JobId> {
    let page = queue.store.views.log(None, 1_000).await.unwrap();
    page.entries.into_iter().map(|entry| entry.id).collect()
}

pub(crate) async fn an_accepted_job_waits_and_is_listed_newest_first(queue: &Queue) {
    let ids = [queue.submit().await, queue.submit_at(Priority::High).await, queue.submit().await];

    for id in ids {
        assert_eq!(queue.state(id).await, "pending 0/0/0 new input");
    }
    assert_eq!(listed(queue).await, [ids[2], ids[1], ids[0]]);
    assert_eq!(queue.store.views.listed(&[]).await.unwrap(), []);
}

pub(crate) async fn a_job_waits_in_the_stream_of_its_priority(queue: &Queue) {
    for priority in Priority::ALL {
        let id = queue.submit_at(priority).await;
        let stream = queue.store.queue.keys().stream(0, stream(priority));
        assert_eq!(queue.redis::<u64>(&["XLEN", &stream]).await, 1, "{priority}");
        assert_eq!(queue.job(id).await.priority, priority);
    }
}

pub(crate) async fn repeating_a_submission_with_its_id_changes_nothing(queue: &Queue) {
    let id = queue.submit().await;
    let other = NewJob { input: "[[9.0]]".into(), priority: Priority::High, ..keyed("aa", "bb") };

    for job in [new_job(), other] {
        assert_eq!(queue.store.intake.submit(id, job).await.unwrap(), Submitted::Accepted);
    }

    assert_eq!(queue.field(id, "input").await.as_deref(), Some(INPUT));
    assert_eq!(queue.outstanding().await, (1, 0));
    assert_eq!(listed(queue).await, [id]);
}

pub(crate) async fn a_key_makes_one_job_whatever_became_of_it(queue: &Queue) {
    let job = keyed("aa", "bb");
    let (first, outcome) = submit(queue, &job).await;
    assert_eq!(outcome, Submitted::Accepted);
    let again = async |status| {
        let duplicate = Submitted::Duplicate { job_id: first, status };
        assert_eq!(submit(queue, &job).await.1, duplicate);
    };

    again(JobStatus::Pending).await;
    let attempt = queue.take_one("w").await;
    again(JobStatus::Processing).await;
    assert_eq!(queue.settle(&attempt, complete()).await, DONE);
    again(JobStatus::Completed).await;

    assert_eq!(queue.store.intake.submit(first, job).await.unwrap(), Submitted::Accepted);
    assert_eq!(queue.outstanding().await, (0, 0));
    assert_eq!(listed(queue).await, [first]);
}

pub(crate) async fn a_key_used_for_another_request_is_refused_without_a_trace(queue: &Queue) {
    submit(queue, &keyed("aa", "bb")).await;
    let before = queue.all_keys().await;

    let (_, outcome) = submit(queue, &keyed("aa", "cc")).await;

    assert_eq!(outcome, Submitted::Conflict);
    assert_eq!(queue.all_keys().await, before);
    assert_eq!(queue.outstanding().await, (1, 0));
    assert_eq!(submit(queue, &keyed("ab", "cc")).await.1, Submitted::Accepted);
}

pub(crate) async fn requests_with_one_key_at_the_same_time_make_one_job(queue: &Queue) {
    let job = keyed("aa", "bb");
    let outcomes = join_all((0..50).map(|_| submit(queue, &job))).await;

    let made: HashSet<_> = outcomes
        .into_iter()
        .map(|(id, outcome)| match outcome {
            Submitted::Accepted => id,
            Submitted::Duplicate { job_id, .. } => job_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(made.len(), 1);
    assert_eq!(queue.outstanding().await, (1, 0));
}

pub(crate) async fn a_key_is_remembered_as_long_as_its_job(queue: &Queue) {
    let owned = NewJob { owner: Some("shop".to_owned()), ..keyed("dd", "bb") };
    let (first, _) = submit(queue, &keyed("aa", "bb")).await;
    let (other, _) = submit(queue, &owned).await;
    let [record, others] = ["aa", "dd"].map(|key| queue.store.queue.keys().idempotency(0, key));
    for key in [&record, &others] {
        assert_eq!(
            queue.redis::<i64>(&["TTL", key]).await,
            -1,
            "it may end before a job that waits for long"
        );
    }
    queue.store.work.sweep(0, None, 100).await.unwrap();
    let duplicate = |job_id| Submitted::Duplicate { job_id, status: JobStatus::Pending };
    assert_eq!(submit(queue, &keyed("aa", "bb")).await.1, duplicate(first));

    // Its job has expired, so the key is free. The next job gets it before the sweep deletes the first from the log.
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(first)]).await;
    let (second, outcome) = submit(queue, &keyed("aa", "cc")).await;
    assert_eq!(outcome, Submitted::Accepted);
    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap().forgotten, 1);
    assert_eq!(submit(queue, &keyed("aa", "cc")).await.1, duplicate(second));

    for id in [second, other] {
        queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(id)]).await;
    }
    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap().forgotten, 2);
    assert_eq!(queue.redis::<u64>(&["EXISTS", &record, &others]).await, 0, "they stay for ever");
}

pub(crate) async fn the_limit_counts_every_job_that_has_not_ended(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 4);
    let running = queue.submit_and_take("w").await;
    let retried = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&retried, Settlement::Retry(queue.store.queue.policy().lease)).await, DONE);
    let high = queue.submit_at(Priority::High).await;
    queue.submit_at(Priority::Low).await;
    let before = queue.all_keys().await;

    let full = Submitted::Full { outstanding: 4 };
    assert_eq!(submit(&queue, &new_job()).await.1, full);
    assert_eq!(submit(&queue, &keyed("aa", "bb")).await.1, full);
    assert_eq!(queue.all_keys().await, before);
    assert_eq!(listed(&queue).await.len(), 4);
    // What was accepted stays so.
    assert_eq!(queue.store.intake.submit(high, new_job()).await.unwrap(), Submitted::Accepted);

    assert_eq!(queue.settle(&running, complete()).await, DONE);
    assert_eq!(submit(&queue, &keyed("aa", "bb")).await.1, Submitted::Accepted);
    assert_eq!(submit(&queue, &new_job()).await.1, full);
}

pub(crate) async fn a_key_finds_its_job_although_the_queue_is_full(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 1);
    let (first, _) = submit(&queue, &keyed("aa", "bb")).await;

    let duplicate = Submitted::Duplicate { job_id: first, status: JobStatus::Pending };
    assert_eq!(submit(&queue, &keyed("aa", "bb")).await.1, duplicate);
    assert_eq!(submit(&queue, &keyed("aa", "cc")).await.1, Submitted::Conflict);
}

pub(crate) async fn without_a_limit_the_queue_is_never_full(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 0);
    join_all((0..300).map(|_| queue.submit())).await;
    assert_eq!(queue.outstanding().await, (300, 0));
}

pub(crate) async fn a_failed_job_runs_again_as_a_new_one_and_keeps_its_own_record(queue: &Queue) {
    let old = queue.submit_job(&NewJob { priority: Priority::Low, ..new_job() }).await;
    let attempt = queue.take_one("w").await;
    assert_eq!(queue.settle(&attempt, fail()).await, DONE);
    let record = queue.job(old).await;

    let id = JobId::new(0);
    for _ in 0..3 {
        let requeued =
            queue.store.intake.requeue(old, id, Origin { request_id: Some("r-2"), ..ANYONE }).await.unwrap();
        assert_eq!(requeued, Requeued::Accepted);
    }

    assert_eq!(queue.job(old).await, record);
    let job = queue.job(id).await;
    assert_eq!((job.retry_of, job.priority, job.status), (Some(old), Priority::Low, JobStatus::Pending));
    assert_eq!(listed(queue).await, [id, old]);
    let Delivery { attempt: again, input } = queue.take_delivery("w").await;
    assert_eq!((again.claim.job_id, again.claim.token), (id, 1));
    assert_eq!((again.request_id.as_deref(), input), (Some("r-2"), new_job().input));
}

pub(crate) async fn a_full_queue_takes_no_repetition(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 1);
    let old = queue.submit().await;
    queue.store.intake.cancel(old, View::All).await.unwrap();
    queue.submit().await;
    let before = queue.all_keys().await;

    let requeued = queue.store.intake.requeue(old, JobId::new(0), ANYONE).await.unwrap();

    assert_eq!(requeued, Requeued::Full { outstanding: 1 });
    assert_eq!(queue.all_keys().await, before);
}

pub(crate) async fn short_memory_refuses_new_jobs_and_lets_every_other_script_work(queue: &Queue) {
    let mut running = Vec::new();
    for _ in 0..7 {
        running.push(queue.submit_and_take("w").await);
    }
    let (failed, delivered) = (running.pop().unwrap(), queue.submit().await);
    queue.deliver("us").await;
    let waiting = queue.submit().await;
    assert_eq!(queue.settle(&failed, fail()).await, DONE);
    let before = queue.all_keys().await;
    queue.redis::<String>(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let refused = queue.store.intake.submit(JobId::new(0), keyed("aa", "bb")).await;
    assert!(matches!(refused, Err(StoreError::OutOfMemory(_))), "{refused:?}");
    let refused = queue.store.intake.requeue(failed.job_id, JobId::new(0), ANYONE).await;
    assert!(matches!(refused, Err(StoreError::OutOfMemory(_))), "{refused:?}");
    assert_eq!(queue.all_keys().await, before);

    assert!(queue.renews("w", &running[0]).await);
    for (attempt, settlement) in running.iter().zip([
        complete(),
        fail(),
        Settlement::Retry(queue.store.queue.policy().lease),
        Settlement::Release,
    ]) {
        assert_eq!(queue.settle(attempt, settlement.clone()).await, DONE, "{settlement:?}");
    }
    queue.store.intake.cancel(running[4].job_id, View::All).await.unwrap();
    // Writing it past the store needs memory.
    queue.redis::<String>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    queue.set_field(running[5].job_id, "run_deadline", "1").await;
    queue.redis::<String>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    queue.store.intake.expire(running[5].job_id).await.unwrap();
    assert_eq!(
        ids(&queue.store.work.start(0, "us", &Priority::ALL.map(stream), usize::MAX).await.unwrap()),
        [delivered]
    );
    assert_eq!(queue.takeable("w").await, [running[3].job_id, waiting]);
    queue.store.work.heartbeat("w", "{}").await.unwrap();
    queue.store.work.publish(&[(model(), "{}".to_owned())]).await.unwrap();
    queue.store.work.sweep(0, None, 100).await.unwrap();
    queue.store.work.uncharge(0, 100).await.unwrap();
    queue.store.work.recount(0, 100).await.unwrap();
    queue.store.work.prune(0, &Priority::ALL.map(stream), &[], std::time::Duration::ZERO).await.unwrap();
    assert_eq!(queue.state(running[0].job_id).await, "completed 1/0/0 - result ttl");

    queue.redis::<String>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    queue.submit().await;
}

as_tests![
    an_accepted_job_waits_and_is_listed_newest_first,
    a_job_waits_in_the_stream_of_its_priority,
    repeating_a_submission_with_its_id_changes_nothing,
    a_key_makes_one_job_whatever_became_of_it,
    a_key_used_for_another_request_is_refused_without_a_trace,
    requests_with_one_key_at_the_same_time_make_one_job,
    a_key_is_remembered_as_long_as_its_job,
    the_limit_counts_every_job_that_has_not_ended,
    a_key_finds_its_job_although_the_queue_is_full,
    without_a_limit_the_queue_is_never_full,
    a_failed_job_runs_again_as_a_new_one_and_keeps_its_own_record,
    a_full_queue_takes_no_repetition,
    short_memory_refuses_new_jobs_and_lets_every_other_script_work,
];
