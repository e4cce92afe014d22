//! Redis goes away and comes back. A connection is opened once, and reconnects by itself.

use std::time::Duration;

use tepal_shared::{
    job::JobId,
    queue::{
        error::StoreError,
        intake::Submitted,
        link::ConnectionSettings,
        work::{Fence, Settled, Settlement},
    },
};
use tepal_tests::{
    fault_proxy::FaultProxy,
    redis::{Fsync, RedisServer},
    wait::eventually,
};
use tokio::time::timeout;

use crate::{
    delivery::reader_of,
    queue::{DONE, Queue, SOON, complete, ids, new_job},
    store::Store,
};

/// A store with short time limits, at an address without a server.
pub(crate) fn impatient(queue: &Queue, url: &str) -> Store {
    let settings = ConnectionSettings::new(url).unwrap().with_patience(Duration::from_millis(50));
    queue.over(settings).store
}

/// The same queue with a fault proxy between the store and Redis.
pub(crate) async fn behind_a_proxy(queue: &Queue) -> (FaultProxy, Queue) {
    let proxy = FaultProxy::start(&queue.server().addr()).await;
    let through = Queue::through(&queue.servers, &proxy.addr(), SOON).await;
    (proxy, through)
}

pub(crate) async fn with_aof() -> Queue {
    Queue::on_server(RedisServer::options().aof(Fsync::Always).start().await).await
}

pub(crate) async fn a_store_may_be_opened_before_redis_is_there(queue: &Queue) {
    queue.server().kill9();
    let store = impatient(queue, &queue.servers.url());
    let refused = store.intake.submit(JobId::new(0), new_job()).await;
    assert!(matches!(refused, Err(StoreError::Disconnected)), "{refused:?}");
    assert!(!store.queue.redis().is_up());

    queue.server().restart().await;

    timeout(SOON, store.queue.redis().up()).await.unwrap();
    assert_eq!(store.intake.submit(JobId::new(0), new_job()).await.unwrap(), Submitted::Accepted);
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
    for settled in queue.store.work.settle(&settlements).await.unwrap() {
        assert_eq!(settled.unwrap(), DONE);
    }
}

pub(crate) async fn a_cut_connection_is_replaced(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    for _ in 0..3 {
        // Besides the store, Sentinels are connected.
        assert!(proxy.cut_all().await > 0);
        queue.submit().await;
    }
    assert_eq!(queue.outstanding().await, (3, 0));
}

pub(crate) async fn a_connection_that_fell_silent_is_closed(queue: &Queue) {
    let proxy = FaultProxy::start(&queue.server().addr()).await;
    let settings = ConnectionSettings::new(&queue.servers.url_through(&proxy.addr()).await).unwrap();
    let settings = settings.with_patience(SOON).with_response_timeout(Duration::from_millis(200));
    let queue = Queue::with_settings(&queue.servers, settings).await;

    proxy.half_open();
    let (id, job) = (JobId::new(0), new_job());
    let (submitted, ()) = tokio::join!(queue.store.intake.submit(id, job), async {
        eventually(SOON, "a swallowed request", async || proxy.hits().half_open > 0).await;
        proxy.pass();
    });

    assert_eq!(submitted.unwrap(), Submitted::Accepted);
    assert_eq!(queue.outstanding().await, (1, 0));
}

pub(crate) async fn a_silent_idle_connection_is_noticed(queue: &Queue) {
    let proxy = FaultProxy::start(&queue.server().addr()).await;
    let settings = ConnectionSettings::new(&queue.servers.url_through(&proxy.addr()).await).unwrap();
    let settings = settings.with_patience(SOON).with_response_timeout(Duration::from_millis(200));
    let queue = Queue::with_settings(&queue.servers, settings).await;

    proxy.half_open();
    eventually(SOON, "the probe", async || !queue.store.queue.primary(0).is_up()).await;
    proxy.pass();
    timeout(SOON, queue.store.queue.primary(0).up()).await.unwrap();
}

pub(crate) async fn a_replica_is_not_up_until_it_is_promoted(queue: &Queue) {
    let store = impatient(queue, &queue.servers.url());
    timeout(SOON, store.queue.redis().up()).await.unwrap();

    let free = tepal_tests::ports::free_port().to_string();
    queue.server().cli(&["REPLICAOF", "127.0.0.1", &free]);
    // No command is sent: the probe must notice.
    eventually(SOON, "the demotion to be noticed", async || !store.queue.redis().is_up()).await;
    let refused = store.queue.redis().dedicated(Duration::ZERO).await.err();
    assert!(matches!(refused, Some(StoreError::NotReady(_))), "{refused:?}");
    let refused = store.intake.submit(JobId::new(0), new_job()).await;
    assert!(matches!(refused, Err(StoreError::Disconnected)), "{refused:?}");

    queue.server().cli(&["REPLICAOF", "NO", "ONE"]);
    timeout(SOON, store.queue.redis().up()).await.unwrap();
    assert_eq!(store.intake.submit(JobId::new(0), new_job()).await.unwrap(), Submitted::Accepted);
}

