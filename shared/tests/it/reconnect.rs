//! Redis goes away and comes back, or its answer is lost. A store is opened once and never by hand again.

use std::{sync::Arc, time::Duration};

use tepal_shared::{
    job::{Claim, JobId, JobStatus, NewJob, Priority, owner::View},
    queue::{
        error::StoreError,
        link::{ConnectionSettings, Redis},
        scripts::{Cancelled, Expired, Fence, Requeued, Settled, Submitted},
        store::{JobStore, Settlement},
        work::Reader,
    },
};
use tepal_tests::{
    fault_proxy::FaultProxy,
    redis::{Fsync, RedisServer},
    wait::eventually,
};
use tokio::time::timeout;

use crate::queue::{ANYONE, DONE, Queue, SOON, complete, fail, ids, new_job};

/// A store that gives up after a moment, at an address where nobody may be listening.
fn impatient(queue: &Queue, url: &str) -> JobStore {
    let settings = ConnectionSettings::new(url).unwrap().with_patience(Duration::from_millis(50));
    let redis = Redis::open(settings).unwrap();
    JobStore::new(redis, queue.store.keys().clone(), queue.store.policy().clone())
}

/// The same queue with a fault proxy between the store and Redis.
pub(crate) async fn behind_a_proxy(queue: &Queue) -> (FaultProxy, Queue) {
    let proxy = FaultProxy::start(&queue.server.addr()).await;
    let through = Queue::through(&queue.server, &proxy.addr(), SOON).await;
    (proxy, through)
}

pub(crate) async fn with_aof() -> Queue {
    Queue::on(&Arc::new(RedisServer::options().aof(Fsync::Always).start().await)).await
}

pub(crate) async fn a_store_may_be_opened_before_redis_is_there(queue: &Queue) {
    queue.server.kill9();
    let store = impatient(queue, &queue.server.url());
    let refused = store.submit(JobId::new(0), new_job()).await;
    assert!(matches!(refused, Err(StoreError::Disconnected)), "{refused:?}");
    assert!(!store.redis().is_up());

    queue.server.restart().await;

    timeout(SOON, store.redis().up()).await.unwrap();
    assert_eq!(store.submit(JobId::new(0), new_job()).await.unwrap(), Submitted::Accepted);
}

