//! A real Redis server of its own for a test: private directory and port, killed when dropped.
//!
//! `TEPAL_TEST_REDIS` names another server binary (a `valkey-server`, another version), so that the whole
//! suite can be run against it. `TEPAL_TEST_TOPOLOGY` makes the tests of the job store run on several servers, see
//! [`Deployment`].

mod cluster;
mod cut_off;
mod deployment;
mod info;
mod monitor;
mod options;
mod sentinel;
mod shipped;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ClientTlsConfig, RedisError, TlsCertificates, Value};
use tempfile::TempDir;

pub use cluster::RedisCluster;
pub use deployment::Deployment;
pub use monitor::{Executed, Monitor, rights};
pub use options::{Fsync, RedisOptions};
pub use sentinel::SentinelGroup;

use crate::ports::{free_port, is_free};
use crate::process::Process;
use crate::wait::poll;

/// Loading a large AOF takes a while; an empty server answers after about 20 ms.
const READY_WITHIN: Duration = Duration::from_secs(60);
const REPLY_WITHIN: Duration = Duration::from_secs(20);
const START_TRIES: u32 = 10;

/// A running (or frozen, or killed) server. All methods take `&self`, so that a test can share it in an
/// `Arc`.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisOptions,
    dir: TempDir,
    port: u16,
    process: Mutex<Arc<Process>>,
}

/// Why a freshly started server did not become ready.
enum NotReady {
    PortTaken,
    Other(String),
}

impl RedisServer {
    /// Redis as it is shipped, with choices to make before [`RedisOptions::start`]: what runs in production and hence
    /// what services are tested with, each as its own user ([`proxy_url`](Self::proxy_url),
    /// [`worker_url`](Self::worker_url)). A server without users is for tests of the harness, of users, and of the job
    /// store without a restart.
    #[must_use]
    pub fn shipped() -> RedisOptions {
        RedisOptions::shipped()
    }

    /// Starts a server that has no users and keeps nothing on disk.
    ///
    /// # Panics
    /// When there is no server binary (the text says what to install) or when it does not become ready.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// Choices to make before [`RedisOptions::start`] of a server without users.
    #[must_use]
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    async fn launch(options: RedisOptions) -> Self {
        for _ in 0..START_TRIES {
            let port = free_port();
            let dir =
                tempfile::Builder::new().prefix("tepal-redis-").tempdir().expect("a temporary directory");
            options.write_config(dir.path(), port);
            let process = Mutex::new(Arc::new(spawn(&options, dir.path())));
            let server = Self { options: options.clone(), dir, port, process };
            match server.ready().await {
                Ok(()) => return server,
                Err(NotReady::PortTaken) => {} // Another process was faster: try another port.
                Err(NotReady::Other(why)) => server.panic_not_ready(&why),
            }
        }
        panic!("{START_TRIES} free ports in a row were taken before redis-server could listen on them")
    }

