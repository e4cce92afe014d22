//! A primary, its replicas and their Sentinels, for a test.

use std::time::Duration;

use super::{RedisOptions, RedisServer};
use crate::wait::eventually;

/// A server counts as down after this time, ms.
const DOWN_AFTER_MS: u32 = 1000;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The name of the group.
const GROUP: &str = "tepal";

/// A group of servers. Every server is killed when it is dropped.
#[derive(Debug)]
pub struct SentinelGroup {
    /// The servers. The first began as the primary.
    pub servers: Vec<RedisServer>,
    /// Three Sentinels.
    pub sentinels: Vec<RedisServer>,
}

impl SentinelGroup {
    /// Starts a primary with these options and so many replicas of it, and waits until three Sentinels know all of them.
    ///
    /// # Panics
    /// When the group does not become ready.
    pub async fn start(options: &RedisOptions, replicas: usize) -> Self {
        let primary = options.clone().start().await;
        let mut servers = Vec::new();
        for _ in 0..replicas {
            servers.push(options.clone().replica_of(&primary).start().await);
        }
        servers.insert(0, primary);
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(options.sentinel_beside().start().await);
        }
        let group = Self { servers, sentinels };
        group.watch(GROUP, &group.servers[0].port().to_string());
        group.ready(replicas).await;
        group
    }

    fn watch(&self, name: &str, port: &str) {
        let host = self.servers[0].host();
        for sentinel in &self.sentinels {
            sentinel.cli(&["SENTINEL", "MONITOR", name, host, port, "2"]);
            let set = |option: &str, value: &str| sentinel.cli(&["SENTINEL", "SET", name, option, value]);
            set("down-after-milliseconds", &DOWN_AFTER_MS.to_string());
            set("failover-timeout", "5000");
            if let Some(credentials) = self.servers[0].options.credentials() {
                let (user, password) = credentials.split_once(' ').unwrap_or(("", &credentials));
                set("auth-pass", password);
                if !user.is_empty() {
                    set("auth-user", user);
                }
            }
        }
    }

    /// Waits until every Sentinel knows so many replicas that are up, and the other Sentinels.
    ///
    /// # Panics
    /// When they do not in time.
    pub async fn ready(&self, replicas: usize) {
        self.known(GROUP, replicas).await;
    }

    async fn known(&self, group: &str, replicas: usize) {
        let field = |sentinel: &RedisServer, name: &str| {
            let reply = sentinel.cli(&["SENTINEL", "MASTER", group]);
            let mut lines = reply.lines().skip_while(|line| *line != name);
            lines.nth(1).map(str::to_owned).unwrap_or_default()
        };
        let expected = format!("{replicas} 2 master");
        let look = |sentinel: &RedisServer| {
            let seen =
                ["num-slaves", "num-other-sentinels", "flags"].map(|name| field(sentinel, name)).join(" ");
            let flags = sentinel.cli(&["SENTINEL", "REPLICAS", group]);
            if seen == expected && !flags.contains("disconnected") {
                Ok(())
            } else {
                Err(seen + "\n" + &flags)
            }
        };
        let all = async || self.sentinels.iter().try_for_each(look);
        eventually(READY_WITHIN, "Sentinels that know the group", all).await;
    }

    /// The server that the Sentinels name as the primary.
    ///
    /// # Panics
    /// When they name none of the group.
    #[must_use]
    pub fn primary(&self) -> &RedisServer {
        let named = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", GROUP]);
        let port = named.lines().nth(1).unwrap_or_default();
        let is_named = |server: &&RedisServer| server.port().to_string() == port;
        self.servers.iter().find(is_named).unwrap_or_else(|| panic!("no server of the group: {named}"))
    }

    /// The address of the group.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_with(RedisServer::url_at)
    }

    /// The same with another login, such as [`RedisServer::worker_url_at`].
    #[must_use]
    pub fn url_with(&self, url_at: impl Fn(&RedisServer, &str) -> String) -> String {
        self.address(GROUP, url_at)
    }

    /// The address of a further group of the same Sentinels, whose primary is at this port: that of a proxy in front of the first
    /// server.
    ///
    /// # Panics
    /// When the Sentinels do not know it in time.
    pub async fn url_of_another(&self, port: &str) -> String {
        let name = format!("{GROUP}-{port}");
        self.watch(&name, port);
        self.known(&name, 0).await;
        self.address(&name, RedisServer::url_at)
    }

    fn address(&self, group: &str, url_at: impl Fn(&RedisServer, &str) -> String) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(RedisServer::addr).collect();
        let url = url_at(&self.servers[0], &addresses.join(","));
        format!("{}/{group}", url.replacen("://", "+sentinel://", 1))
    }
}
