//! The users of the ACL file that compose/secrets.sh makes: each service can do all its work as its own user, on a Redis
//! with compose/redis.conf, and nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use redis::Value;
use serde_json::json;
use tempfile::TempDir;
use tepal_tests::http::{Client, Method};
use tepal_tests::model_server::{Behaviour, ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;
use tonic::Code;

use crate::{file, root};

const SOON: Duration = Duration::from_secs(30);

/// The files that compose/secrets.sh makes.
struct Secrets {
    dir: TempDir,
}

impl Secrets {
    /// The empty folders of all holders.
    fn empty() -> Self {
        let secrets = Self { dir: tempfile::tempdir().unwrap() };
        for holder in ["proxy", "worker", "operator", "grafana", "redis"] {
            std::fs::create_dir(secrets.path(holder)).unwrap();
        }
        secrets
    }

    fn make(queue: &str) -> Self {
        let secrets = Self::empty();
        secrets.run(queue);
        secrets
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.arg("compose/secrets.sh").arg("compose/users.acl").arg(self.dir.path()).current_dir(root());
        command
    }

    fn run(&self, queue: &str) {
        assert!(self.command().env("QUEUE_NAME", queue).status().unwrap().success());
    }

    /// The single sentence of a refusal by `command`; no ACL file may remain.
    fn refusal(&self, command: &mut Command) -> String {
        let Output { status, stderr, .. } = command.output().unwrap();
        let sentence = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), sentence.lines().count()), (Some(1), 1), "{sentence}");
        assert_eq!(std::fs::read_dir(self.path("redis")).unwrap().count(), 0, "{sentence}");
        sentence
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    fn read(&self, path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    fn password(&self, holder: &str) -> String {
        self.read(format!("{holder}/password"))
    }
}

#[test]
fn passwords_are_made_once_and_redis_learns_only_their_hashes() {
    let secrets = Secrets::make("predict_queue");
    let holders = ["proxy", "worker", "operator", "grafana"];
    let first = holders.map(|holder| secrets.password(holder));
    let acl = secrets.read("redis/users.acl");
    for (number, password) in first.iter().enumerate() {
        assert!(password.len() == 48 && !first[..number].contains(password), "{first:?}");
        assert!(!acl.contains(password.as_str()));
    }
    assert!(!acl.contains("PASSWORD"), "{acl}");

    secrets.run("predict_queue");
    assert_eq!(holders.map(|holder| secrets.password(holder)), first);
    assert_eq!(secrets.read("redis/users.acl"), acl);
}

#[test]
fn a_password_of_ones_own_is_taken_as_its_holder_reads_it() {
    let secrets = Secrets::empty();
    // The newline that an editor leaves is no part of it, see compose/entrypoint.sh.
    std::fs::write(secrets.path("worker/password"), "0123456789abcdef\n").unwrap();
    secrets.run("predict_queue");
    assert_eq!(secrets.password("worker"), "0123456789abcdef\n");
    let hash = "#9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f ";
    assert!(secrets.read("redis/users.acl").contains(&format!("user tepal-worker on {hash}")));
}

#[test]
fn without_a_password_for_everybody_nobody_gets_in() {
    let worker = |prepare: fn(&Path)| {
        let secrets = Secrets::empty();
        prepare(&secrets.path("worker"));
        secrets.refusal(&mut secrets.command())
    };
    let folder = worker(|worker| std::fs::remove_dir(worker).unwrap());
    assert!(folder.contains("the folder") && folder.contains("/worker is missing"), "{folder}");
    let file = worker(|worker| std::fs::create_dir(worker.join("password")).unwrap());
    assert!(file.contains("/worker/password is not a file"), "{file}");
    let short = worker(|worker| std::fs::write(worker.join("password"), "0123456789abcde\n").unwrap());
    assert!(short.contains("/worker/password is shorter than 16 characters"), "{short}");
}

#[test]
fn a_tool_that_is_missing_or_fails_makes_no_empty_password() {
    let tools = ["sh", "cat", "chmod", "mv", "od", "rm", "sed", "sha256sum", "tr"];
    for broken in ["od", "tr", "cat", "sha256sum"] {
        let programs = tempfile::tempdir().unwrap();
        for tool in tools {
            let find = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).output().unwrap();
            let found = String::from_utf8(find.stdout).unwrap();
            std::os::unix::fs::symlink(found.trim(), programs.path().join(tool)).unwrap();
        }
        let program = programs.path().join(broken);
        std::fs::remove_file(&program).unwrap();
        let secrets = Secrets::empty();
        let sentence = secrets.refusal(secrets.command().env("PATH", programs.path()));
        assert!(sentence.contains(&format!("{broken} is missing")), "{sentence}");
        for nothing in ["/bin/false", "/bin/true"] {
            std::os::unix::fs::symlink(nothing, &program).unwrap();
            secrets.refusal(secrets.command().env("PATH", programs.path()));
            std::fs::remove_file(&program).unwrap();
        }
    }
}

