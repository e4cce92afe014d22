//! Redis as an operator sees it with redis-cli: readable jobs, a TTL of 24 hours once they have ended, and no remaining
//! entries.

use std::process::Command;

use serde_json::Value;
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;

use crate::flowers::rows;
use crate::{finished, submit_each};

const DAY_S: i64 = 86_400;

#[tokio::test]
async fn jobs_are_readable_and_nothing_is_left_over() {
    let redis = RedisServer::shipped().start().await;
    let proxy = Proxy::start(&redis.proxy_url(), &[]).await;
    let client = proxy.client();

    let ids = submit_each(&client, &rows(20)).await;
    let key = format!("{{predict_queue:0}}:job:{}", ids[0]);
    let waiting = hash(&redis, &key);
    assert_eq!(waiting["status"], "pending");
    assert_eq!(cli(&redis, &["HSTRLEN", &key, "input"]), "19", "three bytes and four floats");
    assert_eq!(waiting["at"].as_str().unwrap().len(), 13, "milliseconds since 1970: {waiting}");
    assert_eq!(ttl(&redis, &key), -1);
    assert_eq!(cli(&redis, &["XLEN", "{predict_queue:0}:stream:iris:normal"]), "20");

    let _worker = Worker::start(&redis.worker_url(), &[]).await;
    finished(&client, &ids).await;

    let done = hash(&redis, &key);
    assert_eq!(done["status"], "completed");
    assert_eq!(json_of(&done["result"])["class_name"], "setosa");
    assert!(done.get("input").is_none() && done.get("entry").is_none(), "{done}");
    for id in &ids {
        let left = ttl(&redis, &format!("{{predict_queue:0}}:job:{id}"));
        assert!((DAY_S - 60..=DAY_S).contains(&left), "{left} s left");
    }
    for priority in ["high", "normal", "low"] {
        let stream = format!("{{predict_queue:0}}:stream:iris:{priority}");
        assert_eq!(cli(&redis, &["XLEN", &stream]), "0");
        let pending = cli(&redis, &["XPENDING", &stream, "workers"]);
        assert_eq!(pending.lines().next(), Some("0"));
    }
}

/// The output of `redis-cli`.
fn cli(redis: &RedisServer, command: &[&str]) -> String {
    let login = ["--no-auth-warning", "-u", &redis.operator_url()];
    let output = Command::new("redis-cli").args(login).args(command).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.starts_with("ERR"), "{command:?}: {text}");
    text.trim_end().to_owned()
}

fn ttl(redis: &RedisServer, key: &str) -> i64 {
    cli(redis, &["TTL", key]).parse().unwrap()
}

/// HGETALL prints each field and each value on its own line.
fn hash(redis: &RedisServer, key: &str) -> Value {
    let text = cli(redis, &["HGETALL", key]);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks_exact(2)
        .map(|pair| (pair[0].to_owned(), Value::from(pair[1])))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn json_of(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}
