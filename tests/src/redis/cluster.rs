//! A Redis Cluster of its own for a test.

use std::time::Duration;

use redis::RedisError;

use super::{RedisOptions, RedisServer};
use crate::wait::eventually;

/// A node counts as failed after this time, ms.
const NODE_TIMEOUT_MS: u32 = 1000;
const READY_WITHIN: Duration = Duration::from_secs(60);
const SLOTS: usize = 16_384;

/// A cluster in which each primary has the same number of replicas. Every server is killed when it is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// The servers that began as primaries, in the order of their slots.
    pub primaries: Vec<RedisServer>,
    /// The servers that began as replicas: those of the first primary first.
    pub replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts servers with these options and waits until all of them agree.
    ///
    /// # Panics
    /// When the cluster does not become ready.
    pub async fn start(options: &RedisOptions, primaries: usize, replicas_each: usize) -> Self {
        let node = || Self::node(options);
        let mut cluster = Self { primaries: Vec::new(), replicas: Vec::new() };
        for number in 0..primaries {
            let primary = node().start().await;
            let (first, last) = (SLOTS * number / primaries, SLOTS * (number + 1) / primaries - 1);
            primary.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            primary.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            cluster.primaries.push(primary);
        }
        for _ in 0..primaries * replicas_each {
            cluster.replicas.push(node().start().await);
        }
        cluster.introduce().await;
        for (number, replica) in cluster.replicas.iter().enumerate() {
            let primary = &cluster.primaries[number / replicas_each];
            replica.cli(&["CLUSTER", "REPLICATE", &primary.cli(&["CLUSTER", "MYID"])]);
        }
        cluster.ready(primaries, primaries * replicas_each).await;
        cluster
    }

    fn node(options: &RedisOptions) -> RedisOptions {
        options.clone().config(&format!("cluster-node-timeout {NODE_TIMEOUT_MS}")).cluster_node()
    }

    /// Adds a primary with one replica, which own no slots yet. Returns when all nodes know them.
    ///
    /// # Panics
    /// When they do not in time.
    pub async fn add(&mut self, options: &RedisOptions) -> &RedisServer {
        let (primary, replica) = (Self::node(options).start().await, Self::node(options).start().await);
        let of = primary.cli(&["CLUSTER", "MYID"]);
        self.primaries.push(primary);
        self.replicas.push(replica);
        self.introduce().await;
        let (primary, replica) =
            (&self.primaries[self.primaries.len() - 1], &self.replicas[self.replicas.len() - 1]);
        replica.cli(&["CLUSTER", "REPLICATE", &of]);
        let follows = async || replica.info("master_link_status").as_deref() == Some("up");
        eventually(READY_WITHIN, "the new replica to follow", follows).await;
        primary
    }

    /// Moves the slot of this key to another primary, key by key, as `redis-cli --cluster reshard` does.
    ///
    /// # Panics
    /// When a node refuses.
    pub async fn move_slot(&self, key: &str, target: &RedisServer) {
        let source = eventually(READY_WITHIN, "an owner of the slot", async || self.try_owner(key)).await;
        let slot = source.cli(&["CLUSTER", "KEYSLOT", key]);
        let (from, to) = (source.cli(&["CLUSTER", "MYID"]), target.cli(&["CLUSTER", "MYID"]));
        target.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
        source.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]);
        let port = target.port().to_string();
        let credentials = source.options.credentials().unwrap_or_default();
        let login: Vec<_> = credentials.split_terminator(' ').collect();
        let mut command = vec!["MIGRATE", target.host(), &port, "", "0", "5000"];
        command
            .extend(["", "AUTH", "AUTH2"][login.len()..=login.len()].iter().filter(|word| !word.is_empty()));
        command.extend(login.iter().copied());
        command.push("KEYS");
        let all_move = async || -> Result<(), RedisError> {
            loop {
                let keys = source.try_cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])?;
                if keys.is_empty() {
                    return Ok(());
                }
                source.try_cli(&[&command[..], &keys.lines().collect::<Vec<_>>()].concat())?;
                tokio::task::yield_now().await;
            }
        };
        // A node refuses keys while it takes the cluster for down: shortly after it has joined, or if the machine is busy.
        eventually(READY_WITHIN, "all keys of the slot to move", all_move).await;
        for server in [target, source] {
            server.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
        }
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.primaries.iter().chain(&self.replicas)
    }

    /// The address of the cluster: that of all servers, with the login of this one of them.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_with(RedisServer::url_at)
    }

    /// The same with another login, such as [`RedisServer::worker_url_at`].
    #[must_use]
    pub fn url_with(&self, url_at: impl Fn(&RedisServer, &str) -> String) -> String {
        let addresses: Vec<_> = self.servers().map(RedisServer::addr).collect();
        url_at(&self.primaries[0], &addresses.join(",")).replacen("://", "+cluster://", 1)
    }

    /// Makes the servers known to each other.
    async fn introduce(&self) {
        for server in self.servers().skip(1) {
            let bus = server.cli(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().unwrap_or_default();
            self.primaries[0].cli(&["CLUSTER", "MEET", server.host(), &server.port().to_string(), bus]);
        }
        let count = self.servers().count();
        let knows_all = |server: &RedisServer| {
            let nodes = server.cli(&["CLUSTER", "NODES"]);
            nodes.lines().count() == count && !nodes.contains("handshake") && !nodes.contains("disconnected")
        };
        eventually(READY_WITHIN, "the nodes to know each other", async || self.servers().all(knows_all))
            .await;
    }

    /// Waits until every server that runs sees so many primaries and replicas.
    ///
    /// # Panics
    /// When they do not agree in time.
    pub async fn ready(&self, primaries: usize, replicas: usize) {
        let is_ready = |server: &RedisServer| {
            let asked = |command: &[&str]| server.try_cli(command).unwrap_or_default();
            let (slots, nodes) = (asked(&["CLUSTER", "SLOTS"]), asked(&["CLUSTER", "NODES"]));
            let of_role = |role: &str| {
                nodes.lines().filter(|node| node.contains(role) && !node.contains("fail")).count()
            };
            asked(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && (of_role("master"), of_role("slave")) == (primaries, replicas)
                && self.servers().filter(|of| slots.lines().any(|line| line == of.port().to_string())).count()
                    == primaries + replicas
        };
        let all = async || self.servers().filter(|server| server.is_running()).all(is_ready);
        eventually(READY_WITHIN, "a cluster that all nodes agree on", all).await;
    }

    /// The server that owns the slot of this key now.
    ///
    /// # Panics
    /// When none owns it.
    #[must_use]
    pub fn owner(&self, key: &str) -> &RedisServer {
        self.try_owner(key).unwrap_or_else(|| panic!("no server owns the slot of {key}"))
    }

    /// The same; `None` while there is none, for one because the nodes take each other for failed.
    #[must_use]
    pub fn try_owner(&self, key: &str) -> Option<&RedisServer> {
        let is_owner = |server: &&RedisServer| server.is_running() && server.try_cli(&["TYPE", key]).is_ok();
        self.servers().find(is_owner)
    }
}
