//! Jobs that were acknowledged and are gone: counted on the next connection, and never a job that may have expired.

use std::time::Duration;

use tepal_shared::{
    job::{Idempotency, JobId, NewJob},
    queue::{intake::Requeued, loss::LookedUp},
};
use tepal_tests::wait::eventually;

use crate::{
    queue::{ANYONE, DONE, Queue, SOON, complete, fail, new_job},
    reconnect::{behind_a_proxy, fail_over, with_aof},
};

const NOTHING: LookedUp = LookedUp { missing: 0, of: 0 };

/// What the look-up on the next connection finds.
async fn found(queue: &Queue) -> LookedUp {
    // Before that, there is nothing to look up, or it fails.
    let looked =
        async || queue.store.intake.look_up_acknowledged(&[]).await.ok().filter(|jobs| *jobs != NOTHING);
    eventually(SOON, "the jobs to be looked up", looked).await
}

async fn again(queue: &Queue) -> LookedUp {
    queue.store.intake.look_up_acknowledged(&[]).await.unwrap()
}

pub(crate) async fn jobs_are_looked_up_once_a_connection_and_the_lost_ones_are_counted(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    for _ in 0..5 {
        queue.submit().await;
    }
    assert_eq!(again(&queue).await, NOTHING, "the connection has not changed");
    proxy.cut_all().await;
    assert_eq!(found(&queue).await, LookedUp { missing: 0, of: 5 });
    assert_eq!(again(&queue).await, NOTHING);

    let last = queue.submit().await;
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(last)]).await;
    assert_eq!(queue.store.intake.look_up_acknowledged(&[0]).await.unwrap(), LookedUp { missing: 1, of: 6 });
    assert_eq!(queue.store.intake.look_up_acknowledged(&[0]).await.unwrap(), LookedUp { missing: 0, of: 5 });
}

pub(crate) async fn what_the_old_primary_acknowledged_alone_is_lost_with_it(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let failed = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&failed, fail()).await, DONE);
    let requeued = queue.store.intake.requeue(failed.job_id, JobId::new(0), ANYONE).await.unwrap();
    assert_eq!(requeued, Requeued::Accepted);
    let together: Vec<_> = (0..20).map(|_| (JobId::new(0), std::sync::Arc::new(new_job()))).collect();
    queue.store.intake.submit_all(&together).await.unwrap();

    let _promoted = fail_over(queue.server(), &proxy).await;

    assert_eq!(found(&queue).await, LookedUp { missing: 22, of: 22 });
    assert_eq!(again(&queue).await, NOTHING);
}

pub(crate) async fn a_restart_that_keeps_the_jobs_loses_none(_: &Queue) {
    let queue = with_aof().await;
    let ended = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&ended, complete()).await, DONE);
    queue.submit().await;

    queue.server().restart().await;
    assert_eq!(found(&queue).await, LookedUp { missing: 0, of: 2 });
}

pub(crate) async fn a_look_that_fails_is_repeated(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let id = queue.submit().await;
    proxy.cut_all().await;
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(id)]).await;
    let job = queue.store.queue.keys().job(id);

    // The key cannot be read as a job for now.
    queue.redis::<String>(&["SET", &job, "x"]).await;
    let refused =
        async || queue.store.intake.look_up_acknowledged(&[0]).await.is_err_and(|e| !e.is_retryable());
    eventually(SOON, "a look that fails", refused).await;
    queue.redis::<u64>(&["DEL", &job]).await;

    assert_eq!(queue.store.intake.look_up_acknowledged(&[0]).await.unwrap(), LookedUp { missing: 1, of: 1 });
}

pub(crate) async fn a_job_that_may_have_expired_is_not_expected(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.result_ttl = Duration::from_secs(1));
    let id = queue.submit().await;

    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(id)]).await;

    assert_eq!(queue.store.intake.look_up_acknowledged(&[0]).await.unwrap(), NOTHING);
}

pub(crate) async fn a_refused_or_repeated_submission_is_not_remembered(queue: &Queue) {
    let job = || NewJob {
        idempotency: Some(Idempotency { key_hash: "aa".to_owned(), fingerprint: "bb".to_owned() }),
        ..new_job()
    };
    queue.store.intake.submit(JobId::new(0), job()).await.unwrap();
    queue.store.intake.submit(JobId::new(0), job()).await.unwrap();
    assert_eq!(queue.store.intake.look_up_acknowledged(&[0]).await.unwrap(), LookedUp { missing: 0, of: 1 });
}

as_tests!(
    jobs_are_looked_up_once_a_connection_and_the_lost_ones_are_counted,
    a_look_that_fails_is_repeated,
    a_job_that_may_have_expired_is_not_expected,
    a_refused_or_repeated_submission_is_not_remembered;
    one_server:
    what_the_old_primary_acknowledged_alone_is_lost_with_it,
    a_restart_that_keeps_the_jobs_loses_none,
);
