//! The input of a failed or cancelled job: it has a key of its own and expires before the job.

use std::collections::BTreeMap;

use tepal_shared::{
    job::{JobId, JobStatus, owner::View},
    queue::intake::{Cancelled, Requeued},
};

use crate::queue::{ANYONE, DONE, INPUT, Queue, fail, new_job};

async fn record(queue: &Queue, id: JobId) -> BTreeMap<String, String> {
    queue.redis(&["HGETALL", &queue.store.queue.keys().job(id)]).await
}

pub(crate) async fn a_job_whose_input_has_expired_does_not_run_again_and_stays_as_it_was(queue: &Queue) {
    let failed = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&failed, fail()).await, DONE);
    let cancelled = queue.submit().await;
    queue.store.intake.cancel(cancelled, View::All).await.unwrap();
    for (old, status) in [(failed.job_id, JobStatus::Failed), (cancelled, JobStatus::Cancelled)] {
        let before = record(queue, old).await;
        assert_eq!(queue.redis::<u64>(&["DEL", &queue.store.queue.keys().input(old)]).await, 1);
        assert_eq!(record(queue, old).await, before);
        let keys = queue.all_keys().await;

        let requeued = queue.store.intake.requeue(old, JobId::new(0), ANYONE).await.unwrap();

        assert_eq!(requeued, Requeued::InputExpired(status));
        assert_eq!(record(queue, old).await, before);
        assert_eq!(queue.all_keys().await, keys);
    }
    assert_eq!(queue.outstanding().await, (0, 0));
}

pub(crate) async fn a_job_that_an_earlier_release_ended_runs_again(queue: &Queue) {
    let old = queue.submit().await;
    queue.store.intake.cancel(old, View::All).await.unwrap();
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().input(old)]).await;
    queue.set_field(old, "input", INPUT).await;

    let id = JobId::new(0);
    assert_eq!(queue.store.intake.requeue(old, id, ANYONE).await.unwrap(), Requeued::Accepted);

    let delivery = queue.take_delivery("w").await;
    assert_eq!((delivery.attempt.claim.job_id, delivery.input), (id, new_job().input));
}

pub(crate) async fn a_damaged_job_without_input_can_end(queue: &Queue) {
    let id = queue.submit().await;
    queue.redis::<u64>(&["HDEL", &queue.store.queue.keys().job(id), "input"]).await;

    assert_eq!(
        queue.store.intake.cancel(id, View::All).await.unwrap(),
        Cancelled::Done(Some(crate::queue::model()))
    );

    assert_eq!(queue.state(id).await, "cancelled 0/0/0 - ttl");
    assert_eq!(queue.outstanding().await, (0, 0));
}

as_tests![
    a_job_whose_input_has_expired_does_not_run_again_and_stays_as_it_was,
    a_job_that_an_earlier_release_ended_runs_again,
    a_damaged_job_without_input_can_end,
];
