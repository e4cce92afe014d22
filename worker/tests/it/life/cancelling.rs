//! Jobs that their clients cancel.

use std::time::{Duration, Instant};

use tepal_shared::job::owner::View;
use tepal_shared::{job::JobStatus, queue::intake::Cancelled};
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
    wait::eventually,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, calls_end, outcomes, running},
    settings::Settings,
};

const LEASE_MS: u64 = 900;

#[tokio::test]
async fn cancelling_a_running_job_aborts_its_call() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Hang);
    let worker = queue.worker(Settings::serving(&server).with_lease_ms(LEASE_MS)).await;
    let id = queue.submit(input(5.1)).await;
    running(&server, 1).await;

    let cancelled_at = Instant::now();
    assert_eq!(
        queue.store.intake.cancel(id, View::All).await.unwrap(),
        Cancelled::Done(Some(crate::queue::model()))
    );

    calls_end(&server, &[CallOutcome::Cancelled]).await;
    let ended = server.calls()[0].ended.unwrap();
    // The worker learns of it with the next renewal, after a third of the lease. The rest is for a busy machine.
    let took = ended - cancelled_at;
    assert!(took < Duration::from_millis(LEASE_MS / 3 + 1_000), "{took:?}");
    let line = worker.wait_for_log("job_gone", SOON).await;
    assert!(line.contains("cancelled") && line.contains(&id.to_string()), "{line}");
    let job = queue.job(id).await;
    assert_eq!((job.status, job.attempts, job.result), (JobStatus::Cancelled, 1, None));
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_cancelled_job_spoils_no_other_of_its_batch_and_gets_no_result() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::Delay(Duration::from_millis(1_500)));
    let ids = queue.submit_all((0..4).map(|_| input(5.1))).await;
    let settings = Settings::serving(&server).with_lease_ms(LEASE_MS).one_at_a_time();
    let worker = queue.worker(settings).await;
    assert_eq!(running(&server, 1).await[0].rows, 4);

    queue.store.intake.cancel(ids[1], View::All).await.unwrap();
    let hash = queue.hash(ids[1]);

    queue.all_completed(&[ids[0], ids[2], ids[3]]).await;
    assert_eq!(queue.hash(ids[1]), hash);
    assert_eq!(hash["status"], "cancelled");
    assert_eq!(outcomes(&server), [CallOutcome::Answered]);
    let fenced = async || worker.metrics().await.metric("tepal_outcomes_fenced_total") == 1.0;
    eventually(SOON, "the refused outcome to be counted", fenced).await;
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_waits_is_never_called() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    let ids = queue.submit_all([input(9.5), input(5.1)]).await;
    queue.store.intake.cancel(ids[0], View::All).await.unwrap();

    let _worker = queue.worker(Settings::serving(&server)).await;

    queue.completed(ids[1]).await;
    assert!(server.calls().iter().all(|call| call.values[0] < 9.0));
    assert_eq!(queue.job(ids[0]).await.attempts, 0);
    queue.assert_drained().await;
}
