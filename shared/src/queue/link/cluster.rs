//! The primaries of a Redis Cluster. There is a connection to each that owns a slot of the queue.
//!
//! The client library has a connection for clusters, which is not used: it repeats a command whose answer was lost without telling
//! the caller, never leaves a primary that is frozen, and gives no connection for commands that block.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use futures_util::future::{join_all, select_all};
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    process::{supervisor, telemetry},
    queue::{
        error::{StoreError, WrongTopology},
        link::{
            connection::{Connections, Generation, SharedConnection, Source},
            place::NodeAddress,
            role::expect_kind,
            settings::ConnectionSettings,
            slot_map::SlotMap,
        },
    },
};

/// A node answers from memory.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How often a node is asked for the slots while all is well.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often all nodes are asked while a primary does not answer or a slot has no owner.
const INTERVAL_IN_TROUBLE: Duration = Duration::from_millis(200);
/// Shortest time between two questions, however many calls were redirected.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);

/// A connection of a call.
pub(super) type Connected = (Arc<SharedConnection>, Generation, MultiplexedConnection);

/// A Redis Cluster.
pub(super) struct Cluster {
    settings: ConnectionSettings,
    bootstrap: Vec<NodeAddress>,
    slots: QueueSlots,
    view: watch::Sender<Arc<View>>,
    connections: Connections,
    /// The primary that is asked next while all is well.
    turn: AtomicUsize,
    /// Why the last question failed.
    failure: Mutex<Option<String>>,
}

/// The slots of a queue.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueSlots {
    /// Those of the partitions.
    pub(super) partitions: BTreeSet<u16>,
    /// Those of the other keys.
    pub(super) others: BTreeSet<u16>,
    /// That of the number of the stored format.
    pub(super) format: Option<u16>,
}

impl QueueSlots {
    fn all(&self) -> impl Iterator<Item = u16> {
        self.partitions.union(&self.others).copied()
    }
}

/// Which primary owns which slots, as far as is known.
#[derive(Default)]
struct View {
    map: SlotMap,
    /// Slots that moved since, as their former owners say.
    moved: HashMap<u16, NodeAddress>,
    primaries: HashMap<NodeAddress, Arc<SharedConnection>>,
    /// Why the cluster cannot serve the queue.
    wrong: Option<WrongTopology>,
}

impl View {
    fn owner(&self, slot: u16) -> Option<&Arc<SharedConnection>> {
        self.primaries.get(self.moved.get(&slot).or_else(|| self.map.owner(slot))?)
    }

    /// The primary of the slot, or all that own one of these.
    fn primaries(&self, slot: Option<u16>, all: &BTreeSet<u16>) -> Vec<Arc<SharedConnection>> {
        let Some(slot) = slot else {
            let mut owners: Vec<_> = all.iter().filter_map(|slot| self.owner(*slot)).cloned().collect();
            owners.sort_unstable_by_key(Arc::as_ptr);
            owners.dedup_by_key(|owner| Arc::as_ptr(owner));
            return owners;
        };
        self.owner(slot).cloned().into_iter().collect()
    }
}

impl Cluster {
    /// Starts to ask for the nodes. The task ends with the last handle.
    pub(super) fn open(
        settings: ConnectionSettings,
        bootstrap: Vec<NodeAddress>,
        slots: QueueSlots,
    ) -> Arc<Self> {
        let (view, _) = watch::channel(Arc::default());
        let (connections, turn, failure) = Default::default();
        let cluster = Arc::new(Self { settings, bootstrap, slots, view, connections, turn, failure });
        let weak = Arc::downgrade(&cluster);
        tokio::spawn(supervisor::keep("redis_cluster", move || keep_mapped(Weak::clone(&weak))));
        cluster
    }

