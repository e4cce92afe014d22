//! A model server that uses TLS and requires client certificates: a worker that it rejects fails no job and reports why.

use tepal_shared::{job::JobStatus, queue::heartbeat::BackendState};
use tepal_tests::{
    certificates::{Authority, Pair},
    model_server::{ModelServer, ServerSpec},
    ports::on_ipv6,
    wait::eventually,
};

use crate::{
    flowers::input,
    queue::{Queue, SOON},
    settings::Settings,
};

/// These certificates for the worker.
fn secured(server: &ModelServer, authority: &Authority, client: Option<&Pair>) -> Settings {
    let settings = Settings::serving(server).with("TF_SERVING_CA_FILE", authority.certificate().display());
    match client {
        Some(pair) => settings
            .with("TF_SERVING_CERT_FILE", pair.certificate.display())
            .with("TF_SERVING_KEY_FILE", pair.key.display()),
        None => settings,
    }
}

#[tokio::test]
async fn each_obstacle_is_reported_and_costs_no_job() {
    let (queue, authority, stranger) = (Queue::start().await, Authority::new(), Authority::new());
    let pair = authority.issue(&["127.0.0.1"]);
    let server = ModelServer::start_secured(ServerSpec::iris(), &pair, &authority).await;
    let (client, foreign) = (authority.issue(&["worker"]), stranger.issue(&["worker"]));
    let id = queue.submit(input(5.1)).await;

    let right = secured(&server, &authority, Some(&client));
    for (settings, reason) in [
        (secured(&server, &authority, None), "set TF_SERVING_CERT_FILE and TF_SERVING_KEY_FILE"),
        (secured(&server, &stranger, Some(&client)), "set TF_SERVING_CA_FILE"),
        (secured(&server, &authority, Some(&foreign)), "does not accept the client certificate"),
        (right.clone().with("TF_SERVING_TLS_NAME", "other.example"), "is for another name"),
        (Settings::serving(&server), "The connection to the model server broke"),
    ] {
        let worker = queue.worker(settings).await;
        let reported = async || {
            let log = worker.logs().lines().join("\n");
            if log.contains(reason) { Ok(()) } else { Err(log) }
        };
        eventually(SOON, reason, reported).await;
        queue.backend_is(BackendState::Down).await;
        let job = queue.job(id).await;
        assert_eq!((job.status, job.attempts), (JobStatus::Pending, 0), "{reason}");
        worker.sigterm();
        assert!(worker.wait_exit(SOON).await.success());
    }
    assert_eq!(server.call_count(), 0);

    let _worker = queue.worker(right).await;
    assert_eq!(queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn the_name_in_the_certificate_may_be_another_than_the_host() {
    let (queue, authority) = (Queue::start().await, Authority::new());
    let pair = authority.issue(&["models.example"]);
    let server = ModelServer::start_secured(ServerSpec::iris(), &pair, &authority).await;
    let settings = secured(&server, &authority, Some(&authority.issue(&["worker"])));

    let _worker = queue.worker(settings.with("TF_SERVING_TLS_NAME", "models.example")).await;

    let id = queue.submit(input(5.1)).await;
    assert_eq!(queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn a_secured_server_may_have_an_ipv6_address() {
    let (queue, authority) = (Queue::start().await, Authority::new());
    let pair = authority.issue(&["::1"]);
    let server = ModelServer::start_secured(ServerSpec::iris(), &pair, &authority).await;
    let port = on_ipv6(server.addr().to_string()).await;
    let settings = secured(&server, &authority, Some(&authority.issue(&["worker"])));

    for host in ["::1", "[::1]"] {
        let at = settings.clone().with("TF_SERVING_HOST", host).with("TF_SERVING_GRPC_PORT", port);
        let worker = queue.worker(at).await;
        let id = queue.submit(input(5.1)).await;
        assert_eq!(queue.completed(id).await.attempts, 1);
        worker.sigterm();
        assert!(worker.wait_exit(SOON).await.success());
    }
}
