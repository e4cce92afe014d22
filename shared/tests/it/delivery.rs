//! Which jobs a worker claims, in which order and how many.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use redis::Value;
use tepal_shared::{
    job::{Claim, Delivery, JobId, NewJob, Priority},
    queue::{
        error::StoreError,
        work::{BlockingReader, ReadSettings, Settlement, TakeRequest},
    },
};

use tokio::time::{sleep, timeout};

use crate::{
    queue::{DONE, FROM_START, Queue, SOON, all, claims, complete, ids, new_job, stream},
    snapshot::Snapshot,
};

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);
const HIGH_FIRST: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
const LOW_FIRST: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

pub(crate) async fn jobs_come_by_priority_and_then_in_the_order_of_their_submission(queue: &Queue) {
    let mut submitted = Vec::new();
    for priority in [LOW_FIRST, HIGH_FIRST, LOW_FIRST].concat() {
        submitted.push((priority, queue.submit_at(priority).await));
    }

    let order = ids(&queue.take("w", 100).await);

    let of = |wanted| submitted.iter().filter(move |(priority, _)| *priority == wanted).map(|(_, id)| *id);
    assert_eq!(order, HIGH_FIRST.into_iter().flat_map(of).collect::<Vec<_>>());
}

pub(crate) async fn the_caller_may_turn_the_order_of_priorities_around(queue: &Queue) {
    let high = queue.submit_at(Priority::High).await;
    let low = queue.submit_at(Priority::Low).await;

    let granted =
        queue.store.work.take(&TakeRequest { streams: &LOW_FIRST.map(stream), ..all("w") }).await.unwrap();

    assert_eq!(ids(&granted), [low, high]);
    assert_eq!(
        claims(&granted).iter().map(|claim| claim.stream.priority).collect::<Vec<_>>(),
        [Priority::Low, Priority::High]
    );
}

pub(crate) async fn no_more_jobs_come_than_asked_for(queue: &Queue) {
    let submitted = join_all((0..60).map(|_| queue.submit())).await;

    let mut taken = Vec::new();
    for limit in [1, 5, 40, 40] {
        let granted = ids(&queue.take("w", limit).await);
        assert_eq!(granted.len(), limit.min(60 - taken.len()), "limit {limit}");
        taken.extend(granted);
    }

    assert_eq!(taken.iter().collect::<HashSet<_>>(), submitted.iter().collect());
}

pub(crate) async fn reading_stops_once_there_are_enough_bytes(queue: &Queue) {
    let submitted = submit_large(queue, 60).await;

    for taken in [0, 10, 20] {
        let granted = queue.store.work.take(&TakeRequest { max_bytes: 999, ..all("w") }).await.unwrap();
        assert_eq!(ids(&granted), submitted[taken..taken + 10]);
        assert_eq!(queue.outstanding().await, (60, taken as u64 + 10), "others are claimed");
    }

    assert_eq!(ids(&queue.take("w", 100).await), submitted[30..]);
}

/// Jobs of 100 bytes.
async fn submit_large(queue: &Queue, jobs: usize) -> Vec<JobId> {
    let job = NewJob { input: "1".repeat(100).into(), ..new_job() };
    let mut submitted = Vec::new();
    for _ in 0..jobs {
        submitted.push(queue.submit_job(&job).await);
    }
    submitted
}

pub(crate) async fn looking_for_due_jobs_stops_once_there_are_enough_bytes(queue: &Queue) {
    let submitted = submit_large(queue, 30).await;
    assert_eq!(queue.claims("dead", 100).await.len(), 30);
    queue.age("dead").await;

    let (mut cursors, mut found) = (FROM_START.to_vec(), Vec::new());
    while found.len() < 30 {
        let request = TakeRequest { max_bytes: 250, due_from: Some(&cursors), ..all("w") };
        let granted = queue.store.work.take(&request).await.unwrap();
        assert_eq!(granted.deliveries.len(), 3);
        found.extend(ids(&granted));
        cursors = granted.cursors;
        assert_eq!(owned_by(queue, "w", &submitted).await, found.len());
    }

    assert_eq!(found, submitted);
}

