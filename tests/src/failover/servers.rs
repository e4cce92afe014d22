//! The Redis servers of a run, and which of them is the primary of a partition.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Kind, Options};
use crate::network::Network;
use crate::redis::{RedisCluster, RedisOptions, RedisServer, SentinelGroup};
use crate::wait::eventually;

/// A killed server that comes back is made a replica ten seconds later by Sentinels.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);
const PRIMARIES: usize = 3;
/// A replica that has not answered for this time does not count. It must be shorter than what a failover takes.
const MAX_LAG_SECONDS: u32 = 2;

/// The servers.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) topology: Topology,
    options: RedisOptions,
    /// How many replicas a primary needs, or it accepts nothing.
    needed: u32,
    /// Whether servers can be cut off.
    pub(super) can_be_cut_off: bool,
    /// By partition: its log, a key of it.
    logs: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Topology {
    Sentinel(SentinelGroup),
    Cluster(RedisCluster),
}

impl Servers {
    pub(super) async fn start(run: &Options) -> Self {
        let options = RedisServer::shipped()
            .config("maxmemory 0")
            .config(&format!("min-replicas-to-write {}", run.min_replicas))
            .config(&format!("min-replicas-max-lag {MAX_LAG_SECONDS}"));
        let network = Network::new().map(Arc::new);
        let options = network.iter().fold(options, RedisOptions::network);
        let topology = match run.kind {
            Kind::Sentinel => {
                Topology::Sentinel(SentinelGroup::start(&options, run.replicas() as usize).await)
            }
            Kind::Cluster => Topology::Cluster(RedisCluster::start(&options, PRIMARIES, 1).await),
        };
        let (needed, can_be_cut_off) = (run.replicas_required.max(run.min_replicas), network.is_some());
        let servers = Self { topology, options, needed, can_be_cut_off, logs: Vec::new() };
        servers.whole().await;
        servers
    }

    /// The address with this login.
    pub(super) fn url_with(&self, url_at: impl Fn(&RedisServer, &str) -> String) -> String {
        match &self.topology {
            Topology::Sentinel(group) => group.url_with(url_at),
            Topology::Cluster(cluster) => cluster.url_with(url_at),
        }
    }

    /// All servers that store jobs.
    pub(super) fn all(&self) -> Vec<&RedisServer> {
        match &self.topology {
            Topology::Sentinel(group) => group.servers.iter().collect(),
            Topology::Cluster(cluster) => cluster.servers().collect(),
        }
    }

    pub(super) fn version(&self) -> String {
        self.all()[0].info("redis_version").unwrap_or_default()
    }

