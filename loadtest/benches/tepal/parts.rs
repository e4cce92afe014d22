//! Starts the measured programs. They listen on loopback. Dropping its handle kills a program.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tepal_tests::http::Client;
use tepal_tests::ports::free_port;
use tepal_tests::process::{Process, binary_path};
use tepal_tests::redis::{Fsync, RedisServer};
use tepal_tests::wait::poll;

const READY_WITHIN: Duration = Duration::from_secs(30);

/// The queue has a limit, as shipped, so each submission counts the queue. It is never full: the deepest backlog has a million jobs.
pub(crate) const QUEUE_LIMIT: u64 = 10_000_000;

/// Environment variables of a child.
pub(crate) type Env<'a> = &'a [(&'a str, &'a str)];

/// A child that serves HTTP.
pub(crate) struct Served {
    pub(crate) url: String,
    process: Process,
    /// The folder of its log.
    _dir: TempDir,
}

/// The folder of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Redis as shipped, but with fsync every second: the targets compare with limits that do not depend on the disk.
pub(crate) async fn redis() -> RedisServer {
    redis_with(Fsync::EverySec).await
}

/// Redis as shipped, but with this fsync and, as with `make up`, as much memory as the machine has.
pub(crate) async fn redis_with(fsync: Fsync) -> RedisServer {
    RedisServer::shipped().aof(fsync).config("maxmemory 0").start().await
}

/// A Redis with the same persistence and otherwise its own defaults.
pub(crate) async fn stock_redis() -> RedisServer {
    RedisServer::options().aof(Fsync::EverySec).start().await
}

/// `tepal-proxy` without a rate limit.
pub(crate) async fn proxy(redis: &RedisServer) -> Served {
    proxy_with(redis, &[]).await
}

/// The same with more settings.
pub(crate) async fn proxy_with(redis: &RedisServer, env: Env<'_>) -> Served {
    let addr = format!("127.0.0.1:{}", free_port());
    let env = [&[("LISTEN_ADDR", addr.as_str()), ("RATE_LIMIT_PER_MINUTE", "0")], env].concat();
    start(&binary_path("tepal-proxy"), &[], &redis.proxy_url(), &env, &addr, "/livez").await
}

/// `tepal-worker` with one consumer.
pub(crate) async fn worker(redis: &RedisServer, env: Env<'_>) -> Served {
    let addr = format!("127.0.0.1:{}", free_port());
    let env = [&[("METRICS_ADDR", addr.as_str()), ("NUM_WORKERS", "1")], env].concat();
    start(&binary_path("tepal-worker"), &[], &redis.worker_url(), &env, &addr, "/metrics").await
}

/// The bare HTTP server.
pub(crate) async fn bare_axum(redis: &RedisServer) -> Served {
    let addr = format!("127.0.0.1:{}", free_port());
    let this_program = std::env::current_exe().expect("this program has a path");
    start(&this_program, &["axum", &addr], &redis.url(), &[], &addr, "/livez").await
}

/// Logs go to a file as JSON, as with `make up`.
async fn start(
    program: &Path,
    args: &[&str],
    redis_url: &str,
    env: Env<'_>,
    addr: &str,
    ready: &str,
) -> Served {
    let dir = tempfile::Builder::new().prefix("tepal-bench-").tempdir().expect("a temporary directory");
    let log = File::create(dir.path().join("log")).expect("a log file");
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(args).env_clear().current_dir(repository());
    command
        .env("REDIS_URL", redis_url)
        .env("LOG_FORMAT", "json")
        .env("MAX_QUEUE_DEPTH", QUEUE_LIMIT.to_string());
    command.envs(env.iter().copied()).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("the log file")).stderr(log);
    let process = Process::spawn(&name, &mut command).unwrap_or_else(|error| panic!("{name}: {error}"));
    let served = Served { url: format!("http://{addr}"), process, _dir: dir };
    served.wait_for(ready).await;
    served
}

impl Served {
    /// Waits until `GET path` answers 200.
    pub(crate) async fn wait_for(&self, path: &str) {
        let client = Client::new(&self.url).with_timeout(Duration::from_secs(2));
        let ready = poll(READY_WITHIN, || async {
            assert!(self.process.is_running(), "{} ended", self.process);
            match client.try_get(path).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("status {}", answer.status)),
                Err(error) => Err(error.to_string()),
            }
        });
        ready.await.unwrap_or_else(|why| panic!("{} is not ready: {why}", self.process));
    }
}
