//! Leases: lapsed ones, renewals, and zombies.

use std::time::{Duration, Instant};

use tepal_shared::{
    job::{Claim, JobId, Priority, owner::View},
    queue::{
        views::QueueState,
        work::{Fence, Settled, Settlement},
    },
};
use tepal_tests::wait::eventually;

use crate::queue::{DONE, Queue, SOON, complete, ended, fail, ids, model, stream};

const LOST: Settled = Settled::Fenced(Fence::Lost);

/// One settlement of each kind.
fn every_settlement() -> [Settlement; 4] {
    [complete(), fail(), Settlement::Retry(Duration::ZERO), Settlement::Release]
}

/// A job that `zombie` held, and then `heir` took over.
async fn taken_over(queue: &Queue) -> (Claim, Claim) {
    let zombie = queue.submit_and_take("zombie").await;
    queue.age("zombie").await;
    let heir = queue.take_one("heir").await;
    (zombie, heir)
}

pub(crate) async fn a_job_whose_lease_lapsed_goes_to_another_worker(queue: &Queue) {
    let id = queue.submit_and_take("zombie").await.job_id;
    queue.age("zombie").await;

    let granted = queue.take("heir", 10).await;

    let heir = &granted.deliveries[0].attempt;
    assert_eq!((heir.claim.job_id, heir.claim.token), (id, 2));
    assert_eq!((heir.lost, heir.number(), granted.reclaimed.len()), (1, 1, 1));
    assert_eq!(queue.settle(&heir.claim, complete()).await, DONE);
    assert_eq!(queue.state(id).await, "completed 2/0/1 - result ttl");
}

pub(crate) async fn a_lease_lapses_by_itself_but_not_early(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.lease = Duration::from_millis(300));
    queue.submit().await;
    let before_the_grant = Instant::now();
    queue.take_one("zombie").await;

    let reclaimed =
        eventually(SOON, "the lapsed lease", async || queue.take("heir", 1).await.deliveries.pop());
    assert_eq!(reclaimed.await.attempt.lost, 1);
    assert!(before_the_grant.elapsed() >= Duration::from_millis(300));
}

pub(crate) async fn a_lease_that_is_renewed_does_not_lapse(queue: &Queue) {
    let attempt = queue.submit_and_take("w").await;
    queue.age("w").await;

    assert!(queue.renews("w", &attempt).await);

    assert!(queue.idle(attempt.job_id, "w").await < queue.store.queue.policy().lease);
    assert_eq!(queue.takeable("heir").await, []);
}

pub(crate) async fn renewing_names_exactly_the_jobs_that_must_be_stopped(queue: &Queue) {
    let (lost, _) = taken_over(queue).await;
    let cancelled = queue.submit_and_take("zombie").await;
    queue.store.intake.cancel(cancelled.job_id, View::All).await.unwrap();
    let held = queue.submit_and_take("zombie").await;
    queue.age("zombie").await;
    let missing = JobId::new(0);

    let all = [lost.job_id, cancelled.job_id, held.job_id, missing].map(|job_id| Claim {
        job_id,
        token: 1,
        stream: stream(Priority::Normal),
    });
    let gone = queue.store.work.renew(0, "zombie", &all).await.unwrap();

    let expected =
        [(lost.job_id, Fence::Lost), (cancelled.job_id, Fence::Cancelled), (missing, Fence::Missing)];
    assert_eq!(gone, expected);
    assert_eq!(queue.takeable("heir").await, []);
}

pub(crate) async fn a_zombie_cannot_settle_its_job(queue: &Queue) {
    let (zombie, heir) = taken_over(queue).await;

    for settlement in every_settlement() {
        assert_eq!(queue.settle(&zombie, settlement.clone()).await, LOST, "{settlement:?}");
        assert_eq!(queue.state(heir.job_id).await, "processing 2/0/1 heir input", "{settlement:?}");
    }
}

pub(crate) async fn a_zombie_cannot_take_its_job_back_by_renewing(queue: &Queue) {
    let (zombie, heir) = taken_over(queue).await;

    assert!(!queue.renews("zombie", &zombie).await);

    assert_eq!(queue.state(heir.job_id).await, "processing 2/0/1 heir input");
}

pub(crate) async fn an_attempt_that_gave_its_job_back_cannot_end_it(queue: &Queue) {
    let attempt = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Retry(Duration::ZERO)).await, DONE);

    assert_eq!(queue.settle(&attempt, complete()).await, LOST);
    assert_eq!(queue.settle(&attempt, fail()).await, LOST);

    assert_eq!(queue.state(attempt.job_id).await, "pending 1/0/0 waiting input next");
}