pub(crate) async fn starting_stops_once_there_are_enough_bytes(queue: &Queue) {
    queue.take("w", 1).await;
    let submitted = submit_large(queue, 5).await;
    for _ in &submitted {
        queue.deliver("w").await;
    }

    let granted = queue.store.work.start(0, "w", &Priority::ALL.map(stream), 150).await.unwrap();

    assert_eq!(ids(&granted), submitted[..2]);
    assert_eq!(queue.state(submitted[2]).await, "pending 0/0/0 waiting input");
    assert_eq!(ids(&queue.take("another", 10).await), submitted[2..]);
}

pub(crate) async fn a_user_without_the_right_to_undeliver_leaves_jobs_to_the_next_look(queue: &Queue) {
    let submitted = submit_large(queue, 6).await;
    queue.redis::<String>(&["ACL", "SETUSER", "default", "-xgroup|setid"]).await;

    let granted = queue.store.work.take(&TakeRequest { max_bytes: 150, ..all("w") }).await.unwrap();

    assert_eq!(ids(&granted), submitted[..2]);
    assert_eq!(ids(&queue.take("another", 10).await), submitted[2..]);
    queue.redis::<String>(&["ACL", "SETUSER", "default", "+xgroup|setid"]).await;
}

/// How many of the jobs' entries a consumer owns.
async fn owned_by(queue: &Queue, consumer: &str, jobs: &[JobId]) -> usize {
    let snapshot = Snapshot::read(queue, jobs).await;
    jobs.iter().filter(|id| snapshot.state(**id).contains(&format!(" {consumer} "))).count()
}

pub(crate) async fn what_is_due_again_comes_before_anything_new(queue: &Queue) {
    let due = queue.submit_at(Priority::Low).await;
    let attempt = queue.take_one("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Release).await, DONE);
    let new = queue.submit_at(Priority::High).await;

    assert_eq!(ids(&queue.take("w", 1).await), [due]);
    assert_eq!(ids(&queue.take("w", 1).await), [new]);
}

pub(crate) async fn what_is_due_waits_until_it_is_looked_for(queue: &Queue) {
    let attempt = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Release).await, DONE);

    let granted = queue.store.work.take(&TakeRequest { due_from: None, ..all("w") }).await.unwrap();
    assert_eq!(ids(&granted), []);
    assert_eq!(queue.takeable("w").await, [attempt.job_id]);
}

pub(crate) async fn a_missing_group_is_made_and_nothing_that_waits_is_skipped(queue: &Queue) {
    let first = queue.submit_at(Priority::High).await;
    let granted = queue.take("w", 10).await;
    assert_eq!((ids(&granted), granted.groups_created), (vec![first], 3));
    assert_eq!(queue.settle(&claims(&granted)[0], complete()).await, DONE);

    let waiting = [queue.submit_at(Priority::High).await, queue.submit_at(Priority::High).await];
    let stream = queue.store.queue.keys().stream(0, stream(Priority::High));
    queue.redis::<Value>(&["XGROUP", "DESTROY", &stream, "workers"]).await;

    let granted = queue.store.work.take(&TakeRequest { due_from: None, ..all("w") }).await.unwrap();
    assert_eq!((ids(&granted), granted.groups_created), (waiting.to_vec(), 1));
    assert_eq!(queue.take("w", 10).await.groups_created, 0);
}

pub(crate) async fn an_entry_without_an_outstanding_job_is_removed(queue: &Queue) {
    let keys = queue.store.queue.keys();
    let done = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&done, complete()).await, DONE);
    let running = queue.submit_and_take("w").await;
    let stream = keys.stream(0, stream(Priority::Normal));
    for id in [done.job_id, running.job_id, JobId::new(0)] {
        queue.redis::<String>(&["XADD", &stream, "*", "id", &id.to_string()]).await;
    }

    let granted = queue.take("w", 10).await;

    assert_eq!((ids(&granted), granted.stale), (vec![], 3));
    assert_eq!(queue.outstanding().await, (1, 1));
    assert_eq!(queue.state(done.job_id).await, "completed 1/0/0 - result ttl");
    assert_eq!(queue.state(running.job_id).await, "processing 1/0/0 w input");
}

pub(crate) async fn a_due_entry_behind_many_others_is_found_in_a_few_looks(queue: &Queue) {
    // A take of one job checks 32 times 10 pending entries.
    let last = join_all((0..700).map(|_| queue.submit())).await[699];
    assert_eq!(queue.claims("busy", 1_000).await.len(), 700);
    queue.age_job(last, "busy").await;

    let mut cursors = FROM_START.to_vec();
    let mut found = Vec::new();
    for _ in 0..3 {
        let request = TakeRequest { limit: 1, due_from: Some(&cursors), ..all("w") };
        let granted = queue.store.work.take(&request).await.unwrap();
        found.extend(ids(&granted));
        cursors = granted.cursors;
    }

    assert_eq!(found, [last]);
}

