//! Jobs longer than their lease, and workers that lost theirs.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tepal_shared::{job::JobStatus, queue::Policy};
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
    redis::RedisServer,
    wait::eventually,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, calls_end, outcomes, result_of, running},
    settings::Settings,
};

const LEASE_MS: u64 = 600;

fn delay_of_leases(leases: u32) -> Behaviour {
    Behaviour::Delay(Duration::from_millis(LEASE_MS) * leases)
}

#[tokio::test]
async fn a_job_three_times_as_long_as_its_lease_is_run_once() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(delay_of_leases(3));
    let settings = Settings::serving(&server).with_lease_ms(LEASE_MS);
    let _workers = [queue.worker(settings.clone()).await, queue.worker(settings).await];

    let id = queue.submit(input(5.1)).await;

    assert_eq!(queue.completed(id).await.attempts, 1);
    assert_eq!(outcomes(&server), [CallOutcome::Answered]);
}

#[tokio::test]
async fn claimed_jobs_that_wait_for_their_turn_keep_their_leases() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Delay(Duration::from_millis(LEASE_MS / 2)));
    // Jobs of three rows: taken together, called one after the other.
    let ids = queue.submit_all((0..6).map(|_| crate::flowers::input_of_rows(3))).await;
    let settings = Settings::serving(&server).with_lease_ms(LEASE_MS).one_at_a_time();
    let settings = settings.with("BATCH_MAX_ROWS", 3);
    let _workers = [queue.worker(settings.clone()).await, queue.worker(settings).await];

    let jobs = queue.all_completed(&ids).await;

    assert!(jobs.iter().all(|job| job.attempts == 1), "{jobs:?}");
    assert_eq!(outcomes(&server), [CallOutcome::Answered; 6]);
}

#[tokio::test]
async fn the_late_result_of_a_frozen_worker_is_refused() {
    let queue = Queue::start().await;
    let slow = ModelServer::start(ServerSpec::iris()).await;
    slow.set_behaviour(delay_of_leases(1));
    let virginica = ServerSpec { compute: Arc::new(|_| vec![0.0, 0.0, 1.0]), ..ServerSpec::iris() };
    let other = ModelServer::start(virginica).await;
    let zombie = queue.worker(Settings::serving(&slow).with_lease_ms(LEASE_MS)).await;
    let id = queue.submit(input(5.1)).await;
    running(&slow, 1).await;

    zombie.sigstop();
    queue.lapsed(LEASE_MS).await;
    let _successor = queue.worker(Settings::serving(&other).with_lease_ms(LEASE_MS)).await;
    let job = queue.completed(id).await;
    let answered = async || outcomes(&slow) == [CallOutcome::Answered];
    eventually(SOON, "the frozen worker's answer", answered).await;
    let hash = queue.hash(id);
    zombie.sigcont();

    let refused = async || {
        let lines = zombie.logs().json();
        lines.into_iter().find(|line| {
            let action = line["action"].as_str();
            matches!(action, Some("attempt_fenced" | "job_gone")) && line["job_id"] == id.to_string()
        })
    };
    let line: Value = eventually(SOON, "the late result to be refused", refused).await;
    assert_eq!(line["reason"], "lost", "{line}");
    assert_eq!(queue.hash(id), hash, "the late result changed the job");
    assert_eq!((job.attempts, hash["attempt"].as_str()), (2, "2"));
    assert_eq!(result_of(&job)["class_name"], "virginica");
    assert_eq!(zombie.logs().find("prediction_completed"), None);
    let page = zombie.metrics().await.text();
    assert!(page.contains("tepal_outcomes_fenced_total{model=\"iris\",reason=\"lost\"} 1"), "{page}");
}

#[tokio::test]
async fn a_thawed_worker_that_claims_its_own_job_again_keeps_the_new_lease() {
    let policy = Policy { lease: Duration::from_millis(LEASE_MS), ..Policy::default() };
    let queue = Queue::with_policy(RedisServer::shipped().start().await, policy);
    let server = ModelServer::start(ServerSpec::iris()).await;
    server.script_next(1, delay_of_leases(20));
    server.script_next(1, delay_of_leases(4));
    let worker = queue.worker(Settings::serving(&server).with_lease_ms(LEASE_MS)).await;
    let id = queue.submit(input(5.1)).await;
    running(&server, 1).await;

    worker.sigstop();
    // Another worker claimed the job meanwhile and released it. So the worker runs this job and will claim it again, and it
    // may notice the loss or the new claim first.
    queue.reclaim_and_release(id).await;
    worker.sigcont();

    let job = queue.completed(id).await;
    assert_eq!((job.status, job.attempts), (JobStatus::Completed, 2));
    // The first call is abandoned, and there is no third.
    calls_end(&server, &[CallOutcome::Cancelled, CallOutcome::Answered]).await;
    assert_eq!(worker.metrics().await.metric("tepal_jobs_reclaimed_total"), 0.0, "it lost its new lease");
}
