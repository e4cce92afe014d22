//! An endpoint that uses TLS and requires client certificates.

use tepal_shared::{job::JobStatus, queue::heartbeat::BackendState};
use tepal_tests::{
    certificates::{Authority, Pair},
    http_server::HttpServer,
    wait::eventually,
};

use super::{MODEL, Site};
use crate::{queue::SOON, settings::Settings};

fn table(server: &HttpServer, authority: Option<&Authority>, client: Option<&Pair>, more: &str) -> String {
    let mut text = format!("[http]\nurl = \"https://{}/run\"\nprobe = \"/health\"\n{more}\n", server.addr());
    authority
        .iter()
        .for_each(|authority| text.push_str(&format!("ca_file = {:?}\n", authority.certificate())));
    if let Some(pair) = client {
        text.push_str(&format!("cert_file = {:?}\nkey_file = {:?}\n", pair.certificate, pair.key));
    }
    text
}

#[tokio::test]
async fn each_obstacle_is_reported_and_costs_no_job() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = HttpServer::start_secured(&authority.issue(&["127.0.0.1"]), &authority).await;
    let client = authority.issue(&["worker"]);
    let site = Site::of(&table(&server, None, None, "")).await;
    let id = site.submit("1").await;
    for (description, reason) in [
        (table(&server, None, Some(&client), ""), "set ca_file to the certificate of its authority"),
        (
            table(&server, Some(&stranger), Some(&client), ""),
            "set ca_file to the certificate of its authority",
        ),
        (table(&server, Some(&authority), None, ""), "set cert_file and key_file"),
        (
            table(&server, Some(&authority), Some(&client), "tls_name = \"other.example\""),
            "is for another name",
        ),
    ] {
        std::fs::write(site.models.path().join(MODEL).join("model.toml"), description).unwrap();
        let worker = site.worker(Settings::default()).await;
        let reported = async || {
            let log = worker.logs().lines().join("\n");
            if log.contains(reason) { Ok(()) } else { Err(log) }
        };
        eventually(SOON, reason, reported).await;
        site.queue.backend_is(BackendState::Down).await;
        let job = site.queue.job(id).await;
        assert_eq!((job.status, job.attempts), (JobStatus::Pending, 0), "{reason}");
        worker.sigterm();
        assert!(worker.wait_exit(SOON).await.success());
    }
    assert_eq!(server.received(), []);
    std::fs::write(
        site.models.path().join(MODEL).join("model.toml"),
        table(&server, Some(&authority), Some(&client), ""),
    )
    .unwrap();
    let _worker = site.worker(Settings::default()).await;
    assert_eq!(site.queue.completed(id).await.attempts, 1);
}

#[tokio::test]
async fn the_name_in_the_certificate_may_be_another_than_the_host() {
    let authority = Authority::new();
    let server = HttpServer::start_secured(&authority.issue(&["models.example"]), &authority).await;
    let client = authority.issue(&["worker"]);
    let site =
        Site::of(&table(&server, Some(&authority), Some(&client), "tls_name = \"models.example\"")).await;
    let _worker = site.worker(Settings::default()).await;
    assert_eq!(site.queue.completed(site.submit("1").await).await.attempts, 1);
}
