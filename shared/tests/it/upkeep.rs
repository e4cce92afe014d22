//! Upkeep: the sweep of the log, the removal of dead workers' consumers, and heartbeats.

use std::{collections::HashMap, time::Duration};

use tepal_shared::{
    job::{JobId, ModelName, Priority, owner::View},
    queue::{
        heartbeat::WorkerRecord,
        intake::Cancelled,
        work::{Settlement, Swept},
    },
};
use tepal_tests::wait::eventually;

use crate::{
    queue::{DONE, Queue, SOON, complete, fail, model, other, stream},
    repairs::{Damage, damaged},
    snapshot::Snapshot,
};

const NOTHING: Swept = Swept { next: None, forgotten: 0, repaired: 0 };

pub(crate) async fn a_sweep_leaves_everything_alone_that_is_in_order(queue: &Queue) {
    let mut ids = Vec::new();
    for settlement in [Settlement::Retry(SOON), Settlement::Release, complete(), fail()] {
        let attempt = queue.submit_and_take("w").await;
        assert_eq!(queue.settle(&attempt, settlement).await, DONE);
        ids.push(attempt.job_id);
        queue.take("w", 10).await;
    }
    let cancelled = queue.submit().await;
    queue.store.intake.cancel(cancelled, View::All).await.unwrap();
    ids.extend([cancelled, queue.submit().await]);
    queue.deliver("us").await;
    ids.extend([queue.submit().await, queue.submit_at(Priority::Low).await]);
    let states = states(queue, &ids).await;

    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap(), NOTHING);

    assert_eq!(self::states(queue, &ids).await, states);
}

async fn states(queue: &Queue, ids: &[JobId]) -> Vec<String> {
    let snapshot = Snapshot::read(queue, ids).await;
    ids.iter().map(|id| snapshot.state(*id)).collect()
}

pub(crate) async fn a_sweep_of_jobs_without_a_group_changes_nothing(queue: &Queue) {
    let id = queue.submit().await;
    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap(), NOTHING);
    assert_eq!(queue.state(id).await, "pending 0/0/0 new input");
}

pub(crate) async fn a_sweep_requeues_jobs_that_no_consumer_could_claim(queue: &Queue) {
    for damage in [Damage::ConsumerDeleted, Damage::EntryDeleted, Damage::StreamDeleted] {
        let (queue, lost) = damaged(queue, damage).await;

        let swept = queue.store.work.sweep(0, None, 100).await.unwrap();

        assert_eq!(swept, Swept { repaired: 1, ..NOTHING }, "{damage:?}");
        assert_eq!(queue.state(lost.job_id).await, "pending 1/0/0 new input", "{damage:?}");
        assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap(), NOTHING, "{damage:?}");
        let again = queue.take_one("heir").await;
        assert_eq!((again.job_id, again.token), (lost.job_id, 2));
        assert_ne!(queue.settle(&lost, complete()).await, DONE);
        assert_eq!(queue.settle(&again, complete()).await, DONE);
        eventually(SOON, "the streams to be empty", async || {
            queue.take("heir", 1).await;
            queue.outstanding().await == (0, 0)
        })
        .await;
    }
}

pub(crate) async fn a_sweep_forgets_expired_jobs(queue: &Queue) {
    let (kept, expired) = (queue.submit().await, queue.submit().await);
    queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(expired)]).await;
    // And what is no job at all.
    queue.redis::<String>(&["XADD", &queue.store.queue.keys().log(0), "*", "id", "what"]).await;

    let swept = queue.store.work.sweep(0, None, 100).await.unwrap();

    assert_eq!(swept, Swept { forgotten: 2, ..NOTHING });
    let log = queue.store.views.log(None, 10).await.unwrap().entries;
    assert_eq!(log.into_iter().map(|entry| entry.id).collect::<Vec<_>>(), [kept]);
}

pub(crate) async fn a_sweep_of_what_can_have_expired_looks_at_no_younger_jobs(queue: &Queue) {
    let [expired, old, _young, behind] =
        [queue.submit().await, queue.submit().await, queue.submit().await, queue.submit().await];
    for id in [expired, behind] {
        queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(id)]).await;
    }
    queue.set_field(old, "at", "1000").await;

    let swept = queue.store.work.sweep_expired(0, None, 100).await.unwrap();

    assert_eq!(swept, Swept { forgotten: 1, ..NOTHING });
    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap(), Swept { forgotten: 1, ..NOTHING });
}

