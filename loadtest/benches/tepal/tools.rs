//! Runs wrk and redis-benchmark and parses their output.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use tempfile::NamedTempFile;

/// The body of every submission: one row of Iris.
pub(crate) const BODY: &str = r#"{"data": [[5.1, 3.5, 1.4, 0.2]]}"#;
/// The same row as stored tensors.
pub(crate) const STORED: &[u8] = b"\xb2\x01\x04\x33\x33\xa3\x40\0\0\x60\x40\x33\x33\xb3\x3f\xcd\xcc\x4c\x3e";
/// As many bytes for redis-benchmark, whose arguments hold no zero byte.
const INPUT: &str = "[[5.1,3.5,1.4,0.2]]";

/// The results of wrk.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Exits with a hint if a tool is missing.
pub(crate) fn require() {
    for (tool, package) in
        [("wrk", "wrk"), ("redis-benchmark", "redis-tools"), ("redis-server", "redis-server")]
    {
        let found = Command::new(tool).arg("--version").output();
        assert!(found.is_ok(), "{tool} is missing: install it with `apt-get install {package}`");
    }
}

/// `POST /predict` on `connections` connections for `length`. Every answer must be a success.
pub(crate) async fn wrk(url: &str, connections: usize, length: Duration) -> Http {
    let mut script = NamedTempFile::with_suffix(".lua").expect("a temporary file");
    let lines = format!(
        "wrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\nwrk.body = '{BODY}'\n"
    );
    script.write_all(lines.as_bytes()).expect("the file is ours");
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--latency", "--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{}s", length.as_secs().max(1))]);
    command.arg("--script").arg(script.path()).arg(format!("{url}/predict"));
    let output = run("wrk", command).await;
    assert!(!output.contains("Non-2xx"), "not every request was accepted:\n{output}");
    Http {
        per_second: after(&output, "Requests/sec:").parse().expect("a number"),
        p50_ms: milliseconds(after(&output, "50%")),
        p99_ms: milliseconds(after(&output, "99%")),
    }
}

/// The rate of the smallest script of a durable queue: a hash of six fields and a stream entry.
/// 64 connections, 64 commands in flight on each.
pub(crate) async fn redis_limit(url: &str, sha: &str, requests: usize) -> f64 {
    let fields =
        ["status", "pending", "created_at", "1700000000000", "entry", "1700000000000-0", "input", INPUT];
    let fields = fields.iter().chain(&["request_id", "019f1d2e-0000-7000-8000-000000000000", "attempt", "0"]);
    let mut command = Command::new("redis-benchmark");
    command.args(["-u", url, "-c", "64", "-P", "64", "-n", &requests.to_string()]);
    command.args(["-r", "1000000000", "-q", "EVALSHA", sha, "2"]);
    command.args(["{bench}:job:019f1d2e-0000-7000-__rand_int__", "{bench}:stream"]).args(fields);
    let output = run("redis-benchmark", command).await;
    assert!(!output.contains("rror"), "redis-benchmark: {output}");
    // Progress lines end in a carriage return; the last one is the result.
    let result =
        output.split(['\r', '\n']).rfind(|line| line.contains("requests per second")).unwrap_or_default();
    let words: Vec<_> = result.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "requests").expect("redis-benchmark prints its result");
    words[at - 1].parse().expect("a number")
}

async fn run(name: &'static str, mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The word after `label` at the start of a line. Elsewhere, one percentage could end like another.
fn after<'a>(output: &'a str, label: &str) -> &'a str {
    let rest = output.lines().find_map(|line| line.trim_start().strip_prefix(label));
    let rest = rest.unwrap_or_else(|| panic!("no {label} in:\n{output}"));
    rest.split_whitespace().next().unwrap_or_default()
}

/// A time of wrk with its unit.
fn milliseconds(text: &str) -> f64 {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let value: f64 = text.trim_end_matches(unit).parse().expect("a number");
    match unit {
        "us" => value / 1_000.0,
        "ms" => value,
        "s" => value * 1_000.0,
        _ => panic!("wrk printed a time that is not known: {text}"),
    }
}