    /// Finds a key of each partition. Jobs must have been accepted in all of them.
    pub(super) fn learn_partitions(&mut self) {
        let listed = self.all().into_iter().map(|server| server.cli(&["KEYS", "{predict_queue:*}:log"]));
        let keys: BTreeSet<String> =
            listed.flat_map(|keys| keys.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let number = |key: &String| {
            let rest = key.strip_prefix("{predict_queue:").unwrap_or_default();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().unwrap_or_default()
        };
        self.logs = keys.into_iter().collect();
        self.logs.sort_by_key(number);
    }

    pub(super) fn partitions(&self) -> usize {
        self.logs.len()
    }

    /// A key of the partition.
    pub(super) fn key(&self, partition: usize) -> &str {
        &self.logs[partition]
    }

    /// The primary of the partition. On a busy machine, nodes of a cluster take each other for failed for a moment.
    pub(super) async fn primary(&self, partition: usize) -> &RedisServer {
        match &self.topology {
            Topology::Sentinel(group) => group.primary(),
            Topology::Cluster(cluster) => {
                let owner = async || cluster.try_owner(self.key(partition));
                eventually(WHOLE_WITHIN, "an owner of the slot", owner).await
            }
        }
    }

    /// The partitions that have another primary than this one.
    pub(super) async fn partitions_elsewhere(&self, port: u16) -> BTreeSet<u8> {
        let mut others = BTreeSet::new();
        for partition in 0..self.partitions() {
            if self.primary(partition).await.port() != port {
                others.insert(partition as u8);
            }
        }
        others
    }

    /// A replica of the server on this port.
    pub(super) async fn replica_of(&self, port: u16) -> &RedisServer {
        let of = Some(port.to_string());
        let follows = |server: &&RedisServer| server.try_info("master_port").is_ok_and(|port| port == of);
        eventually(WHOLE_WITHIN, "a replica", async || self.all().into_iter().find(follows)).await
    }

    /// The other servers and the Sentinels.
    pub(super) fn peers_of(&self, port: u16) -> Vec<&RedisServer> {
        let sentinels = match &self.topology {
            Topology::Sentinel(group) => &group.sentinels[..],
            Topology::Cluster(_) => &[],
        };
        self.all().into_iter().chain(sentinels).filter(|server| server.port() != port).collect()
    }

    /// Waits until the new primary of the partition has the replicas without which it accepts nothing. Does not ask the former one.
    pub(super) async fn accepting(&self, partition: usize, former: u16) {
        if self.needed == 0 {
            return;
        }
        let has_replicas = |server: &&RedisServer| {
            let info = server.try_cli(&["INFO", "replication"]).unwrap_or_default();
            info.matches("state=online").count() >= self.needed as usize
        };
        let is_in_step = async || match &self.topology {
            Topology::Sentinel(group) => Some(group.primary()).filter(has_replicas).is_some(),
            Topology::Cluster(cluster) => {
                let others =
                    cluster.servers().filter(|server| server.port() != former && server.is_running());
                let mut owners =
                    others.filter(|server| server.try_cli(&["TYPE", self.key(partition)]).is_ok());
                owners.any(|owner| has_replicas(&owner))
            }
        };
        eventually(WHOLE_WITHIN, "as many replicas as are needed", is_in_step).await;
    }

    /// Waits until another server than the one on this port is the primary of the partition.
    pub(super) async fn promoted(&self, partition: usize, former: u16) {
        let key = self.key(partition);
        let is_another = |server: &RedisServer| server.port() != former && server.is_running();
        let takes_over = async || match &self.topology {
            Topology::Sentinel(group) => {
                let primary = group.primary();
                is_another(primary) && primary.try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("master"))
            }
            Topology::Cluster(cluster) => {
                cluster.servers().any(|server| is_another(server) && server.try_cli(&["TYPE", key]).is_ok())
            }
        };
        eventually(WHOLE_WITHIN, "another primary", takes_over).await;
    }

    /// Adds a primary with a replica; moves the partition to it.
    pub(super) async fn add_node(&mut self, partition: usize) {
        let key = self.logs[partition].clone();
        if let Topology::Cluster(cluster) = &mut self.topology {
            let port = cluster.add(&self.options).await.port();
            let target = cluster.primaries.iter().find(|primary| primary.port() == port);
            let target = target.expect("it was added");
            // It keeps this slot if the partition moves on: a primary without slots becomes a replica.
            cluster.move_slot("a key of no partition", target).await;
            cluster.move_slot(&key, target).await;
        }
    }

    /// Waits until every primary has all its replicas, and all servers know that.
    pub(super) async fn whole(&self) {
        match &self.topology {
            Topology::Sentinel(group) => {
                let replicas = group.servers.len() - 1;
                eventually(WHOLE_WITHIN, "replicas of one primary", async || self.follow(replicas)).await;
                group.ready(replicas).await;
            }
            Topology::Cluster(cluster) => {
                let replicas = cluster.replicas.len();
                eventually(WHOLE_WITHIN, "a replica of each primary", async || self.follow(replicas)).await;
                cluster.ready(cluster.primaries.len(), replicas).await;
            }
        }
    }

    /// Whether so many servers follow another one.
    fn follow(&self, replicas: usize) -> Result<(), String> {
        let all = self.all();
        if let Some(ended) = all.iter().find(|server| !server.is_running()) {
            let log = ended.log();
            let tail = log.lines().rev().take(10).collect::<Vec<_>>().join("\n");
            return Err(format!(
                "the server on port {} has ended; its log, newest line first:\n{tail}",
                ended.port()
            ));
        }
        let links: Result<Vec<_>, _> =
            all.iter().map(|server| server.try_info("master_link_status")).collect();
        let links: Vec<_> = links.map_err(|error| error.to_string())?.into_iter().flatten().collect();
        let in_step = links.iter().filter(|link| *link == "up").count();
        if in_step == replicas { Ok(()) } else { Err(format!("{links:?}")) }
    }

    pub(super) fn write_logs(&self, dir: &Path) {
        for server in self.all() {
            let _ = std::fs::write(dir.join(format!("redis-{}.log", server.port())), server.log());
        }
        if let Topology::Sentinel(group) = &self.topology {
            for server in &group.sentinels {
                let _ = std::fs::write(dir.join(format!("sentinel-{}.log", server.port())), server.log());
            }
        }
    }
}