    /// A `redis://` (with TLS, `rediss://`) address of this server, with its user and password if it has them.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(&self.addr())
    }

    /// The same at another address: that of a proxy in front of this server.
    #[must_use]
    pub fn url_at(&self, addr: &str) -> String {
        self.address(&self.options.login(), addr)
    }

    /// The address for `tepal-proxy`, with its own user where there are shipped users.
    #[must_use]
    pub fn proxy_url(&self) -> String {
        self.proxy_url_at(&self.addr())
    }

    /// [`proxy_url`](Self::proxy_url) at another address.
    #[must_use]
    pub fn proxy_url_at(&self, addr: &str) -> String {
        self.address(&self.options.login_of("proxy"), addr)
    }

    /// The address for `tepal-worker`, with its own user where there are shipped users.
    #[must_use]
    pub fn worker_url(&self) -> String {
        self.worker_url_at(&self.addr())
    }

    /// [`worker_url`](Self::worker_url) at another address.
    #[must_use]
    pub fn worker_url_at(&self, addr: &str) -> String {
        self.address(&self.options.login_of("worker"), addr)
    }

    /// The address for `tepal-operator`, a person.
    #[must_use]
    pub fn operator_url(&self) -> String {
        self.address(&self.options.login_of("operator"), &self.addr())
    }

    fn address(&self, login: &str, addr: &str) -> String {
        let scheme = if self.options.secured().is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{login}{addr}")
    }

    /// `<host>:<port>`.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("{}:{}", self.host(), self.port)
    }

    /// 127.0.0.1, or its address in a [network](crate::network).
    #[must_use]
    pub fn host(&self) -> &str {
        self.options.address()
    }

    /// The port, the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The pid of the current process: a new one after each [`restart`](Self::restart).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Whether the current process has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// The server's directory: `redis.conf`, `redis.log`, `appendonlydir/`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The newest append-only file that takes writes, to truncate or damage it.
    ///
    /// # Panics
    /// When the server was started without AOF.
    #[must_use]
    pub fn aof_file(&self) -> PathBuf {
        let files =
            std::fs::read_dir(self.dir().join("appendonlydir")).expect("the server was started with an AOF");
        let paths = files
            .flatten()
            .map(|file| file.path())
            .filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
        let modified = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
        paths.max_by_key(modified).expect("an .incr.aof file")
    }

    /// The server's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("redis.log")).unwrap_or_default()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill9(&self) {
        self.process().kill9();
    }

    /// SIGTERM, the orderly end: Redis flushes its AOF. Returns when the process is gone.
    pub async fn stop(&self) {
        let process = self.process();
        process.sigterm();
        process.wait_exit(REPLY_WITHIN).await;
    }

    /// Waits for the server to end by itself.
    ///
    /// # Panics
    /// When it still runs after `within`.
    pub async fn wait_exit(&self, within: Duration) -> ExitStatus {
        self.process().wait_exit(within).await
    }

    /// Sets how large a file the running server may write, `None` for any size: a disk that is full, and one that has
    /// room again. Start the server through `env --ignore-signal=XFSZ`, or the kernel kills it at the limit.
    ///
    /// # Panics
    /// When there is no `prlimit`.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let arguments = ["--pid", &self.pid().to_string(), &format!("--fsize={soft}:")];
        let status = Command::new("prlimit").args(arguments).status().expect("prlimit, of util-linux");
        assert!(status.success(), "prlimit: {status}");
    }

    /// SIGSTOP: connections stay open and connecting works, but nothing is answered.
    pub fn sigstop(&self) {
        self.process().sigstop();
    }

    /// SIGCONT: ends [`sigstop`](Self::sigstop).
    pub fn sigcont(&self) {
        self.process().sigcont();
    }

    /// Starts the server again on the same port and directory, with SIGKILL first if it still runs, and waits
    /// until it has loaded its data.
    ///
    /// # Panics
    /// When it does not become ready; the text has the end of its log.
    pub async fn restart(&self) {
        self.relaunch().await;
        self.wait_ready().await;
    }

    /// [`restart`](Self::restart) that returns at once: the server may not listen yet, or be LOADING.
    pub async fn relaunch(&self) {
        self.kill9();
        // A client's last connection attempt may hold the port for a moment.
        let free = poll(READY_WITHIN, || async { is_free(self.port) }).await;
        assert!(free.is_ok(), "port {} was taken while its server was down", self.port);
        *self.process.lock().expect("no panic while held") = Arc::new(spawn(&self.options, self.dir()));
    }

    /// Waits until the server answers PING, past LOADING; for use after [`relaunch`](Self::relaunch).
    ///
    /// # Panics
    /// As [`restart`](Self::restart).
    pub async fn wait_ready(&self) {
        match self.ready().await {
            Ok(()) => {}
            Err(NotReady::PortTaken) => self.panic_not_ready("its port was taken while it was down"),
            Err(NotReady::Other(why)) => self.panic_not_ready(&why),
        }
    }

    async fn ready(&self) -> Result<(), NotReady> {
        let process = self.process();
        let ready = poll(READY_WITHIN, || async {
            if process.is_running() {
                return self.answers().await.map(Ok);
            }
            Ok(Err(if self.log().contains("Address already in use") {
                NotReady::PortTaken
            } else {
                NotReady::Other("it ended".to_owned())
            }))
        });
        ready.await.unwrap_or_else(|gave_up| Err(NotReady::Other(gave_up)))
    }

    async fn answers(&self) -> Result<(), String> {
        let describe = |error: RedisError| error.to_string();
        let mut connection = self.connect().await.map_err(describe)?;
        let () = redis::cmd("PING").exec_async(&mut connection).await.map_err(describe)?;
        let info: String =
            redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(describe)?;
        // Another test's server may have taken the port first.
        let ours = info.contains(&*self.dir().join("redis.conf").to_string_lossy());
        if ours { Ok(()) } else { Err(format!("another server answers on port {}", self.port)) }
    }

    /// A new asynchronous connection that waits up to 20 s for a reply.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.connect().await.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.url()))
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(REPLY_WITHIN))
            .set_response_timeout(Some(REPLY_WITHIN));
        self.client()?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Runs one command over a plain connection of its own and returns the reply as text: one line for each
    /// element, `(nil)` for nothing.
    ///
    /// # Panics
    /// When the reply is an error or none comes.
    #[track_caller]
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).unwrap_or_else(|error| panic!("redis {command:?}: {error}"))
    }

    /// [`cli`](Self::cli) for a command that may fail.
    ///
    /// # Errors
    /// The server's error reply, or why there is no reply.
    pub fn try_cli(&self, command: &[&str]) -> Result<String, RedisError> {
        let mut connection = self.client()?.get_connection_with_timeout(REPLY_WITHIN)?;
        connection.set_read_timeout(Some(REPLY_WITHIN))?;
        let (name, args) = command.split_first().expect("a command has a name");
        let reply: Value = redis::cmd(name).arg(args).query(&mut connection)?;
        Ok(text(&reply))
    }

    fn client(&self) -> Result<Client, RedisError> {
        let Some(tls) = self.options.secured() else { return Client::open(self.url()) };
        let read = |path: &Path| std::fs::read(path).expect("a certificate of the harness");
        let (client_cert, client_key) = (read(&tls.client.certificate), read(&tls.client.key));
        let client_tls = Some(ClientTlsConfig { client_cert, client_key });
        let root_cert = Some(read(&tls.authority.certificate()));
        Client::build_with_tls(self.url(), TlsCertificates { client_tls, root_cert })
    }

    fn process(&self) -> Arc<Process> {
        Arc::clone(&self.process.lock().expect("no panic while held"))
    }

    fn panic_not_ready(&self, why: &str) -> ! {
        panic!("redis-server on port {} did not become ready: {why}. Its log:\n{}", self.port, self.log())
    }
}

fn spawn(options: &RedisOptions, dir: &Path) -> Process {
    let mut command = options.command();
    command.arg(dir.join("redis.conf")).current_dir(dir);
    command.args(options.is_sentinel.then_some("--sentinel"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process::spawn("redis-server", &mut command).unwrap_or_else(|error| {
        panic!(
            "cannot start {}: {error}: install it with `apt-get install redis-server` (or your system's \
             package manager), or set TEPAL_TEST_REDIS to a redis-server or valkey-server binary",
            options.binary().display()
        )
    })
}

fn text(reply: &Value) -> String {
    let lines = |values: &[Value]| values.iter().map(text).collect::<Vec<_>>().join("\n");
    match reply {
        Value::Nil => "(nil)".to_owned(),
        Value::Okay => "OK".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::SimpleString(text) => text.clone(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(values) | Value::Set(values) => lines(values),
        Value::Map(pairs) => pairs
            .iter()
            .map(|(key, value)| format!("{}\n{}", text(key), text(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        other => format!("{other:?}"),
    }
}