/// Records that an operator may have damaged.
pub(crate) async fn a_job_without_its_entry_is_queued_again_or_cancelled(queue: &Queue) {
    let (swept, cancelled) = (queue.submit().await, queue.submit().await);
    for id in [swept, cancelled] {
        queue.redis::<u64>(&["HDEL", &queue.store.queue.keys().job(id), "entry"]).await;
    }

    assert_eq!(
        queue.store.intake.cancel(cancelled, View::All).await.unwrap(),
        Cancelled::Done(Some(crate::queue::model()))
    );
    assert_eq!(queue.store.work.sweep(0, None, 100).await.unwrap(), Swept { repaired: 1, ..NOTHING });

    let again = queue.take_one("heir").await;
    assert_eq!(again.job_id, swept);
}

pub(crate) async fn a_sweep_goes_on_where_it_stopped(queue: &Queue) {
    for _ in 0..7 {
        let id = queue.submit().await;
        queue.redis::<u64>(&["DEL", &queue.store.queue.keys().job(id)]).await;
    }
    let (mut forgotten, mut after) = (Vec::new(), None);
    loop {
        let swept = queue.store.work.sweep(0, after.as_deref(), 3).await.unwrap();
        forgotten.push(swept.forgotten);
        after = swept.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(forgotten, [3, 3, 1]);
}

/// The names of the consumers of the normal stream.
async fn consumers(queue: &Queue) -> Vec<String> {
    let stream = queue.store.queue.keys().stream(0, stream(Priority::Normal));
    let infos: Vec<std::collections::HashMap<String, redis::Value>> =
        queue.redis(&["XINFO", "CONSUMERS", &stream, "workers"]).await;
    let mut names: Vec<String> = infos
        .into_iter()
        .map(|mut info| redis::from_redis_value(info.remove("name").unwrap()).unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) async fn consumers_of_dead_workers_go_once_they_hold_nothing(queue: &Queue) {
    let holder = queue.submit_and_take("dead-1").await;
    for consumer in ["dead-2", "live-1"] {
        let attempt = queue.submit_and_take(consumer).await;
        assert_eq!(queue.settle(&attempt, complete()).await, DONE);
    }
    let waiting = queue.submit_and_take("live-1").await;
    assert_eq!(queue.settle(&waiting, Settlement::Release).await, DONE);
    let again = queue.take_one("live-1").await;
    assert_eq!(consumers(queue).await, ["dead-1", "dead-2", "live-1", "waiting"]);
    let live = ["live".to_owned()];

    assert_eq!(
        queue
            .store
            .work
            .prune(0, &Priority::ALL.map(stream), &live, Duration::from_secs(3_600))
            .await
            .unwrap(),
        0
    );
    // The other streams may have consumers, too: from Redis 7.2 on, an empty read creates one.
    prune(queue, &["dead-1", "live-1", "waiting"]).await;
    assert_eq!(queue.settle(&holder, complete()).await, DONE);
    assert_eq!(queue.settle(&again, complete()).await, DONE);
    prune(queue, &["live-1", "waiting"]).await;
}

/// Removes silent consumers until one has gone, and checks who is left.
async fn prune(queue: &Queue, left: &[&str]) {
    let live = ["live".to_owned()];
    eventually(SOON, "a consumer to go", async || {
        queue.store.work.prune(0, &Priority::ALL.map(stream), &live, Duration::ZERO).await.unwrap();
        consumers(queue).await.len() <= left.len()
    })
    .await;
    assert_eq!(consumers(queue).await, left);
}

pub(crate) async fn workers_live_as_long_as_they_are_heard(queue: &Queue) {
    let queue = queue.with_policy(|policy| policy.worker_timeout = Duration::from_secs(100));
    assert_eq!(queue.store.work.heartbeat("a", r#"{"x":1}"#).await.unwrap(), 1);
    assert_eq!(queue.store.work.heartbeat("b", "{}").await.unwrap(), 2);
    assert_eq!(queue.store.work.heartbeat("b", "{}").await.unwrap(), 2);
    queue.redis::<u64>(&["HSET", &queue.store.queue.keys().workers(), "silent", "1 {}"]).await;

    let mut workers = queue.store.views.workers().await.unwrap();
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    let [a, b] = &workers[..] else { panic!("{workers:?}") };
    assert_eq!((a.id.as_str(), a.state.as_str(), b.id.as_str()), ("a", r#"{"x":1}"#, "b"));
    assert!(workers.iter().all(|WorkerRecord { silence, .. }| *silence < SOON), "{workers:?}");

    assert_eq!(queue.store.work.heartbeat("a", "{}").await.unwrap(), 2);
    assert_eq!(queue.redis::<u64>(&["HLEN", &queue.store.queue.keys().workers()]).await, 2);
    queue.store.work.farewell("b").await.unwrap();
    assert_eq!(queue.store.views.workers().await.unwrap().len(), 1);
}

pub(crate) async fn descriptions_stay_as_long_as_a_worker_publishes_them(queue: &Queue) {
    let models = queue.store.queue.keys().models();
    let stale = "1 {}";
    queue.redis::<u64>(&["HSET", &models, "stale", stale]).await;
    queue.store.work.publish(&[(model(), r#"{"x": 1}"#.to_owned())]).await.unwrap();
    let published = queue.store.views.published_models().await.unwrap();
    assert_eq!(published, HashMap::from([(model().to_string(), r#"{"x": 1}"#.to_owned())]));
    // Another worker's models stay.
    let other: ModelName = "other".parse().unwrap();
    queue.store.work.publish(&[(other, "{}".to_owned())]).await.unwrap();
    assert_eq!(queue.store.views.published_models().await.unwrap().len(), 2);

    queue.store.views.unpublish(other).await.unwrap();
    assert_eq!(queue.store.views.published_models().await.unwrap().len(), 1);
}

pub(crate) async fn each_model_has_its_own_description(queue: &Queue) {
    let described = [(model(), r#"{"x":1}"#.to_owned()), (other(), r#"{"x":2}"#.to_owned())];
    queue.store.work.publish(&described).await.unwrap();

    let published = queue.store.views.published_models().await.unwrap();
    assert_eq!(published, described.map(|(model, text)| (model.to_string(), text)).into());
}

pub(crate) async fn removed_models_are_remembered_for_a_while(queue: &Queue) {
    let models = queue.store.queue.keys().models();
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<ModelName>>();
    let removed = async || queue.store.work.removed_models().await.unwrap();
    let day = 24 * 3600 * 1000;
    let now: Vec<u64> = queue.redis(&["TIME"]).await;
    let ago = |days: u64| (now[0] * 1000 - days * day).to_string();
    for (name, value) in [("forgotten", ago(31)), ("gone", ago(29)), ("silent", format!("{} {{}}", ago(2)))] {
        queue.redis::<u64>(&["HSET", &models, name, &value]).await;
    }
    queue.store.work.publish(&[(model(), "{}".to_owned())]).await.unwrap();
    queue.store.views.unpublish("unwanted".parse().unwrap()).await.unwrap();
    assert_eq!(removed().await, names(&["gone", "silent", "unwanted"]));

    // One that is served again is no longer removed.
    queue.store.work.publish(&[("silent".parse().unwrap(), "{}".to_owned())]).await.unwrap();

    assert_eq!(removed().await, names(&["gone", "unwanted"]));
    assert_eq!(queue.store.views.published_models().await.unwrap().len(), 2);
    let mark: u64 = queue.redis(&["HGET", &models, "unwanted"]).await;
    assert!(mark >= now[0] * 1000, "{mark}");
}

as_tests![
    a_sweep_leaves_everything_alone_that_is_in_order,
    a_sweep_of_jobs_without_a_group_changes_nothing,
    a_sweep_requeues_jobs_that_no_consumer_could_claim,
    a_sweep_forgets_expired_jobs,
    a_sweep_of_what_can_have_expired_looks_at_no_younger_jobs,
    a_job_without_its_entry_is_queued_again_or_cancelled,
    a_sweep_goes_on_where_it_stopped,
    consumers_of_dead_workers_go_once_they_hold_nothing,
    workers_live_as_long_as_they_are_heard,
    descriptions_stay_as_long_as_a_worker_publishes_them,
    each_model_has_its_own_description,
    removed_models_are_remembered_for_a_while,
];
