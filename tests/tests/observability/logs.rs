//! The logs of the services: the guide's table of actions is complete, and lines have their form and hold no secret.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;

use crate::{guide, root};

const SOON: Duration = Duration::from_secs(30);

fn of_sources(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            of_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            for before in ["action = \"", "\"action\", \""] {
                let words = source.split(before).skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(words.map(str::to_owned));
            }
        }
    }
}

#[test]
fn the_guide_has_every_log_action() {
    let mut used = BTreeSet::new();
    for part in ["proxy", "worker", "shared"] {
        of_sources(&root().join(part).join("src"), &mut used);
    }
    let rows = guide::rows("Logs");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split("`, `").map(str::to_owned)).collect();
    let differing: Vec<&String> = documented.symmetric_difference(&used).collect();
    assert!(differing.is_empty(), "either only in docs/operations.md or only in the sources: {differing:?}");
}

#[tokio::test]
async fn lines_are_json_carry_the_requests_origin_and_contain_no_secret() {
    let redis = RedisServer::options().password("canary-password").start().await;
    let settings = [("LOG_LEVEL", "debug")];
    let proxy = Proxy::start(&redis.url(), &settings).await;
    let worker = Worker::start(&redis.url(), &settings).await;
    let (client, traceparent) = (proxy.client(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let headers = [
        ("x-request-id", "request-17"),
        ("traceparent", traceparent),
        ("idempotency-key", "canary-idempotency"),
        ("authorization", "Bearer canary-token"),
        ("x-api-key", "canary-api-key"),
    ];
    let answer = client.try_predict(&json!([[5.4321, 3.4321, 1.4321, 0.4321]]), &headers).await.unwrap();
    let id = answer.json()["job_id"].as_str().unwrap().to_owned();
    let job = client.finished(&id, SOON).await;
    assert_eq!(job["status"], "completed");
    client.post_raw("/predict", "{\"data\": \"canary-body").await;
    client.try_predict(&json!([["canary-value", 77.4321]]), &[]).await.unwrap();

    let accepted = proxy.wait_for_log("job_accepted", SOON).await;
    let completed = worker.wait_for_log("prediction_completed", SOON).await;
    for line in [&accepted, &completed] {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["job_id"].as_str(), line["request_id"].as_str()), (Some(&*id), Some("request-17")));
        assert!(line["duration_ms"].is_number(), "{line}");
    }
    let completed: Value = serde_json::from_str(&completed).unwrap();
    // The trace goes on with the id that it came with; the parent may be a span of the proxy's.
    let trace = completed["traceparent"].as_str().unwrap_or_default();
    assert_eq!((&completed["result"], &trace[..35]), (&json!("setosa"), &traceparent[..35]));

    let probability = job["result"]["probabilities"][0].to_string();
    let secrets = ["canary", ".4321", probability.as_str()];
    for (component, logs) in [("proxy", proxy.logs()), ("worker", worker.logs())] {
        for line in logs.lines() {
            let shown = secrets.iter().find(|secret| line.contains(**secret));
            assert_eq!(shown, None, "{line}");
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(line["component"], component, "{line}");
            if line["level"] != "DEBUG" {
                let all_there = ["timestamp", "level", "action"].iter().all(|field| line[field].is_string());
                assert!(all_there, "{line}");
            }
        }
    }
}
