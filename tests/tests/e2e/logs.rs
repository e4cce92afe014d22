//! The logs of both services at the most detailed level: one JSON object a line, without input of clients and secrets.

use std::process::Command;

use serde_json::{Value, json};
use tepal_tests::http::Method;
use tepal_tests::model_server::{ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Service, Worker, binary_path};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;

use crate::{SOON, healthy};

const PASSWORD: &str = "canary-password-5b1f";
const WRONG_PASSWORD: &str = "canary-mistyped-77d0";
const API_KEY: &str = "canary-key-90ab";
/// A wrong secret of a key.
const TRIED: &str = "canary-tried-3c1d";
/// A measurement that no other number contains.
const MEASUREMENT: &str = "3.6180339";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn logs_are_json_and_hold_no_input_and_no_secret() {
    let redis = RedisServer::options().password(PASSWORD).start().await;
    let server = ModelServer::start(ServerSpec::iris()).await;
    let port = server.addr().port().to_string();
    let debug = ("LOG_LEVEL", "debug");
    let proxy = Proxy::start(&redis.proxy_url(), &[debug]).await;
    let in_process = Worker::start(&redis.worker_url(), &[debug]).await;
    let client = proxy.client();
    healthy(&client).await;

    submit_canaries(&client).await;
    in_process.sigterm();
    in_process.wait_exit(SOON).await;
    let backend = [debug, ("MODEL_BACKEND", "tensorflow_serving"), ("TF_SERVING_GRPC_PORT", port.as_str())];
    let over_grpc = Worker::start(&redis.worker_url(), &backend).await;
    over_grpc.wait_for_log("backend_up", SOON).await;
    let id = submit_canaries(&client).await;
    let mistyped = redis.url().replace(PASSWORD, WRONG_PASSWORD);
    let locked_out = Worker::start(&mistyped, &[debug]).await;
    locked_out.wait_for_log("redis_unreachable", SOON).await;

    // A line may be written after the client has its answer. The log of a stopped service is complete.
    over_grpc.sigterm();
    over_grpc.wait_exit(SOON).await;
    let services: [(&Service, &str); 4] =
        [(&proxy, "proxy"), (&in_process, "worker"), (&over_grpc, "worker"), (&locked_out, "worker")];
    assert!(over_grpc.logs().find(r#""level":"DEBUG""#).is_some());
    for (service, component) in services {
        check_lines(&service.logs().lines(), component);
    }
    check_job_lines(&proxy, &over_grpc, &id);
}

#[tokio::test]
async fn a_key_that_was_used_or_tried_appears_nowhere() {
    let redis = RedisServer::shipped().start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.toml");
    let made =
        Command::new(binary_path("tepal-proxy")).args(["key", "new", "--scope", "submit"]).output().unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let (key, entry) = made.split_once("\n\n").unwrap();
    std::fs::write(&file, entry).unwrap();
    let (name, secret) = key.rsplit_once('_').unwrap();
    let digest = entry.split('"').nth(3).unwrap();
    assert_eq!((secret.len(), digest.len()), (64, 64));
    let wrong = format!("{name}_{TRIED}");
    let settings = [("LOG_LEVEL", "debug"), ("API_KEYS_FILE", file.to_str().unwrap())];
    let proxy = Proxy::start(&redis.proxy_url(), &settings).await;
    let client = proxy.client();
    healthy_enough(&client).await;

    let mut texts = Vec::new();
    let mut statuses = Vec::new();
    let paths = [
        "/predict",
        "/predict/batch",
        "/predict/test",
        "/jobs",
        "/metadata",
        "/nothing",
        "/metrics",
        "/openapi.json",
    ];
    for sent in [key, wrong.as_str(), TRIED, "tepal_nobody_canary-tried-3c1d"] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            for path in paths {
                let headers = [("x-api-key", sent), ("content-type", "application/json")];
                let answer = client.request(method.clone(), path, &headers, "{}").await;
                statuses.push(answer.status);
                texts.push(format!("{:?} {}", answer.headers, answer.text()));
            }
        }
    }
    for status in [202, 401, 403, 404, 405, 422] {
        assert!(statuses.contains(&status), "{status}");
    }
    // Failures that are not the client's fault are logged, too.
    redis.kill9();
    let answer = client.request(Method::POST, "/predict/test", &[("x-api-key", key)], "").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let failed = proxy.wait_for_log("request_failed", SOON).await;
    assert!(failed.contains(&format!(r#""key_id":"{}""#, name.trim_start_matches("tepal_"))), "{failed}");
    proxy.sigterm();
    proxy.wait_exit(SOON).await;
    texts.extend(proxy.logs().lines());
    assert!(texts.iter().any(|text| text.contains("access_refused")));
    for text in texts {
        for canary in [secret, digest, TRIED] {
            assert!(!text.contains(canary), "{canary} in {text}");
        }
    }
}

/// Waits until the proxy has found Redis; there is no worker.
async fn healthy_enough(client: &tepal_tests::http::Client) {
    eventually(SOON, "the proxy to find Redis", async || client.get("/readyz").await.status == 200).await;
}

/// Sends canaries in every part of a request: accepted, refused and unread ones. Gives the id of the accepted job.
async fn submit_canaries(client: &tepal_tests::http::Client) -> String {
    let headers = [
        ("content-type", "application/json"),
        ("x-api-key", API_KEY),
        ("x-request-id", "request-of-the-test"),
        ("traceparent", TRACEPARENT),
    ];
    let body = format!(r#"{{"data": [[{MEASUREMENT}, 3.5, 1.4, 0.2]]}}"#);
    let accepted = client.request(Method::POST, "/predict", &headers, body).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    for refused in [
        format!(r#"{{"data": [["canary-{MEASUREMENT}", 3.5, 1.4, 0.2]]}}"#),
        format!(r#"{{"data": "canary-{MEASUREMENT}"}}"#),
        format!(r#"{{"data": [[{MEASUREMENT}, 3.5]]}}"#),
        format!("canary-{MEASUREMENT}"),
    ] {
        let answer = client.request(Method::POST, "/predict", &headers, refused).await;
        assert!([400, 422].contains(&answer.status), "{}", answer.text());
    }
    let id = accepted.json()["job_id"].as_str().unwrap().to_owned();
    assert_eq!(client.finished(&id, SOON).await["status"], "completed");
    id
}

fn check_lines(lines: &[String], component: &str) {
    assert!(!lines.is_empty());
    for line in lines {
        for canary in [PASSWORD, WRONG_PASSWORD, API_KEY, MEASUREMENT, "canary"] {
            assert!(!line.contains(canary), "{canary} in {line}");
        }
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(line["component"], component, "{line}");
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{line}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].iter().any(|level| line["level"] == *level), "{line}");
    }
}

fn check_job_lines(proxy: &Service, worker: &Service, id: &str) {
    let accepted = job_line(proxy, "job_accepted", id);
    assert_eq!(accepted["request_id"], "request-of-the-test");
    assert!(accepted["duration_ms"].is_number());

    let completed = job_line(worker, "prediction_completed", id);
    let fields: Vec<&str> = completed.as_object().unwrap().keys().map(String::as_str).collect();
    let specified = ["timestamp", "level", "component", "action", "job_id", "duration_ms", "result"];
    assert_eq!(fields[..7], specified);
    assert_eq!((&completed["level"], &completed["result"]), (&json!("INFO"), &json!("setosa")));
    assert!(completed["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(completed["request_id"], "request-of-the-test");
    assert_eq!(completed["traceparent"], TRACEPARENT);
}

fn job_line(service: &Service, action: &str, id: &str) -> Value {
    let lines = service.logs().json().into_iter();
    let mut of_job = lines.filter(|line| line["action"] == action && line["job_id"] == id);
    let line = of_job.next().unwrap_or_else(|| panic!("no {action} for {id}"));
    assert!(of_job.next().is_none(), "{action} twice for {id}");
    line
}
