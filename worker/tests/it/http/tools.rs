//! The start, the doctor and `model inspect` with an endpoint.

use tepal_tests::{http_server::Reply, process::Service};

use super::{MODEL, Site, site};
use crate::{queue::SOON, settings::Settings};

async fn run(words: &[&str], settings: &Settings) -> (bool, String) {
    let service = words.iter().fold(Service::binary("tepal-worker"), |service, word| service.arg(word));
    let service = service.envs(&settings.pairs()).start();
    let status = service.wait_exit(SOON).await;
    (status.success(), service.logs().lines().join("\n"))
}

async fn doctor(site: &Site) -> (bool, String) {
    run(&["doctor"], &site.settings().with("REDIS_URL", site.queue.redis.worker_url())).await
}

#[tokio::test]
async fn the_doctor_calls_the_sample_and_says_when_there_is_none() {
    let (server, with_sample) = site(("sample = { a = 1 }", "probe = \"/health\"")).await;
    let (_, text) = doctor(&with_sample).await;
    assert!(text.contains("`m` is available (http)"), "{text}");
    assert!(text.contains("model.toml names an HTTP endpoint"), "{text}");
    assert!(text.contains("the model answers the sample"), "{text}");
    assert_eq!(server.received()[0].text(), "{\"a\":1}");

    server.set_probe_reply(Reply::status(404));
    let (is_well, text) = doctor(&with_sample).await;
    assert!(!is_well && text.contains("The endpoint's probe failed"), "{text}");

    let (_server, without) = site(("", "")).await;
    let (_, text) = doctor(&without).await;
    assert!(text.contains("the model has no `sample`, so nothing was called"), "{text}");
}

#[tokio::test]
async fn a_table_that_cannot_be_used_stops_the_start_with_every_reason() {
    let site = Site::of("[http]\nurl = \"ftp://a\"\nmethod = \"GET\"\n").await;
    let (is_well, text) = run(&[], &site.settings().with("REDIS_URL", site.queue.redis.worker_url())).await;
    assert!(
        !is_well && text.contains("must begin with http://") && text.contains("must be POST, PUT or PATCH"),
        "{text}"
    );
    for (description, reason) in [
        ("[serving]\nbackend = \"http\"\n", "its backend is http, but it has no table [http]"),
        (
            "[serving]\nbackend = \"onnx\"\n[http]\nurl = \"http://a\"\n",
            "it has the table [http], but its backend is onnx",
        ),
        (
            "inputs = [{ name = \"x\" }]\n[http]\nurl = \"http://a\"\n",
            "it has both the table [http] and `inputs`: such a model takes any value and has no tensors",
        ),
    ] {
        std::fs::write(site.models.path().join(MODEL).join("model.toml"), description).unwrap();
        let (is_well, text) =
            run(&[], &site.settings().with("REDIS_URL", site.queue.redis.worker_url())).await;
        assert!(!is_well && text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn what_is_said_of_an_endpoint_is_printed() {
    let (server, site) = site(("", "")).await;
    let folder = site.models.path().join(MODEL).display().to_string();
    let (is_well, text) = run(&["model", "inspect", &folder], &Settings::default()).await;
    let expected = format!("\n[http]\nurl = \"http://{}/run?a=b\"\nmethod = \"POST\"\n", server.addr());
    assert!(is_well && text.contains(&expected), "{text}");
}
