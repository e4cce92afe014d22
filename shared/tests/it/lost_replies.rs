//! The reply of Redis is lost. The call is repeated, or its outcome is unknown.

use std::time::Duration;

use tepal_shared::{
    job::{Claim, JobId, JobStatus, NewJob, Priority, owner::View},
    queue::{
        error::StoreError,
        intake::{Cancelled, Expired, Requeued, Submitted},
        work::Settlement,
    },
};
use tepal_tests::fault_proxy::FaultProxy;
use tokio::time::timeout;

use crate::{
    queue::{ANYONE, DONE, Queue, SOON, complete, fail, ids, new_job},
    reconnect::{behind_a_proxy, impatient},
};

/// A transition whose first answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Submit,
    Complete,
    Fail,
    Retry,
    Release,
    Cancel,
    Requeue,
    Expire,
}

impl Lost {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Submit, "pending 0/0/0 new input"),
        (Self::Complete, "completed 1/0/0 - result ttl"),
        (Self::Fail, "failed 1/0/0 - error ttl dead kept"),
        (Self::Retry, "pending 1/0/0 waiting input next"),
        (Self::Release, "pending 1/1/0 waiting input next"),
        (Self::Cancel, "cancelled 1/0/0 - ttl kept"),
        (Self::Requeue, "pending 0/0/0 new input"),
        (Self::Expire, "failed 1/0/0 - error ttl dead kept"),
    ];

    /// The attempt whose job the transition changes, and the id in the request.
    async fn arrange(self, queue: &Queue) -> (Option<Claim>, JobId) {
        if self == Self::Submit {
            return (None, JobId::new(0));
        }
        let attempt = queue.submit_and_take("w").await;
        let mut id = attempt.job_id;
        if self == Self::Requeue {
            assert_eq!(queue.settle(&attempt, fail()).await, DONE);
            id = JobId::new(0);
        }
        if self == Self::Expire {
            queue.set_field(id, "run_deadline", "1").await;
        }
        (Some(attempt), id)
    }

    async fn run(self, queue: &Queue, attempt: Option<&Claim>, id: JobId) {
        let settlement = match self {
            Self::Submit => {
                assert_eq!(queue.store.intake.submit(id, new_job()).await.unwrap(), Submitted::Accepted);
                return;
            }
            Self::Cancel => {
                assert_eq!(
                    queue.store.intake.cancel(id, View::All).await.unwrap(),
                    Cancelled::Done(Some(crate::queue::model()))
                );
                return;
            }
            Self::Requeue => {
                let old = attempt.unwrap().job_id;
                assert_eq!(queue.store.intake.requeue(old, id, ANYONE).await.unwrap(), Requeued::Accepted);
                return;
            }
            Self::Expire => {
                // The repetition finds that it has ended.
                assert_eq!(queue.store.intake.expire(id).await.unwrap(), Expired::Kept(JobStatus::Failed));
                return;
            }
            Self::Complete => complete(),
            Self::Fail => fail(),
            Self::Retry => Settlement::Retry(queue.store.queue.policy().lease),
            Self::Release => Settlement::Release,
        };
        assert_eq!(queue.settle(attempt.unwrap(), settlement).await, DONE);
    }
}

pub(crate) async fn a_call_whose_answer_was_lost_is_repeated_and_counts_once(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    for (number, (lost, after)) in Lost::ALL.into_iter().enumerate() {
        let queue = queue.another();
        let (attempt, id) = lost.arrange(&queue).await;
        proxy.drop_reply_to(id.to_string());

        lost.run(&queue, attempt.as_ref(), id).await;

        assert_eq!(proxy.hits().replies_dropped, number as u64 + 1, "{lost:?}");
        assert_eq!(queue.state(id).await, after, "{lost:?}");
        let outstanding = u64::from(after.starts_with("pending"));
        assert_eq!(queue.outstanding().await.0, outstanding, "{lost:?}");
        let log = queue.store.views.log(None, 10).await.unwrap().entries.len();
        assert_eq!(log, if lost == Lost::Requeue { 2 } else { 1 }, "{lost:?}");
    }
}

