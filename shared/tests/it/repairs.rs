//! Damage that an operator can do to the streams, and how jobs survive it.

use std::time::Duration;

use tepal_shared::{
    job::{Claim, Priority, owner::View},
    queue::{
        intake::Cancelled,
        work::{Settled, Settlement},
    },
};

use crate::queue::{DONE, Queue, claims, complete, fail, stream};

const REPAIRED: Settled = Settled::Done { repaired: true };

/// Damage to what Redis knows of a running job's entry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    ConsumerDeleted,
    GroupDestroyed,
    EntryDeleted,
    StreamDeleted,
}

const EVERY_DAMAGE: [Damage; 4] =
    [Damage::ConsumerDeleted, Damage::GroupDestroyed, Damage::EntryDeleted, Damage::StreamDeleted];

/// A job that runs, in a queue of its own, while its entry is damaged.
pub(crate) async fn damaged(queue: &Queue, damage: Damage) -> (Queue, Claim) {
    let queue = queue.another();
    let attempt = queue.submit_and_take("w").await;
    let (stream, entry) = queue.entry(attempt.job_id).await;
    let words: &[&str] = match damage {
        Damage::ConsumerDeleted => &["XGROUP", "DELCONSUMER", &stream, "workers", "w"],
        Damage::GroupDestroyed => &["XGROUP", "DESTROY", &stream, "workers"],
        Damage::EntryDeleted => &["XDEL", &stream, &entry],
        Damage::StreamDeleted => &["DEL", &stream],
    };
    assert_eq!(queue.redis::<u64>(words).await, 1, "{damage:?}");
    (queue, attempt)
}

pub(crate) async fn a_running_job_can_end_whatever_became_of_its_entry(queue: &Queue) {
    for damage in EVERY_DAMAGE {
        for (settlement, after) in
            [(complete(), "completed 1/0/0 - result ttl"), (fail(), "failed 1/0/0 - error ttl dead kept")]
        {
            let (queue, attempt) = damaged(queue, damage).await;

            assert_eq!(queue.settle(&attempt, settlement).await, DONE, "{damage:?}");

            assert_eq!(queue.state(attempt.job_id).await, after, "{damage:?}");
            assert_eq!(queue.outstanding().await, (0, 0), "{damage:?}");
        }
    }
}

pub(crate) async fn a_running_job_can_be_cancelled_whatever_became_of_its_entry(queue: &Queue) {
    for damage in EVERY_DAMAGE {
        let (queue, attempt) = damaged(queue, damage).await;

        assert_eq!(
            queue.store.intake.cancel(attempt.job_id, View::All).await.unwrap(),
            Cancelled::Done(Some(crate::queue::model()))
        );

        assert_eq!(queue.outstanding().await, (0, 0), "{damage:?}");
    }
}

pub(crate) async fn giving_a_job_back_repairs_its_entry(queue: &Queue) {
    for damage in EVERY_DAMAGE {
        for settlement in [Settlement::Retry(Duration::ZERO), Settlement::Release] {
            let (queue, attempt) = damaged(queue, damage).await;

            let settled = queue.settle(&attempt, settlement.clone()).await;

            assert_eq!(settled, REPAIRED, "{damage:?} {settlement:?}");
            assert_eq!(queue.outstanding().await, (1, 0), "{damage:?} {settlement:?}");
            assert_eq!(queue.settle(&attempt, settlement.clone()).await, DONE);
            let again = queue.take_delivery("heir").await.attempt;
            assert_eq!((again.claim.job_id, again.claim.token, again.lost), (attempt.job_id, 2, 0));
            assert_eq!(queue.settle(&again.claim, complete()).await, DONE);
            assert_eq!(queue.outstanding().await, (0, 0), "{damage:?} {settlement:?}");
        }
    }
}

pub(crate) async fn a_job_whose_group_was_destroyed_runs_again_and_ends_once(queue: &Queue) {
    let (queue, attempt) = damaged(queue, Damage::GroupDestroyed).await;

    let again = queue.take_one("heir").await;

    assert_eq!((again.job_id, again.token), (attempt.job_id, 2));
    assert_ne!(queue.settle(&attempt, complete()).await, DONE);
    assert_eq!(queue.settle(&again, complete()).await, DONE);
    assert_eq!(queue.outstanding().await, (0, 0));
}

pub(crate) async fn other_leases_are_renewed_although_a_group_is_missing(queue: &Queue) {
    let (queue, broken) = damaged(queue, Damage::GroupDestroyed).await;
    let low = queue.submit_at(Priority::Low).await;
    assert!(queue.read("w", stream(Priority::Low)).await);
    let intact =
        claims(&queue.store.work.start(0, "w", &Priority::ALL.map(stream), usize::MAX).await.unwrap())[0];
    queue.age_job(low, "w").await;

    let gone = queue.store.work.renew(0, "w", &[broken, intact]).await;

    assert!(queue.idle(low, "w").await < queue.store.queue.policy().lease, "{gone:?}");
}

as_tests![
    a_running_job_can_end_whatever_became_of_its_entry,
    a_running_job_can_be_cancelled_whatever_became_of_its_entry,
    giving_a_job_back_repairs_its_entry,
    a_job_whose_group_was_destroyed_runs_again_and_ends_once,
    other_leases_are_renewed_although_a_group_is_missing,
];