pub(crate) async fn a_look_that_did_not_come_to_a_stream_does_not_end_there(queue: &Queue) {
    let high = queue.submit_at(Priority::High).await;
    let normal = queue.submit().await;
    assert_eq!(queue.claims("busy", 10).await.len(), 2);
    for job in [high, normal] {
        queue.age_job(job, "busy").await;
    }

    // There is room for the first only.
    let mut request = TakeRequest { limit: 1, due_from: Some(&FROM_START), ..all("w") };
    let first = queue.store.work.take(&request).await.unwrap();
    assert_eq!(
        (ids(&first), &first.cursors[0], &first.cursors[1]),
        (vec![high], &"0-0".into(), &"0-1".into())
    );

    request.due_from = Some(&first.cursors);
    assert_eq!(ids(&queue.store.work.take(&request).await.unwrap()), [normal]);
}

pub(crate) async fn takes_at_the_same_time_share_no_job(queue: &Queue) {
    let submitted = join_all((0..100).map(|_| queue.submit())).await;

    let consumers: Vec<_> = (0..10).map(|number| format!("w-{number}")).collect();
    let granted = join_all(consumers.iter().map(|consumer| queue.take(consumer, 15))).await;

    let taken: Vec<_> = granted.iter().flat_map(ids).collect();
    assert_eq!(taken.len(), 100);
    assert_eq!(taken.into_iter().collect::<HashSet<_>>(), submitted.into_iter().collect());
}

pub(crate) async fn a_delivery_has_all_that_a_worker_needs(queue: &Queue) {
    let job = NewJob {
        timeout: Some(Duration::from_secs(60)),
        request_id: Some("r-1".to_owned()),
        traceparent: Some("00-1-2-01".to_owned()),
        ..new_job()
    };
    let id = queue.submit_job(&job).await;

    let Delivery { attempt, input } = queue.take_delivery("w").await;

    assert_eq!(
        (attempt.claim, input),
        (Claim { job_id: id, token: 1, stream: stream(Priority::Normal) }, job.input)
    );
    assert_eq!((attempt.released, attempt.lost, attempt.broken, attempt.number()), (0, 0, 0, 1));
    assert_eq!((attempt.request_id, attempt.traceparent), (job.request_id, job.traceparent));
    assert_eq!(attempt.time_left, job.timeout);
    assert!(attempt.age < SOON);
}

pub(crate) async fn a_job_from_the_future_is_zero_old(queue: &Queue) {
    // After a failover to a machine whose clock is behind.
    let id = queue.submit().await;
    queue.set_field(id, "at", "99999999999999").await;

    assert_eq!(queue.take_delivery("w").await.attempt.age, Duration::ZERO);
    assert_eq!(queue.field(id, "waited_ms").await.as_deref(), Some("0"));
}

/// A reader of the streams of a model, in partition 0.
pub(crate) fn reader_of(queue: &Queue, longest_block: Duration) -> BlockingReader {
    let settings = ReadSettings {
        partition: 0,
        consumer: "w".to_owned(),
        longest_block,
        longest_unendable_block: SHORT,
        max_bytes: usize::MAX,
    };
    BlockingReader::new(queue.store.work.clone(), settings, Priority::ALL.map(stream).into())
}

pub(crate) async fn an_entry_that_a_blocking_read_gave_is_started(queue: &Queue) {
    queue.take("w", 1).await;
    let mut reader = reader_of(queue, LONG);
    let (read, ids) = tokio::join!(reader.read(), async {
        [queue.submit_at(Priority::Low).await, queue.submit_at(Priority::Low).await]
    });

    assert_eq!(self::ids(&read.unwrap()), [ids[0]]);
    assert_eq!(queue.state(ids[0]).await, "processing 1/0/0 w input");
    assert_eq!(queue.state(ids[1]).await, "pending 0/0/0 new input");
}

pub(crate) async fn what_was_delivered_and_not_started_is_started_by_the_next_read(queue: &Queue) {
    // The connection broke in between.
    queue.take("w", 1).await;
    let id = queue.submit_at(Priority::High).await;
    assert!(queue.read("w", stream(Priority::High)).await);
    let gone = queue.store.queue.keys().stream(0, stream(Priority::Low));
    queue.redis::<u64>(&["XGROUP", "DESTROY", &gone, "workers"]).await;

    // Reading fails, and starting does not.
    let mut reader = reader_of(queue, SHORT);
    let started = reader.read().await.unwrap();

    assert_eq!(ids(&started), [id]);
}

