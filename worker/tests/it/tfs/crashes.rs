//! A model server that dies in the middle of calls, because of a job or for another reason.

use std::{sync::Arc, time::Duration};

use clap::Parser as _;
use tepal_shared::job::JobId;
use tepal_tests::{
    model_server::{Behaviour, CallOutcome, ModelServer, ServerSpec},
    ports::free_port,
};
use tepal_worker::{
    backend::{self, Backend, ModelCall, Verdict},
    settings::{Args, Config},
};

use crate::{
    flowers::input,
    queue::{Queue, SOON, model, running},
    settings::Settings,
};

const POISON: f32 = 9.5;

/// The calls that contained the poison, as numbers of rows.
fn deadly(server: &ModelServer) -> Vec<usize> {
    let calls = server.calls();
    calls.iter().filter(|call| call.values.contains(&POISON)).map(|call| call.rows).collect()
}

async fn assert_only_the_poison_fails(queue: &Queue, server: &ModelServer, poison: JobId, others: &[JobId]) {
    queue.all_completed(others).await;
    let error = "The model server was lost 4 times while it ran the job";
    assert_eq!(queue.failed(poison).await, (error.to_owned(), "model_lost".to_owned(), 1));
    let deadly = deadly(server);
    assert!(deadly.len() == 4 && deadly[1..] == [1; 3], "{deadly:?}");
    let dead = queue.redis.cli(&["XLEN", &queue.store.queue.keys().dead(0, model())]);
    assert_eq!(dead, "1", "it leaves a dead letter");
    queue.assert_drained().await;
}

#[tokio::test]
async fn a_job_that_kills_the_model_server_fails_as_model_lost_and_harms_no_other() {
    let (queue, server) = (Queue::start().await, ModelServer::start(ServerSpec::iris()).await);
    server.set_behaviour(Behaviour::CrashOnRowsOver(9.0));
    let mut others = queue.submit_all((0..15).map(|_| input(5.1))).await;
    let poison = queue.submit(input(POISON)).await;
    others.extend(queue.submit_all((0..15).map(|_| input(5.1))).await);

    let _worker = queue.worker(Settings::serving(&server)).await;

    assert_only_the_poison_fails(&queue, &server, poison, &others).await;
}

#[tokio::test]
async fn jobs_that_run_beside_one_that_kills_the_model_server_do_not_fail_with_it() {
    // Earlier calls are still running whenever the poison kills the server.
    let spec = ServerSpec { call_cost: Duration::from_millis(500), ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    server.set_behaviour(Behaviour::CrashOnRowsOver(9.0));
    let mut others = queue.submit_all((0..3).map(|_| input(5.1))).await;
    let poison = queue.submit(input(POISON)).await;
    others.extend(queue.submit_all((0..2).map(|_| input(5.1))).await);

    let _worker = queue.worker(Settings::serving(&server).with("BATCH_MAX_ROWS", 1)).await;

    assert_only_the_poison_fails(&queue, &server, poison, &others).await;
}

#[tokio::test]
async fn jobs_of_other_workers_do_not_fail_with_one_that_kills_the_model_server() {
    let spec = ServerSpec { call_cost: Duration::from_millis(500), ..ServerSpec::iris() };
    let (queue, server) = (Queue::start().await, ModelServer::start(spec).await);
    server.set_behaviour(Behaviour::CrashOnRowsOver(9.0));
    let mut others = queue.submit_all((0..2).map(|_| input(5.1))).await;
    let poison = queue.submit(input(POISON)).await;
    others.extend(queue.submit_all((0..1).map(|_| input(5.1))).await);

    let settings = || Settings::serving(&server).with("BATCH_MAX_ROWS", 1);
    let _workers =
        (queue.worker(settings()).await, queue.worker(settings()).await, queue.worker(settings()).await);

    assert_only_the_poison_fails(&queue, &server, poison, &others).await;
}

#[tokio::test]
async fn a_server_that_is_restarted_again_and_again_fails_no_job() {
    let (queue, addr) = (Queue::start().await, ([127, 0, 0, 1], free_port()).into());
    let mut server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    let _worker = queue.worker(Settings::serving_at(addr)).await;
    for _ in 0..4 {
        server.set_behaviour(Behaviour::Hang);
        let ids = queue.submit_all((0..8).map(|_| input(5.1))).await;
        // The second time they are called alone.
        for next in [Behaviour::Hang, Behaviour::Normal] {
            running(&server, 1).await;
            let calls = server.stop().await;
            assert!(calls.iter().any(|call| call.outcome == CallOutcome::ServerStopped), "{calls:?}");
            server = ModelServer::start_on(addr, ServerSpec::iris()).await;
            server.set_behaviour(next);
        }
        queue.all_completed(&ids).await;
    }
    queue.assert_drained().await;
}

#[tokio::test]
async fn only_a_call_that_the_server_may_have_seen_counts_as_broken() {
    let addr: std::net::SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let (backend, row) = iris_at(addr);
    let call = async || backend.predict(row.clone()).await.map_err(|error| error.verdict);
    assert_eq!(call().await.unwrap_err(), Verdict::Unavailable, "nobody listens");

    let server = ModelServer::start_on(addr, ServerSpec::iris()).await;
    call().await.unwrap();
    server.set_behaviour(Behaviour::Hang);
    let (broken, _) = tokio::join!(call(), async {
        running(&server, 1).await;
        server.stop().await
    });

    assert_eq!(broken.unwrap_err(), Verdict::Broken);
    assert_eq!(call().await.unwrap_err(), Verdict::Unavailable, "the server has not come back");
}

/// A client of the server at this address, and a row to call it with.
fn iris_at(addr: std::net::SocketAddr) -> (Arc<dyn Backend>, ModelCall) {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
    let (host, port) = (addr.ip().to_string(), addr.port().to_string());
    let args = ["tepal-worker", "--models-dir", models, "--model-backend", "tensorflow_serving"];
    let server = ["--tf-serving-host", &host, "--tf-serving-grpc-port", &port];
    let config = Config::try_from(Args::try_parse_from(args.into_iter().chain(server)).unwrap()).unwrap();
    let model = config.common.model.as_ref().unwrap();
    let rows = model.sample_input().unwrap();
    let call = ModelCall::of_sample(model.concatenate(std::iter::once(&rows)), SOON);
    (backend::open(&config.backend, model).unwrap(), call)
}