pub(crate) async fn forgotten_scripts_are_loaded_again(queue: &Queue) {
    let id = queue.submit().await;
    for round in 1..=3 {
        queue.redis::<String>(&["SCRIPT", "FLUSH"]).await;
        let attempt = queue.take_one("w").await;
        queue.redis::<String>(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(queue.settle(&attempt, Settlement::Release).await, DONE);
        assert_eq!(queue.job(id).await.attempts, 0, "round {round}");
    }
    // A pipeline is sent again as a whole.
    let attempts = [queue.submit().await, queue.submit().await].len() + 1;
    let granted = queue.claims("w", 10).await;
    assert_eq!(granted.len(), attempts);
    queue.redis::<String>(&["SCRIPT", "FLUSH"]).await;
    let settlements: Vec<_> = granted.iter().map(|claim| (*claim, complete())).collect();
    for settled in queue.store.settle(&settlements).await.unwrap() {
        assert_eq!(settled.unwrap(), DONE);
    }
}

pub(crate) async fn a_cut_connection_is_made_anew(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    for cuts in 1..=3 {
        assert_eq!(proxy.cut_all().await, 1);
        queue.submit().await;
        assert_eq!(proxy.hits().cut, cuts);
    }
    assert_eq!(queue.outstanding().await, (3, 0));
}

pub(crate) async fn a_connection_that_fell_silent_is_given_up(queue: &Queue) {
    let proxy = FaultProxy::start(&queue.server.addr()).await;
    let settings = ConnectionSettings::new(&queue.server.url_at(&proxy.addr())).unwrap();
    let settings = settings.with_patience(SOON).with_response_timeout(Duration::from_millis(200));
    let queue = Queue::with_settings(&queue.server, settings).await;

    proxy.half_open();
    let (id, job) = (JobId::new(0), new_job());
    let (submitted, ()) = tokio::join!(queue.store.submit(id, job), async {
        eventually(SOON, "a swallowed request", async || proxy.hits().half_open > 0).await;
        proxy.pass();
    });

    assert_eq!(submitted.unwrap(), Submitted::Accepted);
    assert_eq!(queue.outstanding().await, (1, 0));
}

pub(crate) async fn a_silent_connection_is_noticed_although_nobody_uses_it(queue: &Queue) {
    let proxy = FaultProxy::start(&queue.server.addr()).await;
    let settings = ConnectionSettings::new(&queue.server.url_at(&proxy.addr())).unwrap();
    let settings = settings.with_patience(SOON).with_response_timeout(Duration::from_millis(200));
    let queue = Queue::with_settings(&queue.server, settings).await;

    proxy.half_open();
    eventually(SOON, "the probe", async || !queue.store.redis().is_up()).await;
    proxy.pass();
    timeout(SOON, queue.store.redis().up()).await.unwrap();
}

pub(crate) async fn a_replica_is_not_up_until_it_is_promoted(queue: &Queue) {
    let store = impatient(queue, &queue.server.url());
    timeout(SOON, store.redis().up()).await.unwrap();

    let nobody = tepal_tests::ports::free_port().to_string();
    queue.server.cli(&["REPLICAOF", "127.0.0.1", &nobody]);
    // Nobody writes: the probe has to notice.
    eventually(SOON, "the demotion to be noticed", async || !store.redis().is_up()).await;
    let refused = store.redis().dedicated(Duration::ZERO).await.err();
    assert!(matches!(refused, Some(StoreError::NotReady(_))), "{refused:?}");
    let refused = store.submit(JobId::new(0), new_job()).await;
    assert!(matches!(refused, Err(StoreError::Disconnected)), "{refused:?}");

    queue.server.cli(&["REPLICAOF", "NO", "ONE"]);
    timeout(SOON, store.redis().up()).await.unwrap();
    assert_eq!(store.submit(JobId::new(0), new_job()).await.unwrap(), Submitted::Accepted);
}

pub(crate) async fn a_frozen_redis_is_waited_for(queue: &Queue) {
    let settings = ConnectionSettings::new(&queue.server.url()).unwrap();
    let settings = settings.with_patience(SOON).with_response_timeout(Duration::from_millis(200));
    let queue = Queue::with_settings(&queue.server, settings).await;
    let attempt = queue.submit_and_take("w").await;

    queue.server.sigstop();
    let settlements = [(attempt, complete())];
    let (settled, ()) = tokio::join!(queue.store.settle(&settlements), async {
        eventually(SOON, "the first answer to be missed", async || !queue.store.redis().is_up()).await;
        queue.server.sigcont();
    });

    // The first sending, carried out late, and its repetitions are one.
    assert_eq!(settled.unwrap().remove(0).unwrap(), DONE);
    assert_eq!(queue.state(attempt.job_id).await, "completed 1/0/0 - result ttl");
    assert_eq!(queue.outstanding().await, (0, 0));
}

pub(crate) async fn a_killed_redis_comes_back_with_every_job_and_every_lease(_: &Queue) {
    let queue = with_aof().await;
    let ours = queue.submit_and_take("us").await;
    let given_back = queue.submit_and_take("us").await;
    assert_eq!(queue.settle(&given_back, Settlement::Retry(queue.store.policy().lease)).await, DONE);
    let waiting = queue.submit().await;
    let impatient = impatient(&queue, &queue.server.url());
    timeout(SOON, impatient.redis().up()).await.unwrap();

    queue.server.kill9();
    let refused = impatient.submit(JobId::new(0), new_job()).await;
    assert!(refused.is_err_and(|error| error.is_retryable()));
    // A patient store's call waits for the restart.
    let job = new_job();
    let (submitted, ()) = tokio::join!(queue.store.submit(JobId::new(0), job), queue.server.restart());
    assert_eq!(submitted.unwrap(), Submitted::Accepted);

    // The plain connection of the test broke, too.
    let queue = queue.reconnected().await;
    assert_eq!(queue.state(given_back.job_id).await, "pending 1/0/0 waiting input next");
    assert_eq!(queue.state(ours.job_id).await, "processing 1/0/0 us input");
    assert_eq!(queue.settle(&ours, complete()).await, DONE);
    let taken = queue.takeable("w").await;
    assert_eq!((taken[0], taken.len()), (waiting, 2));
}

pub(crate) async fn a_blocked_reader_outlives_a_restart(_: &Queue) {
    let queue = with_aof().await;
    queue.take("w", 1).await;
    let mut reader = Reader::new(queue.store.clone(), "w".to_owned(), Duration::from_secs(2), usize::MAX);
    let (read, ()) = tokio::join!(reader.read(), queue.server.restart());
    assert!(read.is_err_and(|error| error.is_retryable()));

    let id = queue.submit().await;
    let read = eventually(SOON, "the reader", async || reader.read().await.ok()).await;

    assert_eq!(read.into_iter().flat_map(|granted| ids(&granted.unwrap())).collect::<Vec<_>>(), [id]);
}

/// Demotes the server to a replica of another, to which the proxy leads from now on.
pub(crate) async fn fail_over(server: &RedisServer, proxy: &FaultProxy) -> RedisServer {
    let promoted = RedisServer::start().await;
    proxy.lead_to(&promoted.addr());
    server.cli(&["REPLICAOF", "127.0.0.1", &promoted.port().to_string()]);
    promoted
}

pub(crate) async fn a_reader_leaves_a_primary_that_was_demoted(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    queue.take("w", 1).await;
    let mut reader = Reader::new(queue.store.clone(), "w".to_owned(), Duration::from_millis(1), usize::MAX);
    reader.read().await.unwrap();
    // Nobody is blocked, so that no connection is closed.
    let _promoted = fail_over(&queue.server, &proxy).await;
    queue.take("w", 1).await;
    let id = queue.submit().await;

    let demoted = reader.read().await;
    let read = reader.read().await.unwrap();

    assert!(matches!(demoted, Err(StoreError::NotReady(_))), "{demoted:?}");
    assert_eq!(read.into_iter().flat_map(|granted| ids(&granted.unwrap())).collect::<Vec<_>>(), [id]);
}

pub(crate) async fn a_pipeline_that_a_demoted_primary_refuses_ends_its_connection(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let attempt = queue.submit_and_take("w").await;
    let _promoted = fail_over(&queue.server, &proxy).await;

    let settlements = [(attempt, complete())];
    let demoted = queue.store.settle(&settlements).await.unwrap().remove(0);
    let promoted = queue.store.settle(&settlements).await.unwrap().remove(0);

    assert!(matches!(demoted, Err(StoreError::NotReady(_))), "{demoted:?}");
    assert_eq!(promoted.unwrap(), Settled::Fenced(Fence::Missing));
}

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
                assert_eq!(queue.store.submit(id, new_job()).await.unwrap(), Submitted::Accepted);
                return;
            }
            Self::Cancel => {
                assert_eq!(queue.store.cancel(id, View::All).await.unwrap(), Cancelled::Done);
                return;
            }
            Self::Requeue => {
                let old = attempt.unwrap().job_id;
                assert_eq!(queue.store.requeue(old, id, ANYONE).await.unwrap(), Requeued::Accepted);
                return;
            }
            Self::Expire => {
                // The repetition finds that it has ended.
                assert_eq!(queue.store.expire(id).await.unwrap(), Expired::Kept(JobStatus::Failed));
                return;
            }
            Self::Complete => complete(),
            Self::Fail => fail(),
            Self::Retry => Settlement::Retry(queue.store.policy().lease),
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
        proxy.drop_reply_to(&id.to_string());

        lost.run(&queue, attempt.as_ref(), id).await;

        assert_eq!(proxy.hits().replies_dropped, number as u64 + 1, "{lost:?}");
        assert_eq!(queue.state(id).await, after, "{lost:?}");
        let outstanding = u64::from(after.starts_with("pending"));
        assert_eq!(queue.outstanding().await.0, outstanding, "{lost:?}");
        let log = queue.store.log(None, 10).await.unwrap().entries.len();
        assert_eq!(log, if lost == Lost::Requeue { 2 } else { 1 }, "{lost:?}");
    }
}