#[test]
fn a_queue_name_that_would_widen_or_break_the_acl_is_refused() {
    for queue in ["a b", "a\nb", "a*", "a?", "a[b", "a]b", "a{b", "a}b", "a\\b"] {
        let secrets = Secrets::empty();
        let sentence = secrets.refusal(secrets.command().env("QUEUE_NAME", queue));
        assert!(sentence.contains("QUEUE_NAME must not have blanks"), "{sentence}");
    }
    let acl = Secrets::make("a/b&c").read("redis/users.acl");
    assert!(acl.contains("~{a/b&c:*}:*") && acl.contains(" ~a/b&c:workers "), "{acl}");
}

#[test]
fn both_acl_files_give_the_same_rights() {
    let older = file("compose/users.acl");
    // Before 7.2 Redis does not know this command, and refuses a file that names it.
    assert_eq!(file("compose/users-7.2.acl").replace(" +client|setinfo", ""), older);
}

#[tokio::test]
async fn both_services_do_all_their_work_as_their_users() {
    // With characters that mean something to sed.
    let redis = RedisServer::shipped().queue("another/queue&1").start().await;
    let model_server = ModelServer::start(ServerSpec::iris()).await;
    let port = model_server.addr().port().to_string();
    let settings = [("QUEUE_NAME", "another/queue&1"), ("LEASE_MS", "1000"), ("PARTITIONS", "2")];
    let of_worker =
        [("MODEL_BACKEND", "tensorflow_serving"), ("TF_SERVING_GRPC_PORT", &port), ("RETRY_BASE_MS", "1")];
    let proxy = Proxy::start(&redis.proxy_url(), &settings).await;
    let worker = Worker::start(&redis.worker_url(), &[&settings[..], &of_worker].concat()).await;
    let client = proxy.client();

    run_jobs(&client).await;
    run_failing_jobs(&client, &model_server).await;
    // Requires replicas that do not exist.
    let careful = [&settings[..], &[("REPLICAS_REQUIRED", "1"), ("REPLICATION_TIMEOUT_MS", "50")]].concat();
    let careful = Proxy::start(&redis.proxy_url(), &careful).await;
    let answer = careful.client().try_predict(&rows(), &[]).await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("not_replicated")));
    stop_and_continue(&client, &worker).await;
    check_reads(&client).await;
    // One round of the janitor: it sweeps, prunes and notes the data set.
    eventually(SOON, "the janitor", async || {
        redis.cli(&["INFO", "commandstats"]).contains("xinfo|consumers")
    })
    .await;

    worker.sigterm();
    assert!(worker.wait_exit(SOON).await.success());
    assert_eq!(redis.cli(&["ACL", "LOG"]), "", "Redis refused something");
    for logs in [proxy.logs(), worker.logs()] {
        assert_eq!(logs.find("ACL rules"), None);
    }
}

fn rows() -> serde_json::Value {
    json!([[5.1, 3.5, 1.4, 0.2]])
}

