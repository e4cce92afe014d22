//! A server that uses TLS and requires client certificates: a worker that it rejects fails no job and reports why.

use tepal_shared::{job::JobStatus, queue::heartbeat::BackendState};
use tepal_tests::{
    certificates::{Authority, Pair},
    model_server::{ModelServer, ServerSpec},
};

use crate::{
    config::complaint,
    flowers::input,
    queue::{Queue, SOON},
    settings::Settings,
};

/// These certificates for the worker.
fn secured(server: &ModelServer, authority: &Authority, client: Option<&Pair>) -> Settings {
    let settings =
        Settings::open_inference(server).with("OPEN_INFERENCE_CA_FILE", authority.certificate().display());
    match client {
        Some(pair) => settings
            .with("OPEN_INFERENCE_CERT_FILE", pair.certificate.display())
            .with("OPEN_INFERENCE_KEY_FILE", pair.key.display()),
        None => settings,
    }
}

#[tokio::test]
async fn each_obstacle_is_reported_with_its_setting_and_costs_no_job() {
    let (queue, authority, stranger) = (Queue::start().await, Authority::new(), Authority::new());
    let pair = authority.issue(&["127.0.0.1"]);
    let server = ModelServer::start_secured(ServerSpec::iris(), &pair, &authority).await;
    let client = authority.issue(&["worker"]);
    let id = queue.submit(input(5.1)).await;

    let right = secured(&server, &authority, Some(&client));
    for (settings, reason) in [
        (secured(&server, &authority, None), "set OPEN_INFERENCE_CERT_FILE and OPEN_INFERENCE_KEY_FILE"),
        (secured(&server, &stranger, Some(&client)), "set OPEN_INFERENCE_CA_FILE"),
        (right.clone().with("OPEN_INFERENCE_TLS_NAME", "other.example"), "is for another name"),
    ] {
        let worker = queue.worker(settings).await;
        worker.wait_for_log(reason, SOON).await;
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
async fn wrong_settings_are_named() {
    let settings = Settings::default()
        .with("OPEN_INFERENCE_HOST", "a b")
        .with("OPEN_INFERENCE_GRPC_PORT", "0")
        .with("OPEN_INFERENCE_CA_FILE", "ca.pem")
        .with("OPEN_INFERENCE_TLS", "false");
    let text = complaint(settings).await;
    for expected in [
        "OPEN_INFERENCE_HOST: `a b` must be a host name",
        "OPEN_INFERENCE_GRPC_PORT: `0` is not",
        "OPEN_INFERENCE_CA_FILE: without effect: OPEN_INFERENCE_TLS is not true",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}
