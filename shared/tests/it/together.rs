//! Concurrent submissions: they share script calls, and each has its own outcome.

use std::{cell::Cell, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tepal_shared::{
    job::{Idempotency, JobId, NewJob},
    queue::{error::StoreError, intake::Submitted, link::ConnectionSettings, work::TakeRequest},
};
use tepal_tests::wait::eventually;

use crate::queue::{Queue, SOON, all, ids, new_job};

/// Submits all of them at the same time.
async fn submit(queue: &Queue, jobs: Vec<NewJob>) -> Vec<(JobId, Result<Submitted, StoreError>)> {
    let submit = async |job| {
        let id = JobId::new(0);
        (id, queue.store.intake.submit(id, job).await)
    };
    join_all(jobs.into_iter().map(submit)).await
}

fn keyed(key: &str) -> NewJob {
    let idempotency = Some(Idempotency { key_hash: key.to_owned(), fingerprint: "bb".to_owned() });
    NewJob { idempotency, ..new_job() }
}

/// How many script calls the server has executed.
fn calls(queue: &Queue) -> u64 {
    queue.server().calls("evalsha")
}

/// Number of script calls that accept these jobs at the same time.
async fn calls_for(queue: &Queue, jobs: Vec<NewJob>) -> u64 {
    submit(queue, vec![new_job()]).await;
    let before = calls(queue);
    for (_, outcome) in submit(queue, jobs).await {
        assert_eq!(outcome.unwrap(), Submitted::Accepted);
    }
    calls(queue) - before
}

pub(crate) async fn they_share_a_call_and_keep_their_order(queue: &Queue) {
    assert_eq!(calls_for(queue, vec![new_job(); 16]).await, 1);

    let waiting = queue.takeable("w").await;
    assert_eq!(waiting.len(), 17);
    assert!(waiting.is_sorted(), "{waiting:?}");
}

fn of_bytes(bytes: usize) -> NewJob {
    NewJob { input: format!("[[{}1.0]]", " ".repeat(bytes)).into(), ..new_job() }
}

pub(crate) async fn a_small_job_does_not_wait_for_large_ones(queue: &Queue) {
    let ended = Cell::new(0);
    let large = join_all((0..40).map(|_| async {
        let outcome = queue.store.intake.submit(JobId::new(0), of_bytes(1 << 20)).await;
        ended.set(ended.get() + 1);
        outcome
    }));
    let small = async {
        let outcome = queue.store.intake.submit(JobId::new(0), new_job()).await;
        (outcome, ended.get())
    };
    let (large, (small, had_ended)) = tokio::join!(biased; large, small);
    assert!(had_ended < 20, "{had_ended}");
    for outcome in large.into_iter().chain([small]) {
        assert_eq!(outcome.unwrap(), Submitted::Accepted);
    }
}

pub(crate) async fn the_jobs_of_a_batch_keep_their_order_whatever_their_size(queue: &Queue) {
    let sizes = (0..12).map(|number| if number % 2 == 0 { 1 } else { 100 << 10 });
    let jobs: Vec<_> = sizes.map(|bytes| (JobId::new(0), Arc::new(of_bytes(bytes)))).collect();
    for outcome in queue.store.intake.submit_all(&jobs).await.unwrap() {
        assert_eq!(outcome.unwrap(), Submitted::Accepted);
    }
    assert!(queue.takeable("w").await.into_iter().eq(jobs.iter().map(|(id, _)| *id)));
}

pub(crate) async fn a_call_is_of_16_jobs_or_of_a_mebibyte(queue: &Queue) {
    assert_eq!(calls_for(queue, vec![new_job(); 33]).await, 3);
    assert_eq!(calls_for(queue, vec![of_bytes(600 << 10); 5]).await, 3);
    assert_eq!(
        calls_for(queue, vec![new_job(), of_bytes(100 << 10), of_bytes(100 << 10), new_job()]).await,
        3
    );
}

pub(crate) async fn each_partition_has_a_call_of_its_own(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.partitions = 2);
    let job = Arc::new(new_job());
    let jobs = [0, 1, 0, 1].map(|partition| (JobId::new(partition), Arc::clone(&job)));

    let outcomes = queue.store.intake.submit_all(&jobs).await.unwrap();

    assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap() == &Submitted::Accepted), "{outcomes:?}");
    for partition in [0, 1] {
        let granted = queue.store.work.take(&TakeRequest { partition, ..all("w") }).await.unwrap();
        let expected: Vec<_> =
            jobs.iter().map(|(id, _)| *id).filter(|id| id.partition() == partition).collect();
        assert_eq!(ids(&granted), expected);
    }
}