pub(crate) async fn a_reply_that_stays_lost_is_reported_as_an_unknown_outcome(queue: &Queue) {
    let proxy = FaultProxy::start(&queue.server().addr()).await;
    let store = impatient(queue, &queue.servers.url_through(&proxy.addr()).await);
    timeout(SOON, store.queue.primary(0).up()).await.unwrap();
    let id = JobId::new(0);
    proxy.drop_replies(1_000);

    let outcome = store.intake.submit(id, new_job()).await;

    assert!(matches!(outcome, Err(StoreError::Ambiguous(_))), "{outcome:?}");
    assert!(proxy.hits().replies_dropped > 0);
    proxy.drop_no_replies();
    assert_eq!(queue.state(id).await, "pending 0/0/0 new input");
    assert_eq!(queue.store.intake.submit(id, new_job()).await.unwrap(), Submitted::Accepted);
    assert_eq!(queue.outstanding().await, (1, 0));
}

pub(crate) async fn a_queue_that_is_full_for_the_repetition_says_nothing_of_the_first_sending(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 1);
    let failed = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&failed, fail()).await, DONE);
    queue.submit().await;
    let (first, second, third) = (JobId::new(0), JobId::new(0), JobId::new(0));

    proxy.drop_reply_to(first.to_string());
    let submitted = queue.store.intake.submit(first, new_job()).await;
    proxy.drop_reply_to(second.to_string());
    let requeued = queue.store.intake.requeue(failed.job_id, second, ANYONE).await;

    assert_eq!(proxy.hits().replies_dropped, 2);
    assert!(matches!(submitted, Err(StoreError::Ambiguous(_))), "{submitted:?}");
    assert!(matches!(requeued, Err(StoreError::Ambiguous(_))), "{requeued:?}");
    // Without an earlier sending it is what it says.
    let submitted = queue.store.intake.submit(third, new_job()).await.unwrap();
    assert_eq!(submitted, Submitted::Full { outstanding: 1 });
    let requeued = queue.store.intake.requeue(failed.job_id, third, ANYONE).await.unwrap();
    assert_eq!(requeued, Requeued::Full { outstanding: 1 });
}

pub(crate) async fn jobs_granted_by_a_lost_answer_come_back_when_the_lease_lapses(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let submitted = [queue.submit().await, queue.submit_at(Priority::Low).await];
    proxy.drop_reply_to("unlucky");

    assert_eq!(queue.takeable("unlucky").await, []);
    assert_eq!(proxy.hits().replies_dropped, 1);
    for id in submitted {
        assert_eq!(queue.state(id).await, "processing 1/0/0 unlucky input");
    }
    queue.age("unlucky").await;

    let granted = queue.take("heir", 10).await;
    assert_eq!(ids(&granted), submitted);
    assert!(granted.deliveries.iter().all(|one| (one.attempt.lost, one.attempt.number()) == (1, 1)));
}

pub(crate) async fn a_reply_in_pieces_is_read_whole(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let job = NewJob { input: "1".repeat(500).into(), ..new_job() };
    let id = queue.submit_job(&job).await;

    proxy.drip(7, Duration::from_micros(200));

    assert_eq!(queue.take_delivery("w").await.input, job.input);
    assert_eq!(queue.job(id).await.status, JobStatus::Processing);
    assert!(proxy.hits().dripped > 100, "{:?}", proxy.hits());
}

as_tests![
    a_call_whose_answer_was_lost_is_repeated_and_counts_once,
    a_reply_that_stays_lost_is_reported_as_an_unknown_outcome,
    a_queue_that_is_full_for_the_repetition_says_nothing_of_the_first_sending,
    jobs_granted_by_a_lost_answer_come_back_when_the_lease_lapses,
    a_reply_in_pieces_is_read_whole,
];
