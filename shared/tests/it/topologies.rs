//! Several Redis servers: a primary with replicas and Sentinels, and a Redis Cluster. Their primaries fail, are replaced and give slots
//! away while jobs are submitted.

mod sentinel;

use std::{collections::HashSet, time::Duration};

use tepal_shared::{
    job::{JobId, JobStatus, Stream},
    queue::{
        Policy,
        error::{StoreError, WrongTopology},
        intake::Submitted,
        keys::Keys,
        link::{ConnectionSettings, Redis},
        views::{Notifier, Watch},
        work::TakeRequest,
    },
};
use tepal_tests::{
    redis::{RedisCluster, RedisServer},
    wait::eventually,
};
use tokio::time::{Instant, timeout};

use crate::{
    queue::{FROM_START, SOON, complete, model, new_job},
    store::Store,
};

const PARTITIONS: u8 = 8;

async fn open(url: &str) -> Store {
    let settings = ConnectionSettings::new(url).unwrap().with_patience(SOON);
    let keys = if settings.is_cluster() { Keys::in_cluster("q") } else { Keys::new("q") };
    let policy =
        Policy { lease: Duration::from_secs(60), partitions: u16::from(PARTITIONS), ..Policy::default() };
    let settings = settings.for_queue(&keys, policy.partitions);
    let store = Store::new(Redis::open(settings).unwrap(), keys, policy);
    timeout(SOON, store.queue.redis().up()).await.unwrap();
    store
}

/// Submits a job to each partition.
async fn submit_to_all(store: &Store) -> Vec<JobId> {
    let ids: Vec<_> = (0..PARTITIONS).map(JobId::new).collect();
    for id in &ids {
        assert_eq!(store.intake.submit(*id, new_job()).await.unwrap(), Submitted::Accepted, "{id}");
    }
    ids
}

/// Takes every job and completes it.
async fn complete_all(store: &Store) -> HashSet<JobId> {
    let mut claims = Vec::new();
    for partition in 0..PARTITIONS {
        let streams = Stream::all_of(model());
        let due_from = Some(&FROM_START[..]);
        let (limit, max_bytes) = (100, usize::MAX);
        let request = TakeRequest { partition, consumer: "w", streams: &streams, limit, max_bytes, due_from };
        let granted = store.work.take(&request).await.unwrap();
        claims.extend(granted.deliveries.iter().map(|delivery| delivery.attempt.claim));
    }
    let settlements: Vec<_> = claims.iter().map(|claim| (*claim, complete())).collect();
    for settled in store.work.settle(&settlements).await.unwrap() {
        settled.unwrap();
    }
    claims.iter().map(|claim| claim.job_id).collect()
}

/// Every job ends, is found by its id and is listed.
async fn all_work(store: &Store) {
    let ids = submit_to_all(store).await;
    assert_eq!(complete_all(store).await, ids.iter().copied().collect());
    for job in store.views.jobs(&ids).await.unwrap() {
        assert_eq!(job.unwrap().status, JobStatus::Completed);
    }
    let listed: HashSet<_> =
        store.views.log(None, 1000).await.unwrap().entries.iter().map(|entry| entry.id).collect();
    assert!(ids.iter().all(|id| listed.contains(id)));
    store.work.heartbeat("w", "{}").await.unwrap();
    assert_eq!(store.work.workers().await.unwrap().len(), 1);
}

/// Submits until a primary accepts, and returns how long that took.
async fn outage(store: &Store, partition: u8) -> Duration {
    let began = Instant::now();
    loop {
        match store.intake.submit(JobId::new(partition), new_job()).await {
            Ok(Submitted::Accepted) => return began.elapsed(),
            Err(error) if error.is_retryable() => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_cluster_serves_a_queue_and_its_replicas_take_over() {
    let cluster = RedisCluster::start(&RedisServer::options(), 3, 1).await;
    let store = open(&cluster.url()).await;
    all_work(&store).await;
    let owners: HashSet<_> =
        (0..PARTITIONS).map(|partition| cluster.owner(&store.queue.keys().log(partition)).port()).collect();
    assert_eq!(owners.len(), 3, "the partitions are on all primaries");

    let partition = 3;
    let before = submit_to_all(&store).await;
    eventually(SOON, "the replica", async || {
        let key = store.queue.keys().job(before[usize::from(partition)]);
        cluster.replicas.iter().any(|replica| {
            replica.cli(&["DBSIZE"]) != "0" && {
                let mut command = vec!["CLUSTER", "KEYSLOT", &key];
                let slot = replica.cli(&command);
                command = vec!["CLUSTER", "COUNTKEYSINSLOT", &slot];
                replica.cli(&command) != "0"
            }
        })
    })
    .await;
    let killed = cluster.owner(&store.queue.keys().log(partition));
    killed.kill9();
    // Other partitions do not wait for it.
    let other = (0..PARTITIONS)
        .find(|other| {
            let owner = cluster.owner(&store.queue.keys().log(*other));
            owner.port() != killed.port() && *other != partition
        })
        .unwrap();
    outage(&store, other).await;
    outage(&store, partition).await;
    let done = complete_all(&store).await;
    assert!(before.iter().all(|id| done.contains(id)), "nothing is lost");
    all_work(&store).await;
}

#[tokio::test]
async fn slots_move_between_primaries_while_jobs_are_submitted() {
    let cluster = RedisCluster::start(&RedisServer::options(), 2, 0).await;
    let store = open(&cluster.url()).await;
    let before = submit_to_all(&store).await;
    let partition = 5;
    let log = store.queue.keys().log(partition);
    let source = cluster.owner(&log);
    let target = cluster.primaries.iter().find(|primary| primary.port() != source.port()).unwrap();
    let slot = source.cli(&["CLUSTER", "KEYSLOT", &log]);
    let (from, to) = (source.cli(&["CLUSTER", "MYID"]), target.cli(&["CLUSTER", "MYID"]));

    target.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
    source.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]);
    // A job is read wherever it is meanwhile.
    let job = before[usize::from(partition)];
    let key = store.queue.keys().job(job);
    let port = target.port().to_string();
    source.cli(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]);
    assert_eq!(store.views.job(job).await.unwrap().unwrap().status, JobStatus::Pending);
    let read = store.views.jobs(&before).await.unwrap();
    assert!(read.iter().all(Option::is_some), "{read:?}");
    // A script needs keys that are on both.
    let impatient = {
        let settings =
            ConnectionSettings::new(&cluster.url()).unwrap().with_patience(Duration::from_millis(100));
        let keys = Keys::in_cluster("q");
        let settings = settings.for_queue(&keys, u16::from(PARTITIONS));
        Store::new(Redis::open(settings).unwrap(), keys, store.queue.policy().clone())
    };
    timeout(SOON, impatient.queue.primary(partition).up()).await.unwrap();
    let refused = impatient.intake.submit(JobId::new(partition), new_job()).await;
    assert!(matches!(refused, Err(StoreError::NotReady(_))), "{refused:?}");

    let migrated = async {
        while let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])
            && !keys.is_empty()
        {
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            command.extend(keys.lines());
            source.cli(&command);
        }
        for server in [target, source] {
            server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
        }
    };
    let (submitted, ()) = tokio::join!(store.intake.submit(JobId::new(partition), new_job()), migrated);
    assert_eq!(submitted.unwrap(), Submitted::Accepted);
    assert_eq!(cluster.owner(&log).port(), target.port());
    let done = complete_all(&store).await;
    assert!(before.iter().all(|id| done.contains(id)), "nothing is lost");
    assert_eq!(done.len(), before.len() + 1);
    all_work(&store).await;
}

