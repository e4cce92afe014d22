//! The faults of a run. Each returns when the topology is whole again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::time::sleep;

use super::servers::{Servers, Topology};
use super::{Kind, Options};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// SIGKILL of a primary. It is started again after the failover.
    Kill,
    /// SIGSTOP of a primary. It continues after the failover.
    Freeze,
    /// A primary is cut off from its replicas, the other nodes or the Sentinels, and its clients, until after the failover. Needs root.
    Partition,
    /// The same, but its clients still reach it.
    PeersLost,
    /// SENTINEL FAILOVER or CLUSTER FAILOVER.
    Orderly,
    /// A partition of the cluster moves to another primary.
    MoveSlot,
    /// A primary and its replica join the cluster and get a partition.
    AddNode,
}

impl Fault {
    /// Its name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a primary",
            Self::Freeze => "freeze past the failover",
            Self::Partition => "network partition",
            Self::PeersLost => "network partition, clients still reach the primary",
            Self::Orderly => "orderly failover",
            Self::MoveSlot => "a partition moves, key by key",
            Self::AddNode => "a node is added and gets a partition",
        }
    }

    /// Whether other primaries are not concerned.
    pub(super) fn spares_others(self) -> bool {
        !matches!(self, Self::MoveSlot | Self::AddNode)
    }
}

/// The order of the faults, and random choices.
#[derive(Debug)]
pub(super) struct Plan {
    rng: fastrand::Rng,
    faults: Vec<Fault>,
    round: Vec<Fault>,
}

impl Plan {
    pub(super) fn new(options: &Options, servers: &Servers) -> Self {
        let is_possible = |fault: Fault| match fault {
            Fault::MoveSlot | Fault::AddNode => options.kind == Kind::Cluster,
            Fault::Partition | Fault::PeersLost => servers.can_be_cut_off,
            Fault::Kill | Fault::Freeze | Fault::Orderly => true,
        };
        let is_wanted =
            |fault: &Fault| is_possible(*fault) && (options.only.is_empty() || options.only.contains(fault));
        let faults: Vec<_> = Fault::value_variants().iter().copied().filter(is_wanted).collect();
        assert!(!faults.is_empty(), "none of these faults is possible here: cutting a server off needs root");
        Self { rng: fastrand::Rng::with_seed(options.seed), faults, round: Vec::new() }
    }

    /// Each fault once in a round, in random order; a node is added only once.
    pub(super) fn next(&mut self) -> Fault {
        if self.round.is_empty() {
            self.round.clone_from(&self.faults);
            self.rng.shuffle(&mut self.round);
            if self.faults.len() > 1 {
                self.faults.retain(|fault| *fault != Fault::AddNode);
            }
        }
        self.round.pop().unwrap_or(Fault::Orderly)
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(200..2500))
    }
}

/// A fault that happened.
#[derive(Clone, Debug)]
pub(super) struct Struck {
    pub(super) fault: Fault,
    pub(super) began: Instant,
    /// When there was another primary, or the slot had moved.
    pub(super) replaced: Instant,
    /// When that one had the replicas without which it accepts nothing.
    pub(super) accepting: Instant,
    pub(super) whole: Instant,
    /// The partitions of other primaries.
    pub(super) elsewhere: BTreeSet<u8>,
}

/// Injects the fault, and waits until the topology is whole.
pub(super) async fn inject(fault: Fault, servers: &mut Servers, plan: &mut Plan) -> Struck {
    let partition = plan.rng.usize(..servers.partitions());
    let port = servers.primary(partition).await.port();
    let elsewhere = servers.partitions_elsewhere(port).await;
    let began = Instant::now();
    let (replaced, accepting) = match fault {
        Fault::MoveSlot => {
            move_slot(servers, partition, plan).await;
            (Instant::now(), Instant::now())
        }
        Fault::AddNode => {
            servers.add_node(partition).await;
            (Instant::now(), Instant::now())
        }
        _ => replace(fault, servers, partition, plan.pause()).await,
    };
    servers.whole().await;
    Struck { fault, began, replaced, accepting, whole: Instant::now(), elsewhere }
}

/// Injects a fault that replaces the primary of the partition. It ends some time after that. Returns when there was another primary,
/// and when that one had the replicas that it needs.
async fn replace(fault: Fault, servers: &Servers, partition: usize, pause: Duration) -> (Instant, Instant) {
    let primary = servers.primary(partition).await;
    let port = primary.port();
    match fault {
        Fault::Kill => primary.kill9(),
        Fault::Freeze => primary.sigstop(),
        Fault::Partition | Fault::PeersLost => {
            primary.cut_off(servers.peers_of(port), fault == Fault::Partition);
        }
        _ => orderly(servers, port).await,
    }
    servers.promoted(partition, port).await;
    let replaced = Instant::now();
    let ends = async {
        sleep(pause).await;
        match fault {
            Fault::Kill => primary.restart().await,
            Fault::Freeze => primary.sigcont(),
            Fault::Partition | Fault::PeersLost => primary.reconnect(),
            _ => {}
        }
    };
    let accepting = async {
        servers.accepting(partition, port).await;
        Instant::now()
    };
    let ((), accepting) = tokio::join!(ends, accepting);
    (replaced, accepting)
}

async fn orderly(servers: &Servers, port: u16) {
    match &servers.topology {
        Topology::Sentinel(group) => {
            group.sentinels[0].cli(&["SENTINEL", "FAILOVER", "tepal"]);
        }
        Topology::Cluster(_) => {
            servers.replica_of(port).await.cli(&["CLUSTER", "FAILOVER"]);
        }
    }
}

async fn move_slot(servers: &Servers, partition: usize, plan: &mut Plan) {
    if let Topology::Cluster(cluster) = &servers.topology {
        let source = servers.primary(partition).await.port();
        let is_primary = |server: &&crate::redis::RedisServer| {
            server.port() != source && server.info("role").as_deref() == Some("master")
        };
        let others: Vec<_> = cluster.servers().filter(is_primary).collect();
        cluster.move_slot(servers.key(partition), others[plan.rng.usize(..others.len())]).await;
    }
}