    /// The connection to the primary of the slot, or why there is none. Without a slot: to a primary of any partition.
    pub(super) fn state(&self, slot: Option<u16>) -> Result<Generation, StoreError> {
        let view = self.view.borrow();
        if let Some(format) = self.other_format(&view) {
            return Err(StoreError::WrongTopology(format));
        }
        let mut last = view.wrong.clone().map_or(StoreError::Disconnected, StoreError::WrongTopology);
        for primary in view.primaries(slot, &self.slots.partitions) {
            match primary.state() {
                Ok(generation) => return Ok(generation),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Waits until a primary of the slot is connected. Without a slot: until any is.
    pub(super) async fn up(&self, slot: Option<u16>) {
        let mut views = self.view.subscribe();
        loop {
            let primaries = views.borrow_and_update().primaries(slot, &self.slots.partitions);
            let connected = async {
                if primaries.is_empty() {
                    return std::future::pending().await;
                }
                select_all(primaries.iter().map(|primary| Box::pin(primary.up()))).await;
            };
            tokio::select! {
                () = connected => return,
                // The sender lives as long as `self`.
                _ = views.changed() => {}
            }
        }
    }

    /// Waits until the primary of the slot is at another address than this one, and connected.
    pub(super) async fn replaced(&self, slot: Option<u16>, former: &str) {
        let mut views = self.view.subscribe();
        loop {
            let primaries = views.borrow_and_update().primaries(slot, &self.slots.partitions);
            let replaced = async {
                match primaries.first() {
                    Some(primary) => primary.replaced(former).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = replaced => return,
                // The sender lives as long as `self`.
                _ = views.changed() => {}
            }
        }
    }

    /// Waits for the connection to the primary of the slot, whichever node that is by then. Without a slot: to any primary.
    pub(super) async fn connection(
        &self,
        slot: Option<u16>,
        give_up: Instant,
    ) -> Result<Connected, StoreError> {
        let mut views = self.view.subscribe();
        loop {
            let mut primaries = {
                let view = views.borrow_and_update();
                if let Some(format) = self.other_format(&view) {
                    return Err(StoreError::WrongTopology(format));
                }
                view.primaries(slot, &self.slots.partitions)
            };
            primaries.sort_by_key(|primary| primary.state().is_err());
            let connected = async {
                let Some(primary) = primaries.first() else { return std::future::pending().await };
                let (generation, connection) = primary.connection(give_up).await?;
                Ok((Arc::clone(primary), generation, connection))
            };
            tokio::select! {
                biased;
                outcome = connected => return outcome,
                changed = timeout_at(give_up, views.changed()) => if changed.is_err() {
                    return Err(self.state(slot).err().unwrap_or(StoreError::Disconnected));
                },
            }
        }
    }

    /// The stored format, if the primary that has its number refuses it: the jobs of all partitions are of this format.
    fn other_format(&self, view: &View) -> Option<WrongTopology> {
        match view.owner(self.slots.format?)?.state() {
            Err(StoreError::WrongTopology(format @ WrongTopology::StoredFormat { .. })) => Some(format),
            _ => None,
        }
    }

    /// A primary says that the slot has another owner.
    pub(super) fn moved(&self, slot: u16, to: NodeAddress) {
        self.view.send_modify(|view| {
            let primaries = with(&view.primaries, &to, || self.open_node(&to));
            let moved = view.moved.iter().map(|(slot, to)| (*slot, to.clone())).chain([(slot, to)]).collect();
            *view = Arc::new(View { map: view.map.clone(), moved, primaries, wrong: view.wrong.clone() });
        });
        self.doubt();
    }

    /// The connection to the node to which a slot is being migrated.
    pub(super) fn node(&self, address: &NodeAddress) -> Arc<SharedConnection> {
        self.view.borrow().primaries.get(address).cloned().unwrap_or_else(|| self.open_node(address))
    }

    /// The view may be out of date.
    pub(super) fn doubt(&self) {
        self.connections.broken.notify_one();
    }

    fn open_node(&self, address: &NodeAddress) -> Arc<SharedConnection> {
        let settings = self.settings.of_node(address);
        SharedConnection::open(settings, Source::Node(address.clone()), self.connections.clone())
    }

    /// Asks for the slots. Returns whether all is well.
    async fn refresh(&self, is_in_doubt: bool) -> bool {
        let view = Arc::clone(&self.view.borrow());
        let is_well = || self.slots.all().all(|slot| self.state(Some(slot)).is_ok());
        if !is_in_doubt
            && is_well()
            && let Some(primary) = self.next_primary(&view)
            && self.ask(&primary).await.is_ok_and(|map| map == view.map)
        {
            return true;
        }
        let mut nodes: BTreeSet<_> = view.map.nodes().chain(&self.bootstrap).cloned().collect();
        nodes.extend(view.moved.values().cloned());
        let answers = join_all(nodes.iter().map(|node| self.ask(node))).await;
        match decide(answers, &view.map) {
            Ok(map) => self.apply(map),
            Err(error) => self.failed(&error),
        }
        is_well()
    }

    fn next_primary(&self, view: &View) -> Option<NodeAddress> {
        let mut addresses: Vec<_> = view.primaries.keys().collect();
        addresses.sort_unstable();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        addresses.get(turn.checked_rem(addresses.len())?).map(|address| (*address).clone())
    }

    async fn ask(&self, node: &NodeAddress) -> Result<SlotMap, StoreError> {
        let shared = self.view.borrow().primaries.get(node).cloned();
        let asked = async {
            let up = shared.and_then(|shared| shared.connected());
            let mut connection = match up {
                Some(connection) => connection,
                None => {
                    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT));
                    let client = Client::open(self.settings.of_node(node).info)?;
                    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
                    expect_kind(&mut connection, true).await?;
                    connection
                }
            };
            let reply = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
            SlotMap::parse(reply, &node.host)
        };
        timeout(TIMEOUT, asked).await.unwrap_or(Err(StoreError::Disconnected))
    }

    /// Replaces the view. Connections to primaries that own slots of the queue stay.
    fn apply(&self, map: SlotMap) {
        let uncovered = self.slots.all().find(|slot| map.owner(*slot).is_none());
        let wrong = uncovered.map(|slot| WrongTopology::Uncovered { slot });
        let former = Arc::clone(&self.view.borrow());
        let owners: BTreeSet<_> = self.slots.all().filter_map(|slot| map.owner(slot)).collect();
        let primaries = owners.iter().map(|address| {
            let open = || self.open_node(address);
            ((*address).clone(), former.primaries.get(*address).cloned().unwrap_or_else(open))
        });
        let primaries: HashMap<_, _> = primaries.collect();
        let nodes: Vec<_> = owners.iter().map(ToString::to_string).collect();
        if former.map != map {
            info!(
                action = "redis_slots_changed",
                address = self.settings.display,
                primaries = nodes.join(",")
            );
        }
        if let Some(wrong) = wrong.as_ref().filter(|wrong| former.wrong.as_ref() != Some(wrong)) {
            error!(
                action = "redis_wrong_topology",
                address = self.settings.display,
                reason = %wrong.reason()
            );
        }
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if former.map == map && former.wrong == wrong && former.moved.is_empty() {
            return;
        }
        self.view.send_replace(Arc::new(View { map, moved: HashMap::new(), primaries, wrong }));
    }

    /// Logs a failure, unless the last question failed for the same reason.
    fn failed(&self, error: &StoreError) {
        let address = &self.settings.display;
        let text = match error {
            StoreError::WrongTopology(topology) => topology.reason().to_string(),
            error => error.cause().map_or_else(|| telemetry::chain(error), ToString::to_string),
        };
        let last = self.failure.lock().unwrap_or_else(PoisonError::into_inner).replace(text.clone());
        if last.as_ref() == Some(&text) {
            return;
        }
        if let StoreError::WrongTopology(topology) = error {
            error!(action = "redis_wrong_topology", address, reason = text);
            self.view.send_modify(|view| {
                let (map, moved) = (view.map.clone(), view.moved.clone());
                let primaries = view.primaries.clone();
                *view = Arc::new(View { map, moved, primaries, wrong: Some(topology.clone()) });
            });
        } else {
            let retry_ms = INTERVAL_IN_TROUBLE.as_millis() as u64;
            warn!(action = "redis_unreachable", address, error = text, retry_ms);
        }
    }
}

/// These primaries and another one.
fn with(
    primaries: &HashMap<NodeAddress, Arc<SharedConnection>>,
    address: &NodeAddress,
    open: impl FnOnce() -> Arc<SharedConnection>,
) -> HashMap<NodeAddress, Arc<SharedConnection>> {
    let mut primaries = primaries.clone();
    primaries.entry(address.clone()).or_insert_with(open);
    primaries
}

/// The slots on which the most nodes agree. While the nodes learn of a change they differ; then news counts more than the present
/// view, and a call that goes to the wrong node is redirected.
fn decide(answers: Vec<Result<SlotMap, StoreError>>, present: &SlotMap) -> Result<SlotMap, StoreError> {
    let mut votes = Vec::<(SlotMap, usize)>::new();
    let mut failure = StoreError::Disconnected;
    for answer in answers {
        match answer {
            Ok(map) => match votes.iter_mut().find(|(of, _)| *of == map) {
                Some((_, count)) => *count += 1,
                None => votes.push((map, 1)),
            },
            // Only an operator can change this, so it must be seen.
            Err(error @ (StoreError::WrongTopology(_) | StoreError::Forbidden(_))) => failure = error,
            Err(error) if matches!(failure, StoreError::Disconnected) => failure = error,
            Err(_) => {}
        }
    }
    let most = votes.into_iter().max_by_key(|(map, count)| (*count, map != present));
    most.map(|(map, _)| map).ok_or(failure)
}

/// Asks for the slots again and again. Ends when the last handle is gone.
async fn keep_mapped(cluster: Weak<Cluster>) {
    let mut is_in_doubt = true;
    loop {
        let Some(alive) = cluster.upgrade() else { return };
        let is_well = alive.refresh(is_in_doubt).await;
        let broken: Arc<Notify> = Arc::clone(&alive.connections.broken);
        drop(alive);
        sleep(SHORTEST_INTERVAL).await;
        let pause = if is_well { INTERVAL } else { INTERVAL_IN_TROUBLE };
        is_in_doubt = timeout(pause, broken.notified()).await.is_ok() || !is_well;
    }
}
