//! Workers that are killed in the middle of their work.

use std::time::Duration;

use tepal_shared::{job::Stream, queue::work::TakeRequest};
use tepal_tests::{
    model_server::{Behaviour, ModelServer, ServerSpec},
    wait::eventually,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, model, rows, running},
    settings::Settings,
};

const LEASE_MS: u64 = 1_000;

fn now_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    since.as_millis() as u64
}

#[tokio::test]
async fn the_jobs_of_a_killed_worker_complete_on_another_within_the_lease_and_a_second() {
    let queue = Queue::start().await;
    let (doomed, healthy) =
        (ModelServer::start(ServerSpec::iris()).await, ModelServer::start(ServerSpec::iris()).await);
    doomed.set_behaviour(Behaviour::Hang);
    let settings = |server| Settings::serving(server).with_lease_ms(LEASE_MS).with("BATCH_MAX_ROWS", 2);
    let first = queue.worker(settings(&doomed)).await;
    let ids = queue.submit_all((0..60).map(|_| input(5.1))).await;
    let held: usize = running(&doomed, 8).await.iter().map(|call| call.rows).sum();
    let second = queue.worker(settings(&healthy)).await;

    let killed_at = now_ms();
    first.kill9();

    let jobs = queue.all_completed(&ids).await;
    let last = jobs.iter().map(|job| job.finished_at_ms.unwrap()).max().unwrap();
    assert!(last <= killed_at + LEASE_MS + 1_000, "the last one {} ms after the kill", last - killed_at);
    let again = jobs.iter().filter(|job| job.attempts == 2).count();
    assert_eq!(again, held, "the jobs that the dead worker held ran again, the others once");
    assert_eq!(jobs.iter().filter(|job| job.attempts == 1).count(), ids.len() - held);
    let completed = second.logs().lines().iter().filter(|line| line.contains("prediction_completed")).count();
    assert_eq!(completed, ids.len(), "each job completed exactly once");
    assert_eq!(second.metrics().await.metric("tepal_jobs_reclaimed_total"), held as f64);
    assert_eq!(rows(&healthy).iter().sum::<usize>(), ids.len(), "each row was computed once by the survivor");
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_job_that_saw_a_crash_is_called_alone() {
    let queue = Queue::start().await;
    let (doomed, healthy) =
        (ModelServer::start(ServerSpec::iris()).await, ModelServer::start(ServerSpec::iris()).await);
    doomed.set_behaviour(Behaviour::Hang);
    let settings = |server| Settings::serving(server).with_lease_ms(500).one_at_a_time();
    let ids = queue.submit_all((0..6).map(|_| input(5.1))).await;
    let worker = queue.worker(settings(&doomed)).await;
    assert_eq!(running(&doomed, 1).await[0].rows, 6);

    worker.kill9();
    let _next = queue.worker(settings(&healthy)).await;

    queue.all_completed(&ids).await;
    assert_eq!(rows(&healthy), [1; 6]);
}

#[tokio::test]
async fn a_new_worker_beside_many_jobs_of_others_waits_for_new_ones_and_can_be_stopped() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    queue.submit_all((0..1000).map(|_| input(5.1))).await;
    let take = TakeRequest {
        partition: 0,
        consumer: "another-worker",
        streams: &Stream::all_of(model()),
        limit: 250,
        max_bytes: usize::MAX,
        due_from: None,
    };
    for _ in 0..4 {
        assert_eq!(queue.store.work.take(&take).await.unwrap().deliveries.len(), 250);
    }

    // Longer than the test, so that nothing of that is due.
    let worker = queue.worker(Settings::serving(&server).with("LEASE_MS", 600_000)).await;

    let waits = async || queue.redis.cli(&["INFO", "clients"]).contains("blocked_clients:1");
    eventually(SOON, "the consumer to wait", waits).await;
    let ids = queue.submit_all((0..3).map(|_| input(5.1))).await;
    queue.all_completed(&ids).await;
    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());
}

#[tokio::test]
async fn a_backlog_is_shared_by_two_workers_and_each_job_is_called_once() {
    let spec = ServerSpec { call_cost: Duration::from_millis(5), ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let settings = Settings::serving(&server).with("BATCH_MAX_ROWS", 4);
    let workers = [queue.worker(settings.clone()).await, queue.worker(settings).await];

    let ids = queue.submit_all((0..400).map(|_| input(5.1))).await;
    queue.all_completed(&ids).await;

    assert_eq!(rows(&server).iter().sum::<usize>(), 400);
    for worker in workers {
        let completed = worker.metrics().await.metric("tepal_jobs_processed_total");
        assert!(completed >= 40.0, "one of two workers did only {completed} of 400 jobs");
    }
}
