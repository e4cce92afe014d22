//! The charges of payers are added up again, in parts, while charges come and go.

use std::collections::BTreeMap;

use tepal_shared::{
    job::{NewJob, owner::View},
    queue::work::Recounted,
};

use crate::{
    queue::{DONE, Queue, complete, fail},
    quota::{LARGE, charges, job, large, make_due, result_of, sum, sums},
};

const DONE_COUNTING: Recounted = Recounted { is_done: true, dropped: 0 };

pub(crate) async fn a_recount_corrects_the_sums(queue: &Queue) {
    for payer in ["a:x", "a:y", "a:y"] {
        queue.submit_job(&job(LARGE, payer, 0)).await;
    }
    let right = sums(queue).await;
    let [charges_key, sums_key, _] = queue.store.queue.keys().quota(0);
    queue.redis::<u64>(&["HSET", &sums_key, "a:x", "5", "a:z", "12345"]).await;
    queue.redis::<u64>(&["HDEL", &sums_key, "a:y"]).await;

    assert_eq!(queue.store.work.recount(0, 100).await.unwrap(), DONE_COUNTING);
    assert_eq!(sums(queue).await, right);

    // An operator has deleted the charges.
    queue.redis::<u64>(&["DEL", &charges_key]).await;
    assert_eq!(queue.store.work.recount(0, 100).await.unwrap(), DONE_COUNTING);
    assert_eq!(sums(queue).await, BTreeMap::new());
    for attempt in queue.claims("w", 3).await {
        assert_eq!(queue.settle(&attempt, fail()).await, DONE);
    }
    assert_eq!(sums(queue).await, right, "what is kept from now on counts");
}

pub(crate) async fn a_recount_drops_charges_of_jobs_that_are_gone(queue: &Queue) {
    let gone = queue.submit_job(&large()).await;
    let ended = queue.submit_job(&large()).await;
    queue.submit_job(&large()).await;
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(gone)]).await;
    // By a worker of an earlier release.
    queue.set_field(ended, "status", "completed").await;
    let [key, ..] = queue.store.queue.keys().quota(0);
    queue.redis::<u64>(&["ZADD", &key, "0", "nonsense"]).await;

    assert_eq!(queue.store.work.recount(0, 100).await.unwrap(), Recounted { is_done: true, dropped: 3 });

    assert_eq!((sum(queue, "a:x").await, charges(queue).await.len()), (LARGE, 1));
}

pub(crate) async fn a_recount_drops_charges_at_once(queue: &Queue) {
    let gone = queue.submit_job(&large()).await;
    let [charges_key, ..] = queue.store.queue.keys().quota(0);
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(gone)]).await;

    // It is not the last one.
    assert_eq!(queue.store.work.recount(0, 1).await.unwrap(), Recounted { is_done: false, dropped: 1 });

    assert_eq!(queue.redis::<u64>(&["ZCARD", &charges_key]).await, 0);
    assert_eq!(sums(queue).await, BTreeMap::new());
}

/// Charges are added, moved and deleted ahead of the recount and behind it.
pub(crate) async fn a_recount_is_right_whatever_happens_meanwhile(queue: &Queue) {
    let order: Vec<NewJob> = (0..8).map(|number| job(LARGE + number, "a:x", 0)).collect();
    for stop in 0..8 {
        let queue = queue.another();
        queue.take("w", 1).await;
        let mut ids = Vec::new();
        for job in &order {
            ids.push(queue.submit_job(job).await);
        }
        let attempts = queue.claims("w", 8).await;
        assert_eq!(queue.settle(&attempts[0], fail()).await, DONE);
        assert_eq!(queue.settle(&attempts[1], fail()).await, DONE);
        make_due(&queue).await;
        // The very first charge is due in a second, and does not belong to this test.
        for _ in 0..stop {
            assert_eq!(
                queue.store.work.recount(0, 1).await.unwrap(),
                Recounted { is_done: false, dropped: 0 }
            );
        }

        assert_eq!(queue.store.work.uncharge(0, 1).await.unwrap(), 1);
        assert_eq!(queue.settle(&attempts[2], fail()).await, DONE);
        assert_eq!(queue.settle(&attempts[6], complete()).await, DONE);
        assert_eq!(queue.settle(&attempts[3], result_of(2 * LARGE)).await, DONE);
        queue.store.intake.cancel(ids[7], View::All).await.unwrap();
        queue.submit_job(&job(LARGE + 100, "a:x", 0)).await;

        let right = sums(&queue).await;
        let sizes = charges(&queue)
            .await
            .iter()
            .map(|charge| charge.split(' ').nth(2).unwrap().parse::<u64>().unwrap())
            .sum::<u64>();
        assert_eq!(right["a:x"], sizes);
        for _ in 0..20 {
            if queue.store.work.recount(0, 1).await.unwrap().is_done {
                break;
            }
        }
        assert_eq!(sums(&queue).await, right, "after {stop}");
        assert_eq!(queue.redis::<u64>(&["EXISTS", &queue.store.queue.keys().quota(0)[2]]).await, 0);
    }
}

as_tests![
    a_recount_corrects_the_sums,
    a_recount_drops_charges_of_jobs_that_are_gone,
    a_recount_drops_charges_at_once,
    a_recount_is_right_whatever_happens_meanwhile,
];
