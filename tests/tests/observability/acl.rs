//! The users of the ACL file that compose/secrets.sh makes: each service can do all its work as its own user, on a Redis
//! with compose/redis.conf, and nothing else.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use redis::{Client, Value};
use serde_json::json;
use tempfile::TempDir;
use tepal_tests::http::Method;
use tepal_tests::model_server::{Behaviour, ModelServer, ServerSpec};
use tepal_tests::process::{Proxy, Worker};
use tepal_tests::redis::RedisServer;
use tepal_tests::wait::eventually;
use tonic::Code;

use crate::{file, root};

const SOON: Duration = Duration::from_secs(30);

/// The ACL file for the server that the tests use.
fn template() -> &'static str {
    let chosen = std::env::var_os("TEPAL_TEST_REDIS").filter(|path| !path.is_empty());
    let output =
        Command::new(chosen.unwrap_or_else(|| "redis-server".into())).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts =
        text.split("v=").nth(1).unwrap().split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let is_older = (parts.next(), parts.next()) < (Some(7), Some(2));
    if is_older { "compose/users.acl" } else { "compose/users-7.2.acl" }
}

/// What compose/secrets.sh leaves behind.
struct Secrets {
    dir: TempDir,
}

impl Secrets {
    fn make(queue: &str) -> Self {
        let secrets = Self { dir: tempfile::tempdir().unwrap() };
        for holder in ["proxy", "worker", "operator", "grafana", "redis"] {
            std::fs::create_dir(secrets.dir.path().join(holder)).unwrap();
        }
        secrets.run(queue);
        secrets
    }

    fn run(&self, queue: &str) {
        let mut command = Command::new("sh");
        command.arg("compose/secrets.sh").arg(template()).arg(self.dir.path());
        let status = command.env("QUEUE_NAME", queue).current_dir(root()).status().unwrap();
        assert!(status.success());
    }