pub(crate) async fn a_reader_does_without_the_scripts(queue: &Queue) {
    queue.take("w", 1).await;
    let id = queue.submit().await;
    queue.redis::<String>(&["SCRIPT", "FLUSH"]).await;

    let mut reader = reader_of(queue, SHORT);
    let started = reader.read().await.unwrap();

    assert_eq!(ids(&started), [id]);
}

pub(crate) async fn a_blocking_read_says_that_the_group_is_missing(queue: &Queue) {
    let mut reader = reader_of(queue, SHORT);

    assert!(matches!(reader.read().await, Err(StoreError::GroupMissing(_))));
    queue.take("w", 1).await;
    assert_eq!(ids(&reader.read().await.unwrap()), []);
}

pub(crate) async fn a_read_ends_when_it_is_asked_to_and_the_next_one_goes_on(queue: &Queue) {
    queue.take("w", 1).await;
    let mut reader = reader_of(queue, LONG);

    // The request to end it may overtake the read.
    for pause in [Duration::ZERO, SHORT] {
        let read = timeout(SOON, reader.read_until(sleep(pause))).await.expect("it ends early").unwrap();
        assert_eq!(ids(&read), []);
    }

    let (read, id) = tokio::join!(reader.read(), queue.submit());
    assert_eq!(ids(&read.unwrap()), [id]);
}

pub(crate) async fn a_reader_that_may_not_end_its_reads_blocks_for_a_short_time(queue: &Queue) {
    queue.take("w", 1).await;
    for (right, other) in [("client|id", "client|unblock"), ("client|unblock", "client|id")] {
        let rights = [format!("-{right}"), format!("+{other}")];
        queue.redis::<String>(&["ACL", "SETUSER", "default", &rights[0], &rights[1]]).await;
        let mut reader = reader_of(queue, LONG);
        let read = timeout(SOON, reader.read_until(async {})).await.expect("it ends early").unwrap();
        assert_eq!(ids(&read), []);
    }
    queue.redis::<String>(&["ACL", "SETUSER", "default", "+client|unblock"]).await;
}

pub(crate) async fn a_job_lives_in_the_partition_of_its_id(queue: &Queue) {
    let id = JobId::new(200);
    queue.store.intake.submit(id, new_job()).await.unwrap();

    assert_eq!(queue.takeable("w").await, []);
    let granted = queue.store.work.take(&TakeRequest { partition: 200, ..all("w") }).await.unwrap();
    assert_eq!(ids(&granted), [id]);
    assert_eq!(queue.settle(&claims(&granted)[0], complete()).await, DONE);
    assert!(queue.job(id).await.result.is_some());
}

as_tests![
    jobs_come_by_priority_and_then_in_the_order_of_their_submission,
    the_caller_may_turn_the_order_of_priorities_around,
    no_more_jobs_come_than_asked_for,
    reading_stops_once_there_are_enough_bytes,
    looking_for_due_jobs_stops_once_there_are_enough_bytes,
    starting_stops_once_there_are_enough_bytes,
    a_user_without_the_right_to_undeliver_leaves_jobs_to_the_next_look,
    what_is_due_again_comes_before_anything_new,
    what_is_due_waits_until_it_is_looked_for,
    a_missing_group_is_made_and_nothing_that_waits_is_skipped,
    an_entry_without_an_outstanding_job_is_removed,
    a_due_entry_behind_many_others_is_found_in_a_few_looks,
    a_look_that_did_not_come_to_a_stream_does_not_end_there,
    takes_at_the_same_time_share_no_job,
    a_delivery_has_all_that_a_worker_needs,
    a_job_from_the_future_is_zero_old,
    an_entry_that_a_blocking_read_gave_is_started,
    what_was_delivered_and_not_started_is_started_by_the_next_read,
    a_reader_does_without_the_scripts,
    a_blocking_read_says_that_the_group_is_missing,
    a_read_ends_when_it_is_asked_to_and_the_next_one_goes_on,
    a_reader_that_may_not_end_its_reads_blocks_for_a_short_time,
    a_job_lives_in_the_partition_of_its_id,
];
