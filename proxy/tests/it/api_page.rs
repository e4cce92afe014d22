//! docs/api.md: every command on the page is run with curl, in order, and must be answered as shown.

use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tepal_shared::{
    job::JobId,
    queue::{intake::Submitted, work::Settlement},
};

use tepal_tests::wait::eventually;

use crate::{
    gateway::{Gateway, SETOSA, SOON, flower},
    keys::Keys,
};

const PAGE: &str = include_str!("../../../docs/api.md");
/// The contract as it was reviewed.
const CONTRACT: &str = include_str!("../../../docs/openapi.json");
const BASE: &str = "http://127.0.0.1:8000";
/// The jobs that the page names, by what has become of them.
const PENDING: &str = "019f1d2e-7a31-7c05-9f53-2b8e66a1d400";
const COMPLETED: &str = "019f1d2e-7b42-7d16-8a64-3c9f77b2e500";
const FAILED: &str = "019f1d2e-7c53-7e27-9b75-4da088c3f600";
const PROCESSING: &str = "019f1d2e-7d64-7f38-8c86-5eb199d40700";
const METADATA: &str = r#"{"model_spec":{"name":"iris","version":"1"},"metadata":{"signature_def":{"serving_default":{
    "inputs":{"input":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1"},{"size":"4"}]}}},
    "outputs":{"output":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1"},{"size":"3"}]}}}}}}}"#;

/// A command of the page and the answer that it shows.
struct Example {
    command: String,
    shown: Shown,
}

/// An answer as `curl -i` prints it.
#[derive(Debug)]
struct Shown {
    status: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Every command on the page.
fn examples() -> Vec<Example> {
    let blocks = PAGE.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands = blocks.flat_map(|block| block.strip_prefix("$ ").unwrap().split("\n$ "));
    let example = |text: &str| {
        let mut end = text.find('\n').unwrap();
        while text[..end].ends_with('\\') {
            end += 1 + text[end + 1..].find('\n').unwrap();
        }
        Example { command: text[..end].to_owned(), shown: shown(text[end..].trim()) }
    };
    commands.map(example).collect()
}

#[track_caller]
fn shown(text: &str) -> Shown {
    let text = text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), placeless(value))
    };
    Shown { status, headers: lines.map(header).collect(), body: body.trim().to_owned() }
}

/// The text without what differs from run to run: ids, also in paths, times and cursors.
fn placeless(text: &str) -> String {
    if is_cursor(text) {
        return "<cursor>".to_owned();
    }
    if humantime::parse_rfc3339(text).is_ok() {
        return "<time>".to_owned();
    }
    let part = |part: &str| if part.parse::<JobId>().is_ok() { "<id>".to_owned() } else { part.to_owned() };
    text.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn is_cursor(text: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    text.len() == 60 && text.chars().all(is_allowed)
}

fn placeless_json(value: &Value) -> Value {
    match value {
        Value::String(text) => placeless(text).into(),
        Value::Array(items) => items.iter().map(placeless_json).collect(),
        Value::Object(fields) => {
            // The commands before it submit jobs.
            let shown = fields.iter().filter(|(name, _)| *name != "queue");
            shown.map(|(name, value)| (name.clone(), placeless_json(value))).collect()
        }
        other => other.clone(),
    }
}

/// Runs the command against this proxy.
async fn run(command: &str, base_url: &str) -> Shown {
    assert!(command.contains(BASE), "{command}");
    let command =
        command.replace(BASE, base_url).replacen("curl ", "curl --silent --show-error --max-time 60 ", 1);
    let output = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &command]).output());
    let output = output.await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl, which must be installed, failed: {errors}");
    shown(&String::from_utf8(output.stdout).unwrap())
}