pub(crate) async fn a_list_of_jobs_waits_in_its_order(queue: &Queue) {
    let settings = ConnectionSettings::new(&queue.servers.url()).unwrap().with_patience(SOON);
    for round in 0..15 {
        let queue = match round % 3 {
            0 => queue.another(),
            1 => {
                queue.redis::<()>(&["SCRIPT", "FLUSH"]).await;
                queue.another()
            }
            _ => queue.another().over(settings.clone()),
        };
        let job = Arc::new(new_job());
        let jobs: Vec<_> = (0..1_000).map(|_| (JobId::new(0), Arc::clone(&job))).collect();

        let outcomes = queue.store.intake.submit_all(&jobs).await.unwrap();

        assert_eq!(outcomes.len(), 1_000);
        let waiting = queue.takeable("w").await;
        assert_eq!(waiting, jobs.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "round {round}");
    }
}

pub(crate) async fn no_more_of_them_are_accepted_than_the_queue_has_room_for(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 3);
    queue.submit().await;

    let outcomes = submit(&queue, vec![new_job(); 5]).await;

    let full = || Submitted::Full { outstanding: 3 };
    let expected = [Submitted::Accepted, Submitted::Accepted, full(), full(), full()];
    assert_eq!(outcomes.into_iter().map(|(_, outcome)| outcome.unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(queue.outstanding().await, (3, 0));
}

pub(crate) async fn what_is_wrong_with_one_is_not_the_others_trouble(queue: &Queue) {
    let broken = queue.store.queue.keys().idempotency(0, "cc");
    queue.redis::<u64>(&["SADD", &broken, "no record"]).await;
    let odd = JobId::new(0);
    queue.redis::<u64>(&["HSET", &queue.store.queue.keys().job(odd), "status", "paused"]).await;
    queue.redis::<()>(&["SET", &queue.store.queue.keys().idempotency(0, "dd"), &format!("bb {odd}")]).await;
    let jobs = vec![new_job(), keyed("aa"), keyed("cc"), keyed("aa"), keyed("dd"), new_job()];

    let outcomes = submit(queue, jobs).await;

    let mut accepted = Vec::new();
    for (number, (id, outcome)) in outcomes.into_iter().enumerate() {
        match (number, outcome) {
            (2, Err(StoreError::Refused(error))) => assert_eq!(error.code(), Some("WRONGTYPE")),
            (3, Ok(Submitted::Duplicate { job_id, .. })) => assert_eq!(job_id, accepted[1]),
            (4, Err(StoreError::Protocol { .. })) => {}
            (0 | 1 | 5, Ok(Submitted::Accepted)) => accepted.push(id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(queue.takeable("w").await, accepted);
}

pub(crate) async fn a_key_that_one_may_not_use_is_not_the_others_trouble(queue: &Queue) {
    queue.redis::<()>(&["ACL", "SETUSER", "u", "on", ">p", "+@all", "~*", "&*"]).await;
    let settings = ConnectionSettings::new(&queue.servers.url().replacen("://", "://u:p@", 1)).unwrap();
    let limited = Queue::with_settings(&queue.servers, settings).await;
    let prefix = limited.store.queue.keys().job_prefix(0);
    let ours = prefix.split_once("job:").unwrap().0;
    let rules = ["job:*", "stream:*", "log"].map(|rest| format!("~{ours}{rest}"));
    queue.redis::<()>(&["ACL", "SETUSER", "u", "resetkeys", &rules[0], &rules[1], &rules[2]]).await;

    let outcomes = submit(&limited, vec![new_job(), keyed("aa"), new_job()]).await;

    let [
        (first, Ok(Submitted::Accepted)),
        (_, Err(StoreError::Forbidden(_))),
        (last, Ok(Submitted::Accepted)),
    ] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    queue.redis::<()>(&["ACL", "SETUSER", "u", "~*"]).await;
    assert_eq!(limited.takeable("w").await, [*first, *last]);
}

/// A shared call that fails part-way has stored some jobs. Redis may be full when the jobs are submitted again.
pub(crate) async fn a_job_that_is_stored_is_never_said_to_be_refused(queue: &Queue) {
    let large = of_bytes(900 << 10);
    let other = NewJob { input: of_bytes(100 << 10).input, ..keyed("cc") };
    let mut unknown = 0;
    for limit_kib in (1_000..8_000).step_by(250) {
        let queue = queue.another();
        queue.redis::<()>(&["FLUSHALL"]).await;
        queue.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
        queue.submit().await;
        let broken = queue.store.queue.keys().idempotency(0, "cc");
        queue.redis::<u64>(&["SADD", &broken, "no record"]).await;
        let used: u64 = queue.server().info("used_memory").unwrap().parse().unwrap();
        let limit = used + (limit_kib << 10);
        queue.redis::<()>(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;

        let (id, outcome) = submit(&queue, vec![large.clone(), other.clone()]).await.remove(0);

        let is_stored = queue.redis::<u64>(&["EXISTS", &queue.store.queue.keys().job(id)]).await == 1;
        match outcome {
            Ok(Submitted::Accepted) => assert!(is_stored, "{limit_kib}"),
            Err(StoreError::Ambiguous(_)) => unknown += 1,
            other => assert!(!is_stored, "{limit_kib}: {other:?}"),
        }
    }
    queue.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(unknown > 0, "memory never ran short between the two calls");
}

pub(crate) async fn a_job_whose_client_is_gone_is_not_kept_for_a_redis_that_is_away(queue: &Queue) {
    let free = format!("redis://127.0.0.1:{}", tepal_tests::ports::free_port());
    let settings = ConnectionSettings::new(&free).unwrap().with_patience(10 * SOON);
    let away = queue.over(settings);
    let jobs = [new_job(), new_job()].map(Arc::new);
    let submissions = jobs.each_ref().map(|job| away.store.intake.submit(JobId::new(0), Arc::clone(job)));
    let clients = tokio::time::timeout(Duration::from_millis(50), join_all(submissions));
    assert!(clients.await.is_err());

    let forgotten = async || jobs.iter().all(|job| Arc::strong_count(job) == 1);
    eventually(SOON, "the jobs to be forgotten", forgotten).await;
}

/// There, a task that another task wakes runs next, so each submission would be sent before the next one is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn those_of_several_tasks_share_a_call_too() {
    let queue = Queue::start().await;
    submit(&queue, vec![new_job()]).await;
    let before = calls(&queue);
    let store = queue.store.clone();
    let tasks = tokio::spawn(async move {
        let submit = |_| {
            let store = store.clone();
            tokio::spawn(async move { store.intake.submit(JobId::new(0), new_job()).await.unwrap() })
        };
        join_all((0..16).map(submit).collect::<Vec<_>>()).await
    });

    assert!(tasks.await.unwrap().iter().all(|outcome| outcome.as_ref().unwrap() == &Submitted::Accepted));
    let made = calls(&queue) - before;
    assert!(made <= 2, "{made} calls");
}

as_tests![
    they_share_a_call_and_keep_their_order,
    a_call_is_of_16_jobs_or_of_a_mebibyte,
    a_small_job_does_not_wait_for_large_ones,
    the_jobs_of_a_batch_keep_their_order_whatever_their_size,
    each_partition_has_a_call_of_its_own,
    a_list_of_jobs_waits_in_its_order,
    no_more_of_them_are_accepted_than_the_queue_has_room_for,
    what_is_wrong_with_one_is_not_the_others_trouble,
    a_key_that_one_may_not_use_is_not_the_others_trouble,
    a_job_that_is_stored_is_never_said_to_be_refused,
    a_job_whose_client_is_gone_is_not_kept_for_a_redis_that_is_away,
];