pub(crate) async fn a_worker_that_slept_past_its_delivery_starts_nothing(queue: &Queue) {
    queue.take("w", 1).await;
    let id = queue.submit().await;
    queue.deliver("sleeper").await;
    queue.age("sleeper:inbox").await;
    let heir = queue.take_one("heir").await;
    assert_eq!(queue.settle(&heir, Settlement::Release).await, DONE);

    let granted = queue.store.work.start(0, "sleeper", &Priority::ALL.map(stream), usize::MAX).await.unwrap();

    assert_eq!(ids(&granted), []);
    assert_eq!(queue.state(id).await, "pending 1/1/0 waiting input next");
}

pub(crate) async fn the_lease_of_a_started_job_begins_with_its_start(queue: &Queue) {
    queue.take("w", 1).await;
    let id = queue.submit().await;
    queue.deliver("slow").await;
    queue.age("slow:inbox").await;

    let granted = queue.store.work.start(0, "slow", &Priority::ALL.map(stream), usize::MAX).await.unwrap();

    assert_eq!(ids(&granted), [id]);
    assert_eq!(queue.takeable("heir").await, []);
}

pub(crate) async fn repeating_a_start_grants_nothing_twice(queue: &Queue) {
    queue.take("w", 1).await;
    let id = queue.submit().await;
    queue.deliver("w").await;
    assert_eq!(
        ids(&queue.store.work.start(0, "w", &Priority::ALL.map(stream), usize::MAX).await.unwrap()),
        [id]
    );

    assert_eq!(
        ids(&queue.store.work.start(0, "w", &Priority::ALL.map(stream), usize::MAX).await.unwrap()),
        []
    );

    assert_eq!(queue.state(id).await, "processing 1/0/0 w input");
}

pub(crate) async fn a_job_that_loses_its_worker_too_often_fails(queue: &Queue) {
    let id = queue.submit().await;
    for token in 1..=3 {
        assert_eq!(queue.take_one("w").await.token, token);
        queue.age("w").await;
    }

    let granted = queue.take("w", 10).await;

    assert_eq!((ids(&granted), granted.reclaimed.len()), (vec![], 1));
    assert_eq!(ended(&granted), [(id, "worker_lost".to_owned())]);
    assert_eq!(queue.state(id).await, "failed 3/0/3 - error ttl dead kept");
    assert_eq!(queue.job(id).await.error_code.as_deref(), Some("worker_lost"));
}

pub(crate) async fn settlements_of_one_round_trip_have_an_outcome_each(queue: &Queue) {
    let (lost, heir) = taken_over(queue).await;
    let cancelled = queue.submit_and_take("w").await;
    queue.store.intake.cancel(cancelled.job_id, View::All).await.unwrap();

    let all = [(lost, complete()), (heir, complete()), (cancelled, fail())];
    let outcomes = queue.store.work.settle(&all).await.unwrap();
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();

    assert_eq!(outcomes, [LOST, DONE, Settled::Fenced(Fence::Cancelled)]);
    assert!(queue.store.work.settle::<Settlement>(&[]).await.unwrap().is_empty());
}

pub(crate) async fn the_state_of_the_queue_counts_new_waiting_and_running_jobs(queue: &Queue) {
    assert_eq!(queue.store.views.queue_states(0, model()).await.unwrap(), [QueueState::default(); 3]);
    let attempt = queue.submit_and_take("w").await;
    queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&attempt, Settlement::Retry(queue.store.queue.policy().lease)).await, DONE);
    for priority in [Priority::Normal, Priority::Normal, Priority::Normal, Priority::Low] {
        queue.submit_at(priority).await;
    }

    assert_eq!(queue.store.views.log_mark(0).await.unwrap().added, 6);
    let [high, normal, low] = queue.store.views.queue_states(0, model()).await.unwrap();
    assert_eq!(high, QueueState::default());
    assert_eq!(normal, QueueState { new: 3, waiting: 1, in_flight: 1 });
    assert_eq!(low, QueueState { new: 1, waiting: 0, in_flight: 0 });
}

as_tests![
    a_job_whose_lease_lapsed_goes_to_another_worker,
    a_lease_lapses_by_itself_but_not_early,
    a_lease_that_is_renewed_does_not_lapse,
    renewing_names_exactly_the_jobs_that_must_be_stopped,
    a_zombie_cannot_settle_its_job,
    a_zombie_cannot_take_its_job_back_by_renewing,
    an_attempt_that_gave_its_job_back_cannot_end_it,
    a_worker_that_slept_past_its_delivery_starts_nothing,
    the_lease_of_a_started_job_begins_with_its_start,
    repeating_a_start_grants_nothing_twice,
    a_job_that_loses_its_worker_too_often_fails,
    settlements_of_one_round_trip_have_an_outcome_each,
    the_state_of_the_queue_counts_new_waiting_and_running_jobs,
];
