//! SIGTERM: running jobs are finished or released, nothing is lost, and the process ends in time.

use std::time::{Duration, Instant};

use tepal_shared::job::{JobId, JobStatus};
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
    process::Worker,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, outcomes, running},
    settings::Settings,
};

async fn ends_well(worker: &Worker) {
    worker.sigterm();
    let status = worker.wait_exit(SOON).await;
    assert!(status.success(), "{status}: {}", worker.logs().tail(20));
}

/// Every job completes with its first attempt.
async fn assert_completed_at_first(queue: &Queue, ids: &[JobId]) {
    for job in queue.all_completed(ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn what_runs_is_finished_and_what_waits_is_left_to_others() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Delay(Duration::from_millis(500)));
    let settings = Settings::serving(&server).one_at_a_time().with("BATCH_MAX_ROWS", 4);
    let ids = queue.submit_all((0..12).map(|_| input(5.1))).await;
    let worker = queue.worker(settings.clone()).await;
    running(&server, 1).await;

    ends_well(&worker).await;

    assert_eq!(outcomes(&server), [CallOutcome::Answered], "it went on taking jobs");
    for (number, id) in ids.iter().enumerate() {
        let job = queue.job(*id).await;
        let expected = if number < 4 { (JobStatus::Completed, 1) } else { (JobStatus::Pending, 0) };
        assert_eq!((job.status, job.attempts), expected, "{job:?}");
    }
    assert_eq!(queue.store.views.workers().await.unwrap(), [], "it said farewell");
    let _next = queue.worker(settings).await;
    assert_completed_at_first(&queue, &ids).await;
}

#[tokio::test]
async fn jobs_that_do_not_finish_in_time_are_released() {
    let queue = Queue::start().await;
    let (hanging, healthy) =
        (ModelServer::start(ServerSpec::iris()).await, ModelServer::start(ServerSpec::iris()).await);
    hanging.set_behaviour(Behaviour::Hang);
    let settings = |server| Settings::serving(server).with("BATCH_MAX_ROWS", 4);
    let worker = queue.worker(settings(&hanging).with("DRAIN_TIMEOUT_SECONDS", 1)).await;
    let ids = queue.submit_all((0..12).map(|_| input(5.1))).await;
    running(&hanging, 3).await;

    let asked = Instant::now();
    ends_well(&worker).await;

    let took = asked.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&took), "{took:?}");
    for id in &ids {
        let job = queue.job(*id).await;
        assert_eq!((job.status, job.attempts), (JobStatus::Pending, 0), "{job:?}");
    }
    let _next = queue.worker(settings(&healthy)).await;
    assert_completed_at_first(&queue, &ids).await;
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    let queue = Queue::start().await;
    let worker = queue.worker(Settings::onnx()).await;
    worker.wait_for_log("backend_up", SOON).await;

    let asked = Instant::now();
    ends_well(&worker).await;

    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    worker.wait_for_log("worker_stopped", SOON).await;
}

#[tokio::test]
async fn a_worker_ends_in_time_although_redis_and_the_model_server_are_away() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let worker = queue.worker(Settings::serving(&server).with("DRAIN_TIMEOUT_SECONDS", 1)).await;
    queue.submit(input(5.1)).await;
    running(&server, 1).await;
    queue.redis.kill9();

    let asked = Instant::now();
    ends_well(&worker).await;

    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn replacing_every_worker_under_load_loses_nothing_and_uses_no_attempt() {
    let spec = ServerSpec { call_cost: Duration::from_millis(20), ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let settings = Settings::serving(&server).with("BATCH_MAX_ROWS", 2);
    let ids = queue.submit_all((0..300).map(|_| input(5.1))).await;
    let mut workers = vec![queue.worker(settings.clone()).await, queue.worker(settings.clone()).await];

    for _ in 0..2 {
        let next = queue.worker(settings.clone()).await;
        ends_well(&workers.remove(0)).await;
        workers.push(next);
    }

    assert_completed_at_first(&queue, &ids).await;
    assert!(outcomes(&server).iter().all(|outcome| *outcome == CallOutcome::Answered));
}

#[tokio::test]
async fn replacing_every_worker_delays_no_job_by_more_than_about_a_batch() {
    let call_cost = Duration::from_millis(200);
    let spec = ServerSpec { call_cost, ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let settings = Settings::serving(&server);
    let mut workers = vec![queue.worker(settings.clone()).await, queue.worker(settings.clone()).await];
    queue.backend_is_up_at(2).await;

    let replaced = async {
        for _ in 0..2 {
            let next = queue.worker(settings.clone()).await;
            queue.backend_is_up_at(3).await;
            ends_well(&workers.remove(0)).await;
            workers.push(next);
        }
    };
    let mut ids = Vec::new();
    let mut arrivals = tokio::time::interval(Duration::from_millis(10));
    tokio::pin!(replaced);
    loop {
        tokio::select! {
            () = &mut replaced => break,
            _ = arrivals.tick() => ids.push(queue.submit(input(5.1)).await),
        }
    }

    let mut longest_ms = 0;
    for job in queue.all_completed(&ids).await {
        assert_eq!(job.attempts, 1, "{job:?}");
        longest_ms = longest_ms.max(job.finished_at_ms.unwrap() - job.created_at_ms);
    }
    // Its own call and the rest of one that was under way; two seconds are for a busy machine, a lost lease takes ten.
    assert!(longest_ms < 2 * 200 + 2_000, "{longest_ms} ms, {} jobs", ids.len());
    queue.assert_drained().await;
}