pub(crate) async fn a_frozen_redis_is_waited_for(queue: &Queue) {
    let settings = ConnectionSettings::new(&queue.servers.url()).unwrap();
    let settings = settings.with_patience(SOON).with_response_timeout(Duration::from_millis(200));
    let queue = Queue::with_settings(&queue.servers, settings).await;
    let attempt = queue.submit_and_take("w").await;

    queue.server().sigstop();
    let settlements = [(attempt, complete())];
    let (settled, ()) = tokio::join!(queue.store.work.settle(&settlements), async {
        eventually(SOON, "the first answer to be missed", async || !queue.store.queue.primary(0).is_up())
            .await;
        queue.server().sigcont();
    });

    // The first sending is executed late. It and its repetitions count once.
    assert_eq!(settled.unwrap().remove(0).unwrap(), DONE);
    assert_eq!(queue.state(attempt.job_id).await, "completed 1/0/0 - result ttl");
    assert_eq!(queue.outstanding().await, (0, 0));
}

pub(crate) async fn a_killed_redis_comes_back_with_every_job_and_every_lease(_: &Queue) {
    let queue = with_aof().await;
    let ours = queue.submit_and_take("us").await;
    let given_back = queue.submit_and_take("us").await;
    assert_eq!(queue.settle(&given_back, Settlement::Retry(queue.store.queue.policy().lease)).await, DONE);
    let waiting = queue.submit().await;
    let impatient = impatient(&queue, &queue.servers.url());
    timeout(SOON, impatient.queue.redis().up()).await.unwrap();

    queue.server().kill9();
    let refused = impatient.intake.submit(JobId::new(0), new_job()).await;
    assert!(refused.is_err_and(|error| error.is_retryable()));
    // A patient store's call waits for the restart.
    let job = new_job();
    let (submitted, ()) =
        tokio::join!(queue.store.intake.submit(JobId::new(0), job), queue.server().restart());
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
    let mut reader = reader_of(&queue, Duration::from_secs(2));
    let (read, ()) = tokio::join!(reader.read(), queue.server().restart());
    assert!(read.is_err_and(|error| error.is_retryable()));

    let id = queue.submit().await;
    let read = eventually(SOON, "the reader", async || reader.read().await.ok()).await;

    assert_eq!(ids(&read), [id]);
}

/// Demotes the server to a replica of another, and points the proxy to that one.
pub(crate) async fn fail_over(server: &RedisServer, proxy: &FaultProxy) -> RedisServer {
    let promoted = RedisServer::start().await;
    proxy.lead_to(&promoted.addr());
    server.cli(&["REPLICAOF", "127.0.0.1", &promoted.port().to_string()]);
    promoted
}

pub(crate) async fn a_reader_leaves_a_primary_that_was_demoted(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    queue.take("w", 1).await;
    let mut reader = reader_of(&queue, Duration::from_millis(1));
    reader.read().await.unwrap();
    // No client is blocked, so no connection is closed.
    let _promoted = fail_over(queue.server(), &proxy).await;
    queue.take("w", 1).await;
    let id = queue.submit().await;

    let demoted = reader.read().await;
    let read = reader.read().await.unwrap();

    assert!(matches!(demoted, Err(StoreError::NotReady(_))), "{demoted:?}");
    assert_eq!(ids(&read), [id]);
}

pub(crate) async fn a_pipeline_that_a_demoted_primary_refuses_ends_its_connection(queue: &Queue) {
    let (proxy, queue) = behind_a_proxy(queue).await;
    let attempt = queue.submit_and_take("w").await;
    let _promoted = fail_over(queue.server(), &proxy).await;

    let settlements = [(attempt, complete())];
    let demoted = queue.store.work.settle(&settlements).await.unwrap().remove(0);
    let promoted = queue.store.work.settle(&settlements).await.unwrap().remove(0);

    assert!(matches!(demoted, Err(StoreError::NotReady(_))), "{demoted:?}");
    assert_eq!(promoted.unwrap(), Settled::Fenced(Fence::Missing));
}

as_tests![
    forgotten_scripts_are_loaded_again,
    a_cut_connection_is_replaced,
    a_connection_that_fell_silent_is_closed,
    a_silent_idle_connection_is_noticed,
    a_frozen_redis_is_waited_for;
    one_server:
    a_store_may_be_opened_before_redis_is_there,
    a_replica_is_not_up_until_it_is_promoted,
    a_killed_redis_comes_back_with_every_job_and_every_lease,
    a_blocked_reader_outlives_a_restart,
    a_reader_leaves_a_primary_that_was_demoted,
    a_pipeline_that_a_demoted_primary_refuses_ends_its_connection,
];
