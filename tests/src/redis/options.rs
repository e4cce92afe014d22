//! The options of a test's Redis server, which become its `redis.conf`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::RedisServer;
use super::shipped::{HARNESS, PASSWORD, Users, compose, memory_limit};
use crate::certificates::{Authority, Pair};
use crate::network::{Host, Network};
use crate::ports::free_port;

/// When the append-only file reaches the disk: `appendfsync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each reply.
    Always,
    /// Once a second.
    EverySec,
    /// When the operating system decides.
    No,
}

/// The options of a [`RedisServer`], see [`RedisServer::options`].
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    aof: Option<Fsync>,
    lines: Vec<String>,
    user: String,
    password: String,
    acl: Option<String>,
    binary: Option<PathBuf>,
    tls: Option<Tls>,
    wrapper: Vec<String>,
    /// The queue whose Redis is to be as it is shipped.
    shipped_for: Option<String>,
    users: Option<Users>,
    pub(super) is_sentinel: bool,
    network: Option<Arc<Network>>,
    /// Its place in the network.
    pub(super) host: Option<Host>,
}

/// TLS of a server and of its clients.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) authority: Authority,
    pub(super) client: Pair,
    server: Pair,
    wants_clients: bool,
}

impl RedisOptions {
    /// See [`RedisServer::shipped`].
    pub(super) fn shipped() -> Self {
        Self { shipped_for: Some("predict_queue".to_owned()), lines: vec![memory_limit()], ..Self::default() }
    }

    /// The shipped users for a queue of another name.
    #[must_use]
    pub fn queue(mut self, name: &str) -> Self {
        self.shipped_for = Some(name.to_owned());
        self
    }

    /// Keeps the data over restarts in an append-only file.
    #[must_use]
    pub fn aof(mut self, fsync: Fsync) -> Self {
        self.aof = Some(fsync);
        self
    }