    fn read(&self, path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.dir.path().join(path)).unwrap()
    }

    fn password(&self, holder: &str) -> String {
        self.read(format!("{holder}/password"))
    }

    /// A Redis with these users and compose/redis.conf; the harness is the operator.
    async fn redis(&self) -> RedisServer {
        let config = file("compose/redis.conf");
        let lines = config.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', ' ']));
        // Where the harness looks for the log.
        let lines = lines.filter(|line| !line.starts_with("logfile"));
        let options = lines.fold(RedisServer::options(), |options, line| options.config(line));
        let (users, password) = (self.read("redis/users.acl"), self.password("operator"));
        options.acl_file(&users, "tepal-operator", &password).start().await
    }

    /// The server's address for a service's user.
    fn url(&self, redis: &RedisServer, holder: &str) -> String {
        format!("redis://tepal-{holder}:{}@{}/", self.password(holder), redis.addr())
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
fn both_acl_files_give_the_same_rights() {
    let older = file("compose/users.acl");
    // Before 7.2 Redis does not know this command, and refuses a file that names it.
    assert_eq!(file("compose/users-7.2.acl").replace(" +client|setinfo", ""), older);
}

#[tokio::test]
async fn both_services_do_all_their_work_as_their_users() {
    let secrets = Secrets::make("another_queue");
    let redis = secrets.redis().await;
    let model_server = ModelServer::start(ServerSpec::iris()).await;
    let port = model_server.addr().port().to_string();
    let settings = [("QUEUE_NAME", "another_queue"), ("LEASE_MS", "1000"), ("PARTITIONS", "2")];
    let of_worker =
        [("MODEL_BACKEND", "tensorflow_serving"), ("TF_SERVING_GRPC_PORT", &port), ("RETRY_BASE_MS", "1")];
    let proxy = Proxy::start(&secrets.url(&redis, "proxy"), &settings).await;
    let worker = Worker::start(&secrets.url(&redis, "worker"), &[&settings[..], &of_worker].concat()).await;
    let client = proxy.client();

    for priority in ["high", "normal", "low"] {
        let body = json!({ "data": [[5.1, 3.5, 1.4, 0.2]], "priority": priority });
        let job = client.post_json("/predict", &body).await.json();
        let id = job["job_id"].as_str().unwrap_or_else(|| panic!("{job}")).to_owned();
        assert_eq!(client.finished(&id, SOON).await["status"], "completed");
    }
    // Waits on the job's channel.
    let headers = [("prefer", "wait=10"), ("idempotency-key", "one")];
    let rows = json!([[5.1, 3.5, 1.4, 0.2]]);
    for _ in 0..2 {
        let answer = client.try_predict(&rows, &headers).await.unwrap();
        assert!([200, 202].contains(&answer.status), "{}", answer.text());
    }

    // A slow call renews its lease, a passing failure is retried, a lasting one leaves a dead letter.
    let behaviours = [
        (Behaviour::Delay(Duration::from_millis(1500)), "completed"),
        (Behaviour::Status(Code::Internal, String::new()), "completed"),
        (Behaviour::Status(Code::InvalidArgument, String::new()), "failed"),
    ];
    for (behaviour, status) in behaviours {
        model_server.script_next(1, behaviour);
        let id = client.predict(&rows).await;
        assert_eq!(client.finished(&id, SOON).await["status"], status);
    }
    // Asks for replicas that are not there.
    let careful = [&settings[..], &[("REPLICAS_REQUIRED", "1"), ("REPLICATION_TIMEOUT_MS", "50")]].concat();
    let careful = Proxy::start(&secrets.url(&redis, "proxy"), &careful).await;
    let answer = careful.client().try_predict(&rows, &[]).await.unwrap();
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("not_replicated")));

    // Jobs of a killed worker are reclaimed; cancelled and submitted again meanwhile.
    worker.sigstop();
    let ids = [client.predict(&rows).await, client.predict(&rows).await];
    assert_eq!(client.delete(&format!("/job/{}", ids[0])).await.status, 200);
    let again = client.request(Method::POST, &format!("/job/{}/retry", ids[0]), &[], "").await;
    assert_eq!(again.status, 202, "{}", again.text());
    let late = json!({ "data": rows, "max_queue_seconds": 1 });
    let late = client.post_json("/predict", &late).await.json()["job_id"].as_str().unwrap().to_owned();
    // The reader fails it: nobody else is there.
    assert_eq!(client.finished(&late, SOON).await["error_code"], "queue_timeout");
    worker.sigcont();
    assert_eq!(client.finished(&ids[1], SOON).await["status"], "completed");

    assert_eq!(client.get("/jobs").await.status, 200);
    eventually(SOON, "a healthy service", async || {
        let answer = client.get("/health").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(client.get("/metadata").await.status, 200);
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

#[tokio::test]
async fn nobody_may_do_what_is_not_theirs() {
    let secrets = Secrets::make("predict_queue");
    let redis = secrets.redis().await;
    let forbidden: [&[&str]; 12] = [
        &["FLUSHALL"],
        &["FLUSHDB"],
        &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"],
        &["CONFIG", "GET", "*"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["GET", "foreign"],
        &["DEL", "{predict_queue:0}:epoch"],
        &["SUBSCRIBE", "foreign"],
        &["ACL", "LIST"],
        &["SHUTDOWN"],
        &["EVAL", "return redis.call('FLUSHALL')", "0"],
    ];
    for holder in ["proxy", "worker"] {
        let url = secrets.url(&redis, holder);
        for command in forbidden {
            let error = run(&url, command).expect_err(&command.join(" "));
            assert_eq!(error.code(), Some("NOPERM"), "{holder}, {command:?}: {error}");
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
    let health = format!("redis://tepal-health:any@{}/", redis.addr());
    assert!(run(&health, &["PING"]).is_ok());
    assert_eq!(run(&health, &["GET", "foreign"]).unwrap_err().code(), Some("NOPERM"));
    assert_eq!(redis.try_cli(&["FLUSHALL"]).unwrap_err().code(), Some("NOPERM"));
    let nobody = format!("redis://{}/", redis.addr());
    assert_eq!(run(&nobody, &["PING"]).unwrap_err().code(), Some("NOAUTH"));
    assert!(run(&format!("redis://tepal-proxy:wrong@{}/", redis.addr()), &["PING"]).is_err());
}

fn run(url: &str, command: &[&str]) -> Result<Value, redis::RedisError> {
    let mut connection = Client::open(url)?.get_connection()?;
    redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
}
