//! Several workers on one queue, and the jobs of a worker that is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tepal_tests::history::now_us;
use tepal_tests::model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec};
use tepal_tests::process::Worker;
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::SOON;
use crate::run::{Run, dump, toy_proxy, toy_worker};

const LEASE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn two_workers_share_a_backlog() {
    let redis = RedisServer::shipped().start().await;
    let server =
        ModelServer::start(ServerSpec { call_cost: Duration::from_millis(20), ..ServerSpec::toy() }).await;
    let proxy = toy_proxy(&redis.proxy_url()).await;
    let [first, second] = [one_call_worker(&redis, &server).await, one_call_worker(&redis, &server).await];
    let run = Run::new(proxy.client());

    for _ in 0..100 {
        run.submit().await;
    }
    run.all_completed().await;

    let verdict = run.verdict(&redis, &[&first, &second], Vec::new()).await;
    verdict.assert_holds();
    assert_eq!((verdict.all.completed, verdict.lost_leases), (100, 0));
    let (by_first, by_second) = (completed_by(&first), completed_by(&second));
    // Each could have run all of them; a fair share is half.
    assert!(by_first.len() >= 20 && by_second.len() >= 20, "{} and {}", by_first.len(), by_second.len());
    assert_eq!(by_first.len() + by_second.len(), 100);
    assert_eq!(by_first.union(&by_second).count(), 100);
}

#[tokio::test]
async fn the_jobs_of_a_killed_worker_complete_on_the_other() {
    let redis = RedisServer::shipped().start().await;
    let slow = ModelServer::start(ServerSpec::toy()).await;
    let quick = ModelServer::start(ServerSpec::toy()).await;
    slow.set_behaviour(Behaviour::Hang);
    let proxy = toy_proxy(&redis.proxy_url()).await;
    let victim = one_call_worker(&redis, &slow).await;
    let survivor = one_call_worker(&redis, &quick).await;
    let run = Run::new(proxy.client());

    let traffic = run.traffic(4);
    eventually(SOON, "a batch at the slow server", async || !slow.calls().is_empty()).await;
    run.more_accepted(100).await;
    let (before, killed_ms) = (dump(&redis).await, now_us() / 1000);
    victim.kill9();
    run.note_fault("kill -9 worker");
    run.more_accepted(100).await;
    traffic.stop().await;
    let jobs = run.all_completed().await;

    // The jobs that the victim held when it died.
    let held = slow.stop().await;
    assert_eq!(held.len(), 1, "one call at a time");
    assert_ne!(held[0].outcome, CallOutcome::Answered);
    let taken_over: Vec<_> = jobs.iter().filter(|job| job["attempts"] == 2).collect();
    assert_eq!(taken_over.len(), held[0].rows);
    for job in taken_over {
        let dumped = &dump(&redis).await.jobs[job["job_id"].as_str().unwrap()];
        let finished = dumped.number("at") + dumped.number("took_ms");
        let after = Duration::from_millis(finished - killed_ms);
        assert!(after <= LEASE + Duration::from_secs(1), "completed {after:?} after the kill");
    }
    let verdict = run.verdict(&redis, &[&victim, &survivor], vec![before]).await;
    verdict.assert_holds();
    assert_eq!(
        (verdict.all.completed, verdict.all.doubled, verdict.lost_leases),
        (jobs.len(), 0, held[0].rows as u64)
    );
    assert!(completed_by(&victim).is_empty());
    assert_eq!(completed_by(&survivor).len(), jobs.len());
}

/// A worker that makes one call of at most four jobs at a time, and is ready.
async fn one_call_worker(redis: &RedisServer, server: &ModelServer) -> Worker {
    let port = server.addr().port().to_string();
    let env = [
        ("MODEL_BACKEND", "tensorflow_serving"),
        ("TF_SERVING_GRPC_PORT", port.as_str()),
        ("NUM_WORKERS", "1"),
        ("MAX_IN_FLIGHT", "1"),
        ("BATCH_MAX_ROWS", "4"),
        // A call that hangs must not end before its worker is killed.
        ("INFERENCE_TIMEOUT_MS", "60000"),
    ];
    let worker = toy_worker(&redis.worker_url(), &env).await;
    worker.wait_for_log("backend_up", SOON).await;
    worker
}

/// The jobs that this worker logged as completed; each must appear once.
fn completed_by(worker: &Worker) -> BTreeSet<String> {
    let lines = worker.logs().json();
    let completed: Vec<&Value> =
        lines.iter().filter(|line| line["action"] == "prediction_completed").collect();
    let ids: BTreeSet<String> =
        completed.iter().map(|line| line["job_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), completed.len());
    ids
}
