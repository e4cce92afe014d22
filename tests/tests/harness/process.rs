//! Child processes; shell scripts stand in for the services.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tepal_tests::process::Service;

use crate::{SOON, panic_text, shell};

#[tokio::test]
async fn a_service_has_only_its_own_settings_and_keeps_its_logs() {
    let service = Service::program("script", Path::new("/bin/sh"))
        .env("QUEUE_NAME", "first")
        .envs(&[("QUEUE_NAME", "mine")])
        .arg("-c")
        .arg("echo \"queue $QUEUE_NAME, package '$CARGO_PKG_NAME'\"; echo '{\"action\": \"x\"}' >&2; exit 3")
        .start();

    let line = service.wait_for_log("queue", SOON).await;
    assert_eq!(line, "queue mine, package ''");
    assert_eq!(service.wait_exit(SOON).await.code(), Some(3));
    assert_eq!(service.logs().json(), [json!({"action": "x"})]);
    service.restart();
    service.wait_exit(SOON).await;
    assert_eq!(service.logs().lines().len(), 4);
}

#[tokio::test]
async fn a_service_can_be_asked_to_end_frozen_and_killed() {
    let script = "trap 'echo ending; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let service = shell(script);
    service.wait_for_log("ready", SOON).await;
    service.sigstop();
    service.sigterm();
    assert!(service.is_running());
    service.sigcont();
    assert!(service.wait_exit(SOON).await.success());
    assert!(service.logs().find("ending").is_some());

    service.restart();
    assert!(service.is_running());
    service.kill9();
    assert!(!service.is_running());
}

#[tokio::test]
async fn waiting_for_a_log_line_ends_with_the_process() {
    let text = panic_text(async {
        shell("echo something else").wait_for_log("ready", Duration::from_secs(60)).await;
    });
    let text = text.await;

    assert!(text.contains("never printed \"ready\"") && text.ends_with("something else"), "{text}");
}

#[test]
fn a_missing_binary_says_how_to_build_it() {
    let missing = std::panic::catch_unwind(AssertUnwindSafe(|| Service::binary("tepal-nothing")));
    let panic = missing.err().unwrap();

    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.ends_with("is missing: run `cargo build --workspace --bins` or `make test`"), "{text}");
}