/// Ends a job that is followed at this server, and waits until its waiter hears of that.
async fn end_of_followed(store: &Store, at: &RedisServer, watch: &mut Watch, id: JobId) {
    let channel = store.queue.keys().job(id);
    let is_followed = async || at.cli(&["PUBSUB", "SHARDNUMSUB", &channel]).ends_with("\n1");
    eventually(SOON, "the job to be followed", is_followed).await;
    assert!(complete_all(store).await.contains(&id));
    timeout(SOON, watch.changed()).await.unwrap();
}

#[tokio::test]
async fn waiters_hear_of_their_jobs_wherever_the_partition_goes() {
    let cluster = RedisCluster::start(&RedisServer::options(), 2, 1).await;
    let store = open(&cluster.url()).await;
    let notifier = Notifier::new(store.queue.redis().clone(), store.queue.keys().clone());
    let partition = 5;
    let log = store.queue.keys().log(partition);
    let follow = async || {
        let ids = submit_to_all(&store).await;
        let id = ids[usize::from(partition)];
        let mut watch = notifier.watch(id);
        timeout(SOON, watch.changed()).await.unwrap();
        (id, watch)
    };

    let (id, mut watch) = follow().await;
    end_of_followed(&store, cluster.owner(&log), &mut watch, id).await;

    // The slot moves to another primary.
    let (id, mut watch) = follow().await;
    let source = cluster.owner(&log);
    let target = cluster.primaries.iter().find(|primary| primary.port() != source.port()).unwrap();
    cluster.move_slot(&log, target).await;
    timeout(SOON, watch.changed()).await.expect("changes may have been missed");
    end_of_followed(&store, target, &mut watch, id).await;

    // A replica takes over in good order. Its former primary, now a replica, passes messages on.
    let (id, mut watch) = follow().await;
    let port = target.port().to_string();
    let follows = |replica: &&RedisServer| replica.cli(&["ROLE"]).lines().nth(2) == Some(&port);
    cluster.replicas.iter().find(follows).unwrap().cli(&["CLUSTER", "FAILOVER"]);
    eventually(SOON, "the failover", async || target.cli(&["ROLE"]).starts_with("slave")).await;
    end_of_followed(&store, target, &mut watch, id).await;
}

#[tokio::test]
async fn no_primary_of_a_cluster_serves_a_queue_of_another_format() {
    let cluster = RedisCluster::start(&RedisServer::options(), 2, 0).await;
    let store = open(&cluster.url()).await;
    submit_to_all(&store).await;

    let format = store.queue.keys().format();
    cluster.owner(&format).cli(&["SET", &format, "3"]);

    let refused = async |partition| {
        let submitted = store.intake.submit(JobId::new(partition), new_job()).await;
        matches!(submitted, Err(StoreError::WrongTopology(_)))
    };
    for partition in 0..PARTITIONS {
        eventually(SOON, "the partition to be refused", async || refused(partition).await).await;
    }
    assert!(store.queue.redis().down().is_some());
}

#[tokio::test]
async fn a_process_with_fewer_partitions_than_the_queue_is_refused() {
    let redis = RedisServer::start().await;
    let store = open(&redis.url()).await;
    let refused = async |partitions| {
        let policy = Policy { partitions, ..Policy::default() };
        let other = Store::new(store.queue.redis().clone(), store.queue.keys().clone(), policy);
        timeout(Duration::from_millis(300), other.queue.refused()).await.ok()
    };
    assert_eq!(refused(2).await, None, "there are no jobs");
    store.intake.submit(JobId::new(2), new_job()).await.unwrap();
    let fewer = WrongTopology::FewerPartitions { found: 3, own: 2 };
    assert_eq!(refused(2).await, Some(fewer));
    assert_eq!(refused(3).await, None);
}
