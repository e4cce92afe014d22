//! What the workers keep in order by themselves: what operators broke, what expired, what dead workers left behind.

use std::time::Duration;

use tepal_shared::{job::Priority, queue::Policy};
use tepal_tests::{
    model_server::{Behaviour, ModelServer, ServerSpec},
    process::Worker,
    redis::RedisServer,
    wait::eventually,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, running, stream},
    settings::Settings,
};

fn normal_stream(queue: &Queue) -> String {
    queue.store.queue.keys().stream(0, stream(Priority::Normal))
}

/// The consumers of the normal stream, and how many entries each owns.
fn consumers(queue: &Queue) -> Vec<(String, u64)> {
    let text = queue.redis.cli(&["XINFO", "CONSUMERS", &normal_stream(queue), "workers"]);
    let lines: Vec<_> = text.lines().collect();
    let field = |after: usize, name: &str| {
        let at = lines.iter().enumerate().skip(after).find(|(_, line)| **line == name).unwrap().0;
        lines[at + 1].to_owned()
    };
    let starts = lines.iter().enumerate().filter(|(_, line)| **line == "name").map(|(at, _)| at);
    starts.map(|at| (field(at, "name"), field(at, "pending").parse().unwrap())).collect()
}

/// Waits until the worker has counted so many.
async fn counted(worker: &Worker, metric: &str, expected: f64) {
    let look = async || {
        let seen = worker.metrics().await.metric(metric);
        if seen == expected { Ok(()) } else { Err(seen) }
    };
    eventually(SOON, metric, look).await;
}

/// A worker dies with running jobs; gives a queue with those, and a server that answers.
async fn left_behind(jobs: usize) -> (Queue, ModelServer, Vec<tepal_shared::job::JobId>) {
    let queue = Queue::start().await;
    let (hanging, healthy) =
        (ModelServer::start(ServerSpec::iris()).await, ModelServer::start(ServerSpec::iris()).await);
    hanging.set_behaviour(Behaviour::Hang);
    let ids = queue.submit_all((0..jobs).map(|_| input(5.1))).await;
    let worker = queue.worker(Settings::serving(&hanging)).await;
    running(&hanging, 1).await;
    let all_held = async || queue.in_flight().await == jobs as u64;
    eventually(SOON, "all jobs to be held", all_held).await;
    worker.kill9();
    (queue, healthy, ids)
}

#[tokio::test]
async fn jobs_of_a_consumer_that_an_operator_removed_are_queued_again_and_counted() {
    let (queue, server, ids) = left_behind(5).await;
    for (consumer, _) in consumers(&queue) {
        queue.redis.cli(&["XGROUP", "DELCONSUMER", &normal_stream(&queue), "workers", &consumer]);
    }

    let worker = queue.worker(Settings::serving(&server)).await;

    queue.all_completed(&ids).await;
    counted(&worker, "tepal_entries_repaired_total", 5.0).await;
    worker.wait_for_log("entries_repaired", SOON).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn jobs_of_a_group_that_an_operator_destroyed_run_again_and_end_once() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Delay(Duration::from_millis(300)));
    let worker = queue.worker(Settings::serving(&server).one_at_a_time()).await;
    let ids = queue.submit_all((0..20).map(|_| input(5.1))).await;
    running(&server, 1).await;
    counted(&worker, "tepal_groups_created_total", 3.0).await;

    queue.redis.cli(&["XGROUP", "DESTROY", &normal_stream(&queue), "workers"]);

    queue.all_completed(&ids).await;
    counted(&worker, "tepal_groups_created_total", 4.0).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn lost_data_is_noticed_and_counted_and_work_goes_on() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let worker = queue.worker(Settings::serving(&server)).await;
    let ids = queue.submit_all((0..3).map(|_| input(5.1))).await;
    queue.all_completed(&ids).await;
    looked_at_the_log(&queue).await;

    queue.redis.cli(&["FLUSHALL"]);

    counted(&worker, "tepal_data_loss_total", 1.0).await;
    counted(&worker, "tepal_jobs_lost_total", 3.0).await;
    worker.wait_for_log("went back by 3 entries", SOON).await;
    let ids = queue.submit_all((0..10).map(|_| input(5.1))).await;
    queue.all_completed(&ids).await;
    queue.assert_drained().await;
}

/// Waits until a janitor has seen all that is in the log now.
async fn looked_at_the_log(queue: &Queue) {
    let looks = || queue.redis.calls("xinfo|stream");
    let before = looks();
    eventually(SOON, "the janitor", async || looks() >= before + 2).await;
}

#[tokio::test]
async fn held_jobs_that_redis_lost_are_counted() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let worker = queue.worker(Settings::serving(&server).with_lease_ms(1000)).await;
    let ids = queue.submit_all((0..4).map(|_| input(5.1))).await;
    running(&server, 1).await;
    // The renewal of a lease finds one gone, and none that was cancelled.
    queue.redis.cli(&["DEL", &queue.store.queue.keys().job(ids[0])]);
    queue.store.intake.cancel(ids[1], tepal_shared::job::owner::View::All).await.unwrap();

    counted(&worker, "tepal_jobs_lost_total", 1.0).await;
    counted(&worker, "tepal_data_loss_total", 1.0).await;
    worker.wait_for_log("remembered jobs are gone", SOON).await;
}

