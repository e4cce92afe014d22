//! A job that kills every worker that runs it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tepal_shared::job::NewJob;
use tepal_tests::{
    model_server::{Behaviour, ModelServer, ServerSpec},
    process::{Process, Worker},
    wait::eventually,
};
use tonic::Code;

use crate::{
    flowers::input,
    queue::{Queue, SOON, new_job, running},
    settings::Settings,
};

const POISON: f32 = 9.5;

/// The worker process that the poison kills.
type Victim = Arc<Mutex<Option<Arc<Process>>>>;

/// The iris model. A worker that calls it with the poison is killed before the answer.
fn deadly(victim: &Victim) -> ServerSpec {
    let (iris, victim) = (ServerSpec::iris().compute, Arc::clone(victim));
    let compute = move |row: &[f32]| {
        if row[0] == POISON
            && let Some(process) = &*victim.lock().unwrap()
        {
            process.kill9();
        }
        iris(row)
    };
    ServerSpec { compute: Arc::new(compute), ..ServerSpec::iris() }
}

/// Restarts the worker whenever it is dead, as a supervisor would, until `done`. Returns the number of deaths.
async fn supervise(worker: &Worker, victim: &Victim, mut done: impl AsyncFnMut() -> bool) -> u32 {
    let mut deaths = 0;
    let look = async || {
        if !worker.is_running() {
            deaths += 1;
            *victim.lock().unwrap() = None;
            worker.restart().await;
            *victim.lock().unwrap() = Some(worker.process());
        }
        done().await
    };
    eventually(SOON, "the jobs to end", look).await;
    deaths
}

#[tokio::test]
async fn a_job_that_kills_its_workers_fails_as_worker_lost_and_harms_no_other() {
    let victim = Victim::default();
    let (queue, server) = (Queue::start().await, ModelServer::start(deadly(&victim)).await);
    let poison = queue.submit(input(POISON)).await;
    let others = queue.submit_all((0..30).map(|_| input(5.1))).await;

    let worker = queue.worker(Settings::serving(&server).with_lease_ms(500)).await;
    *victim.lock().unwrap() = Some(worker.process());
    let ended = async || {
        let mut all = vec![poison];
        all.extend(&others);
        for id in all {
            match queue.store.views.job(id).await {
                Ok(Some(job)) if job.status.is_terminal() => {}
                _ => return false,
            }
        }
        true
    };
    let deaths = supervise(&worker, &victim, ended).await;

    assert_eq!(deaths, 3, "a worker more dies with each try of the poison");
    let error = "The worker was lost 3 times while running the job";
    assert_eq!(queue.failed(poison).await, (error.to_owned(), "worker_lost".to_owned(), 3));
    queue.all_completed(&others).await;
    worker.wait_for_log("worker_lost", SOON).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_suspect_that_must_be_alone_waits_for_held_jobs_and_does_not_stop_them() {
    let spec = ServerSpec { call_cost: Duration::from_millis(100), ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    let suspect = queue.submit(input(5.1)).await;
    queue.take_for_a_dead_worker(suspect).await;
    let settings = Settings::serving(&server).with("MAX_LOST", 2).with("RETRY_BASE_MS", 1);
    let worker = queue.worker(settings.with("RECLAIM_INTERVAL_MS", 20)).await;
    // From now on one batch may run at a time.
    server.script_next(1, Behaviour::Status(Code::ResourceExhausted, String::new()));
    let refused = queue.submit(input(5.1)).await;
    queue.completed(refused).await;
    assert_eq!(worker.metrics().await.metric("tepal_worker_batches_limit"), 1.0);

    // Each is a separate batch, and one consumer claims most of them at once.
    let mut ids = Vec::new();
    for _ in 0..20 {
        let timeout = Some(Duration::from_secs(600));
        ids.push(queue.submit_job(0, NewJob { timeout, ..new_job(input(5.1)) }).await);
    }
    eventually(SOON, "the jobs to be taken", async || queue.in_flight().await > 10).await;
    queue.lapse(suspect);

    queue.all_completed(&ids).await;
    queue.completed(suspect).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_worker_that_waits_alone_for_a_suspect_gets_it_from_one_that_may_not_run_it() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let suspects = queue.submit_all((0..3).map(|_| input(5.1))).await;
    for suspect in &suspects {
        queue.take_for_a_dead_worker(*suspect).await;
    }
    let settings = Settings::serving(&server).with("MAX_LOST", 2).with("RECLAIM_INTERVAL_MS", 20);
    let _worker = queue.worker(settings).await;
    let mut released = Vec::new();
    // On a slow machine, the worker may have given up before the suspect is released.
    for suspect in suspects {
        server.script_next(1, Behaviour::Delay(Duration::from_secs(1)));
        let held = queue.submit(input(5.1)).await;
        running(&server, 1).await;
        queue.lapse(suspect);
        eventually(SOON, "the worker to release it", async || queue.times_released(suspect) == 1).await;
        queue.reclaim_and_release_after(suspect, queue.completed(held)).await;
        queue.completed(suspect).await;
        released.push(queue.times_released(suspect));
    }
    assert!(released.contains(&2), "{released:?}");
}
