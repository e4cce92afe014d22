//! The Redis of a test that holds on any: one server, or several, as `TEPAL_TEST_TOPOLOGY` says.

use std::time::Duration;

use super::{RedisCluster, RedisOptions, RedisServer, SentinelGroup};
use crate::wait::eventually;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// How Redis is operated. Every server is killed when it is dropped.
#[derive(Debug)]
pub enum Deployment {
    /// One server.
    Standalone(Box<RedisServer>),
    /// A primary without replicas, and its Sentinels: no failover disturbs a test.
    Sentinel(SentinelGroup),
    /// Three primaries without replicas.
    Cluster(RedisCluster),
}

impl Deployment {
    /// Starts what `TEPAL_TEST_TOPOLOGY` names: `standalone`, as without it, `sentinel` or `cluster`.
    ///
    /// # Panics
    /// When it names something else, or the servers do not become ready.
    pub async fn start(options: &RedisOptions) -> Self {
        match std::env::var("TEPAL_TEST_TOPOLOGY").unwrap_or_default().as_str() {
            "" | "standalone" => Self::Standalone(Box::new(options.clone().start().await)),
            "sentinel" => Self::Sentinel(SentinelGroup::start(options, 0).await),
            "cluster" => Self::Cluster(RedisCluster::start(options, 3, 0).await),
            other => panic!("TEPAL_TEST_TOPOLOGY must be standalone, sentinel or cluster, not {other}"),
        }
    }

    /// Whether it is a Redis Cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The only primary, or the one with the first slots: that of a queue's first partition.
    #[must_use]
    pub fn first(&self) -> &RedisServer {
        match self {
            Self::Standalone(server) => server,
            Self::Sentinel(group) => &group.servers[0],
            Self::Cluster(cluster) => &cluster.primaries[0],
        }
    }

    /// The primary that has this key.
    #[must_use]
    pub fn owner(&self, key: &str) -> &RedisServer {
        if let Self::Cluster(cluster) = self { cluster.owner(key) } else { self.first() }
    }

    /// The address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Standalone(server) => server.url(),
            Self::Sentinel(group) => group.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// Makes clients reach the [`first`](Self::first) primary at another address, that of a proxy in front of it. Returns the
    /// address for clients. In a cluster, those that are connected already move there, too.
    ///
    /// # Panics
    /// When the servers do not tell clients of the address in time.
    pub async fn url_through(&self, addr: &str) -> String {
        let (_, port) = addr.rsplit_once(':').expect("host:port");
        match self {
            Self::Standalone(server) => server.url_at(addr),
            Self::Sentinel(group) => group.url_of_another(port).await,
            Self::Cluster(cluster) => {
                self.first().cli(&["CONFIG", "SET", "cluster-announce-port", port]);
                let announced =
                    |node: &RedisServer| node.cli(&["CLUSTER", "SLOTS"]).lines().any(|line| line == port);
                let all = async || cluster.servers().all(announced);
                eventually(READY_WITHIN, "the nodes to announce the address", all).await;
                cluster.url()
            }
        }
    }
}