pub(crate) async fn an_answer_that_stays_lost_is_told_as_an_unknown_outcome(queue: &Queue) {
    let proxy = FaultProxy::start(&queue.server.addr()).await;
    let store = impatient(queue, &queue.server.url_at(&proxy.addr()));
    timeout(SOON, store.redis().up()).await.unwrap();
    let id = JobId::new(0);
    proxy.drop_replies(1_000);

    let outcome = store.submit(id, new_job()).await;

    assert!(matches!(outcome, Err(StoreError::Ambiguous(_))), "{outcome:?}");
    assert!(proxy.hits().replies_dropped > 0);
    assert_eq!(queue.state(id).await, "pending 0/0/0 new input");
    assert_eq!(queue.store.submit(id, new_job()).await.unwrap(), Submitted::Accepted);
    assert_eq!(queue.outstanding().await, (1, 0));
}

pub(crate) async fn a_queue_that_is_full_for_the_repetition_says_nothing_of_the_first_sending(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let queue = queue.with_policy(|policy| policy.max_queue_depth = 1);
    let failed = queue.submit_and_take("w").await;
    assert_eq!(queue.settle(&failed, fail()).await, DONE);
    queue.submit().await;
    let (first, second, third) = (JobId::new(0), JobId::new(0), JobId::new(0));

    proxy.drop_reply_to(&first.to_string());
    let submitted = queue.store.submit(first, new_job()).await;
    proxy.drop_reply_to(&second.to_string());
    let requeued = queue.store.requeue(failed.job_id, second, ANYONE).await;

    assert_eq!(proxy.hits().replies_dropped, 2);
    assert!(matches!(submitted, Err(StoreError::Ambiguous(_))), "{submitted:?}");
    assert!(matches!(requeued, Err(StoreError::Ambiguous(_))), "{requeued:?}");
    // Without an earlier sending it is what it says.
    let submitted = queue.store.submit(third, new_job()).await.unwrap();
    assert_eq!(submitted, Submitted::Full { outstanding: 1 });
    let requeued = queue.store.requeue(failed.job_id, third, ANYONE).await.unwrap();
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
    let job = NewJob { input: "1".repeat(500), ..new_job() };
    let id = queue.submit_job(&job).await;

    proxy.drip(7, Duration::from_micros(200));

    assert_eq!(queue.take_delivery("w").await.input, job.input);
    assert_eq!(queue.job(id).await.status, JobStatus::Processing);
    assert!(proxy.hits().dripped > 100, "{:?}", proxy.hits());
}

as_tests![
    a_store_may_be_opened_before_redis_is_there,
    forgotten_scripts_are_loaded_again,
    a_cut_connection_is_made_anew,
    a_connection_that_fell_silent_is_given_up,
    a_silent_connection_is_noticed_although_nobody_uses_it,
    a_replica_is_not_up_until_it_is_promoted,
    a_frozen_redis_is_waited_for,
    a_killed_redis_comes_back_with_every_job_and_every_lease,
    a_blocked_reader_outlives_a_restart,
    a_reader_leaves_a_primary_that_was_demoted,
    a_pipeline_that_a_demoted_primary_refuses_ends_its_connection,
    a_call_whose_answer_was_lost_is_repeated_and_counts_once,
    an_answer_that_stays_lost_is_told_as_an_unknown_outcome,
    a_queue_that_is_full_for_the_repetition_says_nothing_of_the_first_sending,
    jobs_granted_by_a_lost_answer_come_back_when_the_lease_lapses,
    a_reply_in_pieces_is_read_whole,
];