/// Runs the command as a patient client does: a busy machine may have kept Redis from answering in time.
async fn answer(command: &str, base_url: &str) -> Shown {
    let answered = async || {
        let answer = run(command, base_url).await;
        if answer.body.contains(r#""/problems/service-unavailable""#) { Err(answer.body) } else { Ok(answer) }
    };
    eventually(SOON, command, answered).await
}

/// Asserts that the answer has the status and headers that the page shows, and its body.
#[track_caller]
fn assert_as_shown(command: &str, page: &Shown, answer: &Shown) {
    assert_eq!(answer.status, page.status, "{command}\n{answer:?}");
    for header in &page.headers {
        assert!(answer.headers.contains(header), "{command}\nno {header:?} in {answer:?}");
    }
    match serde_json::from_str::<Value>(&page.body) {
        Ok(body) => {
            let given: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(placeless_json(&given), placeless_json(&body), "{command}");
        }
        // Text is shown in part.
        Err(_) => {
            let lines: Vec<&str> = answer.body.lines().collect();
            for line in page.body.lines() {
                assert!(lines.contains(&line), "{command}\nno `{line}` in {}", answer.body);
            }
        }
    }
}

/// Callers without a key may do all that the page shows without one.
const EVERYBODY: &str = "[anonymous]\nscopes = [\"read\", \"submit\"]\n";

/// The entry of a key of the page: `tepal_reader_example`, for example.
fn key(id: &str, scope: &str) -> String {
    let digest = Sha256::digest(format!("tepal_{id}_example"));
    format!("[[key]]\nid = \"{id}\"\nsha256 = \"{digest:x}\"\nscopes = [\"{scope}\"]\n")
}

/// Brings the jobs of the page into the states that it shows.
async fn prepare(gateway: &Gateway) {
    let job = flower();
    let submit = async |id: &str| {
        assert_eq!(
            gateway.store.intake.submit(id.parse().unwrap(), job.clone()).await.unwrap(),
            Submitted::Accepted
        );
    };
    // Older than the one that the listing shows, so that its page is not the last.
    gateway.failed().await;
    submit(COMPLETED).await;
    gateway.settle(&gateway.take_one().await, Settlement::Complete(SETOSA.to_owned())).await;
    submit(FAILED).await;
    let (code, error) = ("inference_timeout".to_owned(), "Model inference timeout".to_owned());
    gateway.settle(&gateway.take_one().await, Settlement::Fail { code, error }).await;
    submit(PROCESSING).await;
    gateway.take_one().await;
    submit(PENDING).await;
    let metadata = serde_json::from_str(METADATA).unwrap();
    gateway.heartbeat_with("w1", "tensorflow_serving", metadata, &["iris", "language"]);
    let healthy = r#"{"status":"healthy","components":{"redis":"ok","tensorflow_serving":"ok"},"models":{"iris":"ok","language":"ok"}}"#;
    gateway.health_is(200, healthy).await;
}

#[tokio::test]
async fn every_command_is_answered_as_the_page_shows() {
    let keys = Keys::with(&format!("{EVERYBODY}{}{}", key("reader", "read"), key("admin", "admin")));
    let gateway = keys.gateway(&[]).await;
    prepare(&gateway).await;
    let examples = examples();
    assert!(examples.len() >= 19, "only {} commands were found", examples.len());
    for Example { command, shown } in examples {
        assert_as_shown(&command, &shown, &answer(&command, gateway.proxy.base_url()).await);
    }
}

#[test]
fn every_operation_has_a_section_with_a_command() {
    let contract: Value = serde_json::from_str(CONTRACT).unwrap();
    let operations = contract["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_ascii_uppercase(), path))
    });
    // docs/protocols.md describes the others.
    for (method, path) in operations.filter(|(_, path)| !path.starts_with("/v1") && !path.starts_with("/v2"))
    {
        let is_its = |section: &&str| {
            let paths = section.lines().next().and_then(|title| title.strip_prefix(&format!("{method} ")));
            paths.is_some_and(|paths| paths.split(", ").any(|one| one == path))
        };
        let section =
            PAGE.split("\n## ").find(is_its).unwrap_or_else(|| panic!("no section {method} {path}"));
        assert!(section.contains("\n$ curl "), "{method} {path}");
    }
}