/// Jobs of each priority, and one that is submitted twice and awaited on its channel.
async fn run_jobs(client: &Client) {
    for priority in ["high", "normal", "low"] {
        let body = json!({ "data": rows(), "priority": priority });
        let job = client.post_json("/predict", &body).await.json();
        let id = job["job_id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned();
        assert_eq!(client.finished(&id, SOON).await["status"], "completed");
    }
    let headers = [("prefer", "wait=10"), ("idempotency-key", "one")];
    for _ in 0..2 {
        let answer = client.try_predict(&rows(), &headers).await.unwrap();
        assert!([200, 202].contains(&answer.status), "{}", answer.text());
    }
}

/// A slow call renews its lease, a passing failure is retried, a lasting one leaves a dead letter.
async fn run_failing_jobs(client: &Client, model_server: &ModelServer) {
    let behaviours = [
        (Behaviour::Delay(Duration::from_millis(1500)), "completed"),
        (Behaviour::Status(Code::Internal, String::new()), "completed"),
        (Behaviour::Status(Code::InvalidArgument, String::new()), "failed"),
    ];
    for (behaviour, status) in behaviours {
        model_server.script_next(1, behaviour);
        let id = client.predict(&rows()).await;
        assert_eq!(client.finished(&id, SOON).await["status"], status);
    }
}

/// Jobs of a stopped worker: one is cancelled and submitted again, one expires, one runs when the worker continues.
async fn stop_and_continue(client: &Client, worker: &Worker) {
    worker.sigstop();
    let ids = [client.predict(&rows()).await, client.predict(&rows()).await];
    assert_eq!(client.delete(&format!("/job/{}", ids[0])).await.status, 200);
    let again = client.request(Method::POST, &format!("/job/{}/retry", ids[0]), &[], "").await;
    assert_eq!(again.status, 202, "{}", again.text());
    let late = json!({ "data": rows(), "max_queue_seconds": 1 });
    let late = client.post_json("/predict", &late).await.json()["job_id"].as_str().unwrap().to_owned();
    // A reader fails it, because the worker is stopped.
    assert_eq!(client.finished(&late, SOON).await["error_code"], "queue_timeout");
    worker.sigcont();
    assert_eq!(client.finished(&ids[1], SOON).await["status"], "completed");
}

async fn check_reads(client: &Client) {
    assert_eq!(client.get("/jobs").await.status, 200);
    eventually(SOON, "a healthy service", async || {
        let answer = client.get("/health").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(client.get("/metadata").await.status, 200);
}

#[tokio::test]
async fn nobody_may_do_what_is_not_theirs() {
    let redis = RedisServer::shipped().start().await;
    let forbidden: [&[&str]; 12] = [
        &["FLUSHALL"],
        &["FLUSHDB"],
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
        &["CONFIG", "GET", "*"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["GET", "foreign"],
        &["DEL", "{predict_queue:0}:log"],
        &["SSUBSCRIBE", "foreign"],
        &["ACL", "LIST"],
        &["SHUTDOWN"],
        &["EVAL", "return redis.call('FLUSHALL')", "0"],
    ];
    for url in [redis.proxy_url(), redis.worker_url()] {
        for command in forbidden {
            let error = run(&url, command).expect_err(&command.join(" "));
            assert_eq!(error.code(), Some("NOPERM"), "{url}, {command:?}: {error}");
        }
        // Inside a script, too: this is how the services call Redis.
        for body in ["return redis.call('FLUSHALL')", "return redis.call('GET', 'foreign')"] {
            let Ok(Value::BulkString(sha)) = run(&url, &["SCRIPT", "LOAD", body]) else {
                panic!("SCRIPT LOAD")
            };
            let refused =
                run(&url, &["EVALSHA", &String::from_utf8(sha).unwrap(), "0"]).unwrap_err().to_string();
            assert!(refused.contains("permission") || refused.contains("can't"), "{refused}");
        }
    }
    // The proxies' secret, with every command that a worker may run.
    let url = redis.worker_url();
    for command in [
        &["GET", "{predict_queue:0}:secret"][..],
        &["SET", "{predict_queue:0}:secret", "known"],
        &["HGETALL", "{predict_queue:0}:secret"],
    ] {
        assert_eq!(run(&url, command).unwrap_err().code(), Some("NOPERM"), "{command:?}");
    }
    assert!(run(&redis.proxy_url(), &["GET", "{predict_queue:0}:secret"]).is_ok());
    let health = format!("redis://tepal-health:any@{}/", redis.addr());
    assert!(run(&health, &["PING"]).is_ok());
    assert_eq!(run(&health, &["GET", "foreign"]).unwrap_err().code(), Some("NOPERM"));
    assert_eq!(run(&redis.operator_url(), &["FLUSHALL"]).unwrap_err().code(), Some("NOPERM"));
    let nobody = format!("redis://{}/", redis.addr());
    assert_eq!(run(&nobody, &["PING"]).unwrap_err().code(), Some("NOAUTH"));
    for user in ["tepal-proxy", "default"] {
        let refused = run(&format!("redis://{user}:wrong@{}/", redis.addr()), &["PING"]).unwrap_err();
        assert_eq!(refused.kind(), redis::ErrorKind::AuthenticationFailed, "{user}: {refused}");
    }
}

fn run(url: &str, command: &[&str]) -> Result<Value, redis::RedisError> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
}