#[tokio::test]
async fn the_log_forgets_as_fast_as_jobs_expire() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let log = queue.store.queue.keys().log(0);
    // Accepted in the first minute of 1970, 1000/s; their records are gone.
    let fill = "for ms = 1, 60000 do redis.call('XADD', KEYS[1], ms .. '-0', 'id', string.rep('x', 16)) end";
    queue.redis.cli(&["EVAL", fill, "1", &log]);
    let living = queue.submit(input(5.1)).await;

    let _worker = queue.worker(Settings::serving(&server)).await;

    // Much sooner than the whole log could be looked at for jobs without entries.
    let forgotten = async || queue.redis.cli(&["XLEN", &log]) == "1";
    eventually(SOON, "the log to forget", forgotten).await;
    queue.completed(living).await;
}

#[tokio::test]
async fn the_log_forgets_jobs_that_expired_and_no_others() {
    let queue = Queue::start().await;
    let settings = Settings::onnx().with("RESULT_TTL_SECONDS", 1);
    let worker = queue.worker(settings).await;
    let ids = queue.submit_all((0..30).map(|_| input(5.1))).await;
    let done =
        async || worker.logs().lines().iter().filter(|line| line.contains("prediction_completed")).count();
    eventually(SOON, "all jobs to end", async || done().await == ids.len()).await;
    worker.sigterm();
    worker.wait_exit(SOON).await;
    let waiting = queue.submit(input(5.1)).await;

    // No worker that could run the last job: its model server is away.
    let _janitor =
        queue.worker(Settings::serving_at(([127, 0, 0, 1], tepal_tests::ports::free_port()).into())).await;

    let log = queue.store.queue.keys().log(0);
    eventually(SOON, "the log to be trimmed", async || queue.redis.cli(&["XLEN", &log]) == "1").await;
    let left = queue.store.views.log(None, 10).await.unwrap().entries;
    assert_eq!(left.into_iter().map(|entry| entry.id).collect::<Vec<_>>(), [waiting]);
}

#[tokio::test]
async fn consumers_of_dead_workers_are_removed_but_not_while_they_own_entries() {
    let lease = Duration::from_millis(300);
    let policy = Policy { lease, ..Policy::default() };
    let queue = Queue::with_policy(RedisServer::shipped().start().await, policy);
    let server = ModelServer::start(ServerSpec::iris()).await;
    server.set_behaviour(Behaviour::Hang);
    let settings = Settings::serving(&server).with_lease_ms(300).with("NUM_WORKERS", 1);
    let doomed = queue.worker(settings).await;
    let waits = async || queue.redis.cli(&["INFO", "clients"]).contains("blocked_clients:1");
    eventually(SOON, "the worker to wait for a job", waits).await;
    let id = queue.submit(input(5.1)).await;
    running(&server, 1).await;
    doomed.kill9();
    // What a blocked read delivers goes through a consumer of its own.
    let [(dead, 1), (_inbox, 0)] = &consumers(&queue)[..] else { panic!("{:?}", consumers(&queue)) };

    // Its model server is away, so it takes nothing, and its janitor works.
    let away = Settings::serving_at(([127, 0, 0, 1], tepal_tests::ports::free_port()).into());
    let _janitor = queue.worker(away.with_lease_ms(300)).await;
    let silent_ms = 30 * 300 + 6_000;
    queue.lapsed(silent_ms).await;
    // Without its consumer, nobody would hold the job.
    let owner = [(dead.clone(), 1)];
    let left =
        async || if consumers(&queue) == owner { Ok(()) } else { Err(format!("{:?}", consumers(&queue))) };
    eventually(SOON, "only the entry's owner to be left", left).await;

    queue.reclaim_and_release(id).await;
    let gone = async || consumers(&queue).iter().all(|(name, _)| name != dead);
    eventually(SOON, "the dead worker's consumer to be removed", gone).await;
    assert!(consumers(&queue).contains(&("waiting".to_owned(), 1)));
}

#[tokio::test]
async fn a_walk_through_the_whole_log_is_spread_over_time() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let ids = queue.submit_all((0..450).map(|_| input(5.1))).await;
    let monitor = queue.redis.monitor();

    let _worker = queue.worker(Settings::serving(&server)).await;
    queue.all_completed(&ids).await;

    // The script reads so many entries of the log.
    let log = queue.store.queue.keys().log(0);
    let is_chunk = |words: &[String]| words[0] == "XRANGE" && words[1] == log && words[5..] == ["100"];
    let whole_walk = async || {
        let mut times: Vec<_> =
            monitor.executed().into_iter().filter(|call| is_chunk(&call.words)).map(|call| call.at).collect();
        // The first one is the look for expired jobs.
        if times.len() > 5 { Ok(times.split_off(1)) } else { Err(times.len()) }
    };
    let times = eventually(SOON, "a walk", whole_walk).await;
    let pauses: Vec<_> = times.windows(2).take(4).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(125)), "{pauses:?}");
}
