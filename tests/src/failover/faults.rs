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
            Self::Orderly => "orderly failover",
            Self::MoveSlot => "a partition moves, key by key",
            Self::AddNode => "a node is added and gets a partition",
        }
    }

    /// Whether other primaries are not concerned.
    pub(super) fn spares_others(self) -> bool {
        matches!(self, Self::Kill | Self::Freeze | Self::Orderly)
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
    pub(super) fn new(options: &Options) -> Self {
        let of_kind: &[Fault] = match options.kind {
            Kind::Sentinel => &[Fault::Kill, Fault::Freeze, Fault::Orderly],
            Kind::Cluster => &[Fault::Kill, Fault::Freeze, Fault::Orderly, Fault::MoveSlot, Fault::AddNode],
        };
        let is_wanted = |fault: &&Fault| options.only.is_empty() || options.only.contains(*fault);
        let faults = of_kind.iter().filter(is_wanted).copied().collect();
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
    pub(super) whole: Instant,
    /// The partitions of other primaries.
    pub(super) elsewhere: BTreeSet<u8>,
}

/// Injects the fault, and waits until the topology is whole.
pub(super) async fn inject(fault: Fault, servers: &mut Servers, plan: &mut Plan) -> Struck {
    let partition = plan.rng.usize(..servers.partitions());
    let port = servers.primary(partition).port();
    let elsewhere = servers.partitions_elsewhere(port);
    let began = Instant::now();
    let replaced = match fault {
        Fault::Kill => kill(servers, partition, plan.pause()).await,
        Fault::Freeze => freeze(servers, partition, plan.pause()).await,
        Fault::Orderly => orderly(servers, partition).await,
        Fault::MoveSlot => move_slot(servers, partition, plan).await,
        Fault::AddNode => {
            servers.add_node(partition).await;
            Instant::now()
        }
    };
    servers.whole().await;
    Struck { fault, began, replaced, whole: Instant::now(), elsewhere }
}

async fn kill(servers: &Servers, partition: usize, pause: Duration) -> Instant {
    let primary = servers.primary(partition);
    primary.kill9();
    servers.promoted(partition, primary.port()).await;
    let replaced = Instant::now();
    sleep(pause).await;
    primary.restart().await;
    replaced
}

async fn freeze(servers: &Servers, partition: usize, pause: Duration) -> Instant {
    let primary = servers.primary(partition);
    primary.sigstop();
    servers.promoted(partition, primary.port()).await;
    let replaced = Instant::now();
    sleep(pause).await;
    primary.sigcont();
    replaced
}

async fn orderly(servers: &Servers, partition: usize) -> Instant {
    let port = servers.primary(partition).port();
    match &servers.topology {
        Topology::Sentinel(group) => {
            group.sentinels[0].cli(&["SENTINEL", "FAILOVER", "tepal"]);
        }
        Topology::Cluster(_) => {
            let replica = servers.replica_of(port).expect("every primary has a replica");
            replica.cli(&["CLUSTER", "FAILOVER"]);
        }
    }
    servers.promoted(partition, port).await;
    Instant::now()
}

async fn move_slot(servers: &Servers, partition: usize, plan: &mut Plan) -> Instant {
    if let Topology::Cluster(cluster) = &servers.topology {
        let source = servers.primary(partition).port();
        let is_primary = |server: &&crate::redis::RedisServer| {
            server.port() != source && server.info("role").as_deref() == Some("master")
        };
        let others: Vec<_> = cluster.servers().filter(is_primary).collect();
        cluster.move_slot(servers.key(partition), others[plan.rng.usize(..others.len())]).await;
    }
    Instant::now()
}
