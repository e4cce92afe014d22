//! Settings that cannot work: the process reports everything that is wrong, and ends.

use std::{net::TcpListener, path::Path};

use tepal_tests::{process::Service, redis::RedisServer};

use crate::{queue::SOON, settings::Settings};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");

/// Starts the worker, which must end by itself and with a failure. Returns its output.
pub(crate) async fn complaint(settings: Settings) -> String {
    let settings =
        Settings::default().with("MODELS_DIR", MODELS).with("METRICS_ADDR", "127.0.0.1:0").and(settings);
    let worker = Service::binary("tepal-worker").envs(&settings.pairs()).start();
    let status = worker.wait_exit(SOON).await;
    assert_eq!(status.code(), Some(1), "{}", worker.logs().tail(40));
    worker.logs().lines().join("\n")
}

#[tokio::test]
async fn every_wrong_setting_is_reported_at_once_and_once() {
    let wrong = [
        ("REDIS_PORT", "seventy"),
        ("QUEUE_NAME", "a{b}"),
        ("PARTITIONS", "257"),
        ("LEASE_MS", "soon"),
        ("RESULT_TTL_SECONDS", "0"),
        ("FAILED_INPUT_TTL_SECONDS", "0"),
        ("MAX_QUEUE_DEPTH", "-1"),
        ("MAX_LOST", "1"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("NUM_WORKERS", "0"),
        ("MAX_IN_FLIGHT", "many"),
        ("BATCH_MAX_ROWS", "0"),
        ("BATCH_MAX_BYTES", "0"),
        ("MAX_RESULT_BYTES", "0"),
        ("BATCH_MAX_WAIT_MS", "-5"),
        ("RECLAIM_INTERVAL_MS", "0"),
        ("MAX_RETRIES", "2.5"),
        ("RETRY_BASE_MS", "0"),
        ("INFERENCE_TIMEOUT_MS", "0"),
        ("MODEL_BACKEND", "keras"),
        ("ONNXRUNTIME_THREADS", "0"),
        ("TF_SERVING_GRPC_PORT", "65536"),
        ("OPEN_INFERENCE_GRPC_PORT", "0"),
        ("DRAIN_TIMEOUT_SECONDS", "long"),
        ("METRICS_ADDR", "here"),
    ];
    let settings = wrong.iter().fold(Settings::default(), |all, (name, value)| all.with(name, value));

    let text = complaint(settings.with("MODEL_NAME", "missing")).await;

    for (name, value) in wrong {
        let count = text.matches(&format!("\n  {name}: `{value}`")).count();
        assert_eq!(count, 1, "{name} is reported {count} times: {text}");
    }
    let missing =
        format!("MODEL_NAME, MODELS_DIR: MODELS_DIR `{MODELS}` has no folder `missing`, but `iris`");
    assert_eq!(text.matches(&missing).count(), 1, "{text}");
    assert!(text.starts_with("tepal-worker: settings are wrong:\n"), "{text}");
    assert_eq!(text.lines().count(), wrong.len() + 2, "{text}");
}

#[tokio::test]
async fn a_wrong_setting_says_what_would_be_right() {
    let text = complaint(Settings::default().with("MODEL_BACKEND", "keras")).await;
    let expected = "tepal-worker: a setting is wrong:\n  MODEL_BACKEND: `keras` must be onnx, onnxruntime, tensorflow_serving, open_inference or http";
    assert_eq!(text, expected);

    let text = complaint(Settings::default().with("NUM_WORKERS", 0)).await;
    let expected =
        "tepal-worker: a setting is wrong:\n  NUM_WORKERS: `0` is not a whole number from 1 to 256";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn a_wait_that_a_lease_does_not_outlast_is_reported() {
    let settings = |wait_ms| Settings::default().with("LEASE_MS", 900).with("BATCH_MAX_WAIT_MS", wait_ms);
    let text = complaint(settings(301)).await;
    let expected = "tepal-worker: a setting is wrong:\n  \
        BATCH_MAX_WAIT_MS: must be at most a third of LEASE_MS, which is 900";
    assert_eq!(text, expected);

    // And with the longest one it gets to its other mistakes.
    let text = complaint(settings(300).with("NUM_WORKERS", 0)).await;
    assert!(!text.contains("BATCH_MAX_WAIT_MS") && text.contains("NUM_WORKERS"), "{text}");
}

#[tokio::test]
async fn a_taken_metrics_address_is_reported_in_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();

    let text = complaint(Settings::default().with("METRICS_ADDR", addr)).await;

    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with(&format!("tepal-worker: cannot serve metrics on {addr} (")), "{text}");
    assert!(text.contains("Address already in use"), "{text}");
    assert!(text.ends_with("; set METRICS_ADDR to a free address of this machine"), "{text}");
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_is_reported_with_its_file() {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("iris");
    std::fs::create_dir(&folder).unwrap();
    let description = std::fs::read_to_string(Path::new(MODELS).join("iris/model.toml")).unwrap();
    let elsewhere = format!("onnx_file = \"gone.onnx\"\n{description}");
    std::fs::write(folder.join("model.toml"), elsewhere).unwrap();
    let settings = Settings::default().with_model(models.path(), "iris").with("LOG_FORMAT", "json");

    let text = complaint(settings.clone()).await;
    let file = folder.join("gone.onnx");
    let expected =
        format!("MODEL_NAME, MODELS_DIR: cannot read the ONNX file {}: No such file", file.display());
    assert!(text.contains(&expected), "{text}");

    std::fs::write(folder.join("model.toml"), description).unwrap();
    let text = complaint(settings).await;
    let expected = "tepal-worker: the model cannot be used: the model `iris` has no ONNX file: put model.onnx into its folder, \
                    or set MODEL_BACKEND=tensorflow_serving or open_inference";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn a_queue_of_an_earlier_format_is_refused_in_one_sentence() {
    let redis = RedisServer::shipped().start().await;
    redis.cli(&["XADD", "{predict_queue:0}:stream:normal", "*", "id", "1"]);

    let text = complaint(Settings::onnx().with("REDIS_URL", redis.url())).await;

    let expected = "tepal-worker: the queue has jobs of the stored format 1, but this version reads and writes format 2: \
        start the version that wrote the queue, let its workers drain it while no proxy accepts jobs, then start this \
        version; or set another QUEUE_NAME";
    assert_eq!(text.lines().last(), Some(expected), "{text}");
}

#[tokio::test]
async fn a_malformed_host_is_reported() {
    let hosts =
        [("REDIS_HOST", "http://redis"), ("TF_SERVING_HOST", "a b"), ("TF_SERVING_TLS_NAME", "serving:8500")];
    let settings = hosts.iter().fold(Settings::default(), |all, (name, value)| all.with(name, value));

    let text = complaint(settings.with("TF_SERVING_TLS", "true")).await;

    let right =
        "must be a host name or an IP address, as in redis.example, 10.0.0.1 or ::1, without scheme or port";
    for (name, value) in hosts {
        assert!(text.contains(&format!("\n  {name}: `{value}` {right}")), "{text}");
    }
}

#[tokio::test]
async fn a_port_that_kubernetes_set_for_a_service_is_reported() {
    let text = complaint(Settings::default().with("REDIS_PORT", "tcp://10.96.0.11:6379")).await;

    let expected = "tepal-worker: a setting is wrong:\n  REDIS_PORT: `tcp://10.96.0.11:6379` is an address, which \
        Kubernetes puts into REDIS_PORT when there is a Service named redis; set REDIS_PORT in the pod to the port alone, \
        or set enableServiceLinks: false there";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn help_names_every_setting_and_its_default() {
    let worker = Service::binary("tepal-worker").arg("--help").start();
    assert!(worker.wait_exit(SOON).await.success());

    let help = worker.logs().lines().join("\n");
    for name in [
        "REDIS_HOST",
        "REDIS_PORT",
        "QUEUE_NAME",
        "TF_SERVING_HOST",
        "OPEN_INFERENCE_GRPC_PORT",
        "MODEL_NAME",
    ] {
        assert!(help.contains(&format!("[env: {name}=")), "{name}: {help}");
    }
    for name in ["NUM_WORKERS=", "MODEL_BACKEND=", "DRAIN_TIMEOUT_SECONDS=", "METRICS_ADDR=", "LEASE_MS="] {
        assert!(help.contains(&format!("[env: {name}")), "{name}: {help}");
    }
    assert!(help.contains("[default: 0.0.0.0:9100]"), "{help}");
}