    /// Makes it a replica of this server.
    #[must_use]
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        let RedisOptions { user, password, .. } = &primary.options;
        self.lines.push(format!("replicaof {} {}", primary.host(), primary.port()));
        if !password.is_empty() {
            self.lines.push(format!("masterauth {password}"));
        }
        if !user.is_empty() {
            self.lines.push(format!("masteruser {user}"));
        }
        self
    }

    /// Adds a line to `redis.conf`, e.g. `maxmemory 10mb`; it wins over the lines the harness writes.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Requires this password of the default user; the harness uses it, too.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.lines.push(format!("requirepass {password}"));
        password.clone_into(&mut self.password);
        self
    }

    /// Uses this text as ACL file and logs in as `user`, who must be allowed PING and INFO. The user and
    /// password appear in [`RedisServer::url`] as they are, so choose ones that need no percent-encoding.
    #[must_use]
    pub fn acl_file(mut self, rules: &str, user: &str, password: &str) -> Self {
        self.acl = Some(rules.to_owned());
        user.clone_into(&mut self.user);
        password.clone_into(&mut self.password);
        self
    }

    /// Serves TLS only, with a certificate for 127.0.0.1 from this authority. With `wants_clients`, clients
    /// must show one from it, too; the harness does in any case.
    #[must_use]
    pub fn tls(mut self, authority: &Authority, wants_clients: bool) -> Self {
        let (server, client) = (authority.issue(&["127.0.0.1"]), authority.issue(&["harness"]));
        self.tls = Some(Tls { authority: authority.clone(), client, server, wants_clients });
        self
    }

    /// Makes it a node of a Redis Cluster, which owns no slots yet.
    #[must_use]
    pub fn cluster_node(self) -> Self {
        let bus = format!("cluster-port {}", free_port());
        self.config("cluster-enabled yes").config("cluster-require-full-coverage no").config(&bus)
    }

    /// Makes it a Sentinel, which watches nothing.
    #[must_use]
    pub fn sentinel(mut self) -> Self {
        self.is_sentinel = true;
        self
    }

    /// Puts it into this network, from which it can be [cut off](RedisServer::cut_off).
    #[must_use]
    pub fn network(mut self, network: &Arc<Network>) -> Self {
        self.network = Some(Arc::clone(network));
        self
    }

    /// A Sentinel in the network of this server.
    pub(super) fn sentinel_beside(&self) -> Self {
        Self { network: self.network.clone(), ..Self::default() }.sentinel()
    }

    pub(super) fn secured(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Uses this server binary instead of that of `TEPAL_TEST_REDIS`.
    #[must_use]
    pub fn with_binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Starts the server through this command line, which must replace itself by the server: `env`, `strace -D`.
    #[must_use]
    pub fn through(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The command that starts the server, without its configuration.
    pub(super) fn command(&self) -> Command {
        let binary = self.binary();
        let Some((program, arguments)) = self.wrapper.split_first() else { return Command::new(binary) };
        let mut command = Command::new(program);
        command.args(arguments).arg(binary);
        command
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub async fn start(mut self) -> RedisServer {
        if let Some(queue) = &self.shipped_for {
            let users = Users::of(queue, &self.binary());
            self = self.acl_file(&users.rules, HARNESS, PASSWORD);
            self.users = Some(users);
            // Any server of a group may become a replica.
            self = self.config(&format!("masteruser {HARNESS}")).config(&format!("masterauth {PASSWORD}"));
        }
        if let Some(network) = &self.network {
            let host = network.host();
            self = self.through(&host.wrapper()).config("protected-mode no");
            self.host = Some(host);
        }
        RedisServer::launch(self).await
    }

    pub(super) fn binary(&self) -> PathBuf {
        let chosen = std::env::var_os("TEPAL_TEST_REDIS").filter(|path| !path.is_empty());
        self.binary.clone().or_else(|| chosen.map(PathBuf::from)).unwrap_or_else(|| "redis-server".into())
    }

    pub(super) fn address(&self) -> &str {
        self.host.as_ref().map_or("127.0.0.1", |host| &host.address)
    }

    /// `user:password@` for the URL, empty without a password.
    pub(super) fn login(&self) -> String {
        if self.password.is_empty() { String::new() } else { format!("{}:{}@", self.user, self.password) }
    }

    /// The words after AUTH with which the harness logs in; none if the server has no users.
    pub(super) fn credentials(&self) -> Option<String> {
        let credentials = format!("{} {}", self.user, self.password);
        (!self.password.is_empty()).then(|| credentials.trim().to_owned())
    }

    /// The same for a service; the harness's own where there are no shipped users.
    pub(super) fn login_of(&self, holder: &str) -> String {
        self.users.as_ref().map_or_else(|| self.login(), |users| users.login(holder))
    }

    pub(super) fn write_config(&self, dir: &Path, port: u16) {
        let shown = dir.display();
        let mut config = match self.shipped_for {
            Some(_) => format!("include \"{}\"\n", compose("redis.conf").display()),
            None => "save \"\"\n".to_owned(),
        };
        config += &format!(
            "bind {}\n{}\ndir \"{shown}\"\nlogfile \"{shown}/redis.log\"\n\
             daemonize no\nenable-debug-command local\n",
            self.address(),
            self.port_lines(port)
        );
        config += match self.aof {
            None if self.shipped_for.is_some() => "",
            None => "appendonly no\n",
            Some(Fsync::Always) => "appendonly yes\nappendfsync always\n",
            Some(Fsync::EverySec) => "appendonly yes\nappendfsync everysec\n",
            Some(Fsync::No) => "appendonly yes\nappendfsync no\n",
        };
        if let Some(rules) = &self.acl {
            fs::write(dir.join("users.acl"), rules).expect("the directory is ours");
            config += &format!("aclfile \"{shown}/users.acl\"\n");
        }
        for line in &self.lines {
            config += line;
            config.push('\n');
        }
        fs::write(dir.join("redis.conf"), config).expect("the directory is ours");
    }

    fn port_lines(&self, port: u16) -> String {
        let Some(Tls { authority, server, wants_clients, .. }) = &self.tls else {
            return format!("port {port}");
        };
        format!(
            "port 0\ntls-port {port}\ntls-cert-file \"{}\"\ntls-key-file \"{}\"\ntls-ca-cert-file \"{}\"\n\
             tls-auth-clients {}",
            server.certificate.display(),
            server.key.display(),
            authority.certificate().display(),
            if *wants_clients { "yes" } else { "no" },
        )
    }
}
