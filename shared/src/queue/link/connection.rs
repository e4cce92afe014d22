//! The shared connection to one primary. A background task connects, checks the connection, and reconnects with backoff.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    process::{retry::Backoff, supervisor, telemetry},
    queue::{
        error::{StoreError, WrongTopology},
        link::{
            format::{expect_format, keep_format},
            place::NodeAddress,
            role::expect_primary,
            sentinel::Sentinels,
            settings::ConnectionSettings,
        },
        scripts,
    },
};

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests that may wait to be sent. More than there are: the permits of a smaller buffer go to requests in their order, and one
/// whose task is not polled soon, because its client is busy, would keep its permit from all others.
const MOST_WAITING: usize = 1 << 20;
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The same where another server takes over from one that fails.
const LONGEST_PAUSE_WITH_FAILOVER: Duration = Duration::from_millis(250);
/// How long an answer may be on its way. A replica is promoted 0.15 s after the primary was given up, or later.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// How often an idle connection is checked, so that a half-open one is found before a request needs it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The stored format is read with each of so many probes.
const PROBES_PER_FORMAT: usize = 5;

/// The number of a connection, counted from 1 over all primaries. Distinguishes a failure of an old connection from one of the present
/// one.
pub(crate) type Generation = u64;

/// The state of the shared connection.
#[derive(Clone)]
enum Link {
    /// The next try may succeed, unless the server at the address cannot serve the queue.
    Down(Option<WrongTopology>),
    Up {
        generation: Generation,
        connection: MultiplexedConnection,
        /// The address of the server.
        address: Arc<str>,
    },
}

/// How the primary is found.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// At a fixed address.
    Fixed(Client),
    /// Sentinels know it.
    Sentinels(Sentinels),
    /// It is this node of a cluster.
    Node(NodeAddress),
}

/// What the connections to all primaries of a queue share. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    /// Connections so far. Not reset when a task restarts.
    count: Arc<AtomicU64>,
    /// Notified when a connection breaks or cannot be made.
    pub(super) broken: Arc<Notify>,
}

/// The connection, and what is needed to reconnect.
pub(super) struct SharedConnection {
    pub(super) settings: ConnectionSettings,
    source: Source,
    link: watch::Sender<Link>,
    connections: Connections,
}

impl fmt::Debug for SharedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConnection").field("address", &self.settings.display).finish_non_exhaustive()
    }
}

impl SharedConnection {
    /// Starts to connect. The task ends with the last handle.
    pub(super) fn open(settings: ConnectionSettings, source: Source, connections: Connections) -> Arc<Self> {
        let (link, _) = watch::channel(Link::Down(None));
        let shared = Arc::new(Self { settings, source, link, connections });
        let weak = Arc::downgrade(&shared);
        tokio::spawn(supervisor::keep("redis_connection", move || keep_connected(Weak::clone(&weak))));
        shared
    }

    /// The host of a node of a cluster.
    pub(super) fn host(&self) -> Option<&str> {
        match &self.source {
            Source::Node(address) => Some(&address.host),
            Source::Fixed(_) | Source::Sentinels(_) => None,
        }
    }

    /// The present primary: how to connect to it, and its address.
    pub(super) async fn client(&self) -> Result<(Client, String), StoreError> {
        let address = match &self.source {
            Source::Fixed(client) => return Ok((client.clone(), self.settings.display.clone())),
            Source::Sentinels(sentinels) => sentinels.primary().await?,
            Source::Node(address) => address.clone(),
        };
        Ok((Client::open(self.settings.of_node(&address).info)?, address.to_string()))
    }

    /// The connection that is up.
    pub(super) fn connected(&self) -> Option<MultiplexedConnection> {
        match &*self.link.borrow() {
            Link::Up { connection, .. } => Some(connection.clone()),
            Link::Down(_) => None,
        }
    }

    /// The connection that is up, or why there is none.
    pub(super) fn state(&self) -> Result<Generation, StoreError> {
        match &*self.link.borrow() {
            Link::Up { generation, .. } => Ok(*generation),
            Link::Down(None) => Err(StoreError::Disconnected),
            Link::Down(Some(topology)) => Err(StoreError::WrongTopology(topology.clone())),
        }
    }

    /// Waits until the connection is up.
    pub(super) async fn up(&self) {
        let mut link = self.link.subscribe();
        // The sender lives as long as `self`.
        let _ = link.wait_for(|link| matches!(link, Link::Up { .. })).await;
    }

    /// Waits until this connection has been given up, and an answer that was on its way has arrived.
    pub(super) async fn given_up(&self, connection: Generation) {
        if matches!(self.source, Source::Fixed(_)) {
            return std::future::pending().await;
        }
        let mut link = self.link.subscribe();
        let is_other =
            |link: &Link| !matches!(link, Link::Up { generation, .. } if *generation == connection);
        // The sender lives as long as `self`.
        let _ = link.wait_for(is_other).await;
        sleep(LAST_ANSWER).await;
    }

    /// Waits until the primary is at another address than this one, and connected.
    pub(super) async fn replaced(&self, former: &str) {
        let mut link = self.link.subscribe();
        let is_other = |link: &Link| matches!(link, Link::Up { address, .. } if **address != *former);
        // The sender lives as long as `self`.
        let _ = link.wait_for(is_other).await;
    }

    /// Waits for the connection, unless the server cannot serve the queue.
    pub(super) async fn connection(
        &self,
        give_up: Instant,
    ) -> Result<(Generation, MultiplexedConnection), StoreError> {
        let mut link = self.link.subscribe();
        let is_decided = |link: &Link| !matches!(link, Link::Down(None));
        match timeout_at(give_up, link.wait_for(is_decided)).await {
            Ok(Ok(link)) => match &*link {
                Link::Up { generation, connection, .. } => Ok((*generation, connection.clone())),
                Link::Down(Some(topology)) => Err(StoreError::WrongTopology(topology.clone())),
                Link::Down(None) => Err(StoreError::Disconnected),
            },
            _ => Err(StoreError::Disconnected),
        }
    }

    /// Marks the connection of that generation as broken. A newer one is not affected.
    pub(super) fn discard(&self, broken: Generation) {
        let is_news = self.link.send_if_modified(|link| {
            let is_current = matches!(link, Link::Up { generation, .. } if *generation == broken);
            if is_current {
                *link = Link::Down(None);
            }
            is_current
        });
        if is_news {
            self.connections.broken.notify_one();
        }
    }

    /// A new connection to a primary that can serve the queue.
    pub(super) async fn connect(
        &self,
        response_timeout: Duration,
    ) -> Result<(MultiplexedConnection, String), StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(MOST_WAITING);
        let (client, address) = self.client().await?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        expect_primary(&mut connection, self.is_node()).await?;
        Ok((connection, address))
    }

    fn is_node(&self) -> bool {
        matches!(self.source, Source::Node(_))
    }

    /// Checks a connection that was checked before. `probe` counts these checks.
    async fn still_serves(
        &self,
        connection: &mut MultiplexedConnection,
        probe: usize,
    ) -> Result<(), StoreError> {
        expect_primary(connection, self.is_node()).await?;
        match self.settings.queue.as_ref().filter(|queue| queue.has_format) {
            Some(queue) if probe.is_multiple_of(PROBES_PER_FORMAT) => {
                here(keep_format(connection, &queue.keys).await)
            }
            _ => Ok(()),
        }
    }

    /// Waits until the first connection is up or refused. Returns why, if the queue has another stored format; otherwise it waits
    /// for ever.
    pub(super) async fn refused_format(&self) -> WrongTopology {
        let mut link = self.link.subscribe();
        let first =
            link.wait_for(|link| !matches!(link, Link::Down(None))).await.map(|link| Link::clone(&link));
        match first {
            Ok(Link::Down(Some(format @ WrongTopology::StoredFormat { .. }))) => format,
            _ => std::future::pending().await,
        }
    }

    async fn connect_ready(&self) -> Result<(MultiplexedConnection, String), StoreError> {
        let (mut connection, address) = self.connect(self.settings.response_timeout).await?;
        if let Some(queue) = self.settings.queue.as_ref().filter(|queue| queue.has_format) {
            // No version without a number could use a cluster.
            let partitions = if self.is_node() { 0 } else { queue.partitions };
            here(expect_format(&mut connection, &queue.keys, partitions).await)?;
        }
        scripts::load_all(&mut connection).await?;
        Ok((connection, address))
    }

    fn longest_pause(&self) -> Duration {
        match self.source {
            Source::Fixed(_) => LONGEST_PAUSE,
            Source::Sentinels(_) | Source::Node(_) => LONGEST_PAUSE_WITH_FAILOVER,
        }
    }

    /// Logs why connecting failed. What only the operator can change is logged once, not at each try.
    fn failed(&self, error: &StoreError, pause: Duration) {
        let (address, retry_ms) = (&self.settings.display, pause.as_millis() as u64);
        if let StoreError::WrongTopology(topology) = error {
            let is_news = self.link.send_if_modified(|link| {
                let is_known = matches!(link, Link::Down(Some(known)) if known == topology);
                *link = Link::Down(Some(topology.clone()));
                !is_known
            });
            if is_news {
                error!(action = "redis_wrong_topology", address, reason = %topology.reason());
            }
            return;
        }
        self.link.send_if_modified(|link| {
            let was_wrong = matches!(link, Link::Down(Some(_)));
            *link = Link::Down(None);
            was_wrong
        });
        let cause = error.cause().map_or_else(|| telemetry::chain(error), ToString::to_string);
        let reason = self.settings.explain(error);
        let error = reason.map_or_else(|| cause.clone(), |reason| format!("{reason} ({cause})"));
        warn!(action = "redis_unreachable", address, error, retry_ms);
    }
}

/// The outcome of a check of the format. Of the nodes of a cluster, the one that owns the key checks it.
fn here(checked: Result<(), StoreError>) -> Result<(), StoreError> {
    match checked {
        Err(StoreError::NotReady(error)) if error.redirect_node().is_some() => Ok(()),
        checked => checked,
    }
}

/// Connects, checks the connection, reconnects. Ends when the last handle is gone.
async fn keep_connected(shared: Weak<SharedConnection>) {
    let mut backoff = None;
    let mut down_since: Option<Instant> = None;
    loop {
        let Some(alive) = shared.upgrade() else { return };
        let backoff = backoff.get_or_insert_with(|| Backoff::new(FIRST_PAUSE, alive.longest_pause()));
        match alive.connect_ready().await {
            Ok((connection, address)) => {
                let generation: Generation = alive.connections.count.fetch_add(1, Ordering::Relaxed) + 1;
                backoff.reset();
                let outage_ms = down_since.take().map(|since| since.elapsed().as_millis() as u64);
                info!(action = "redis_connected", address, outage_ms);
                let up = Link::Up { generation, connection: connection.clone(), address: (*address).into() };
                alive.link.send_replace(up);
                let link = alive.link.subscribe();
                drop(alive);
                until_broken(&shared, link, generation, connection, &address).await;
                down_since = Some(Instant::now());
            }
            Err(error) => {
                down_since.get_or_insert_with(Instant::now);
                let pause = backoff.next_pause();
                alive.failed(&error, pause);
                alive.connections.broken.notify_one();
                drop(alive);
                sleep(pause).await;
            }
        }
    }
}

/// Returns when the connection of `generation` is discarded: by a caller, after a failed probe, or because the primary was replaced.
async fn until_broken(
    shared: &Weak<SharedConnection>,
    mut link: watch::Receiver<Link>,
    generation: Generation,
    connection: MultiplexedConnection,
    address: &str,
) {
    let is_discarded =
        |link: &Link| !matches!(link, Link::Up { generation: current, .. } if *current == generation);
    tokio::select! {
        _ = link.wait_for(is_discarded) => return,
        () = until_probe_fails(shared, connection) => {}
        () = until_replaced(shared, address) => {}
    }
    if let Some(alive) = shared.upgrade() {
        alive.discard(generation);
    }
}

/// Returns when a probe of the connection has failed, or the last handle is gone.
async fn until_probe_fails(shared: &Weak<SharedConnection>, mut connection: MultiplexedConnection) {
    for probe in 1.. {
        sleep(PROBE_INTERVAL).await;
        let Some(alive) = shared.upgrade() else { return };
        if alive.still_serves(&mut connection, probe).await.is_err_and(|error| error.breaks_connection()) {
            return;
        }
    }
}

/// Returns when Sentinels replace the primary at this address. One that was frozen or cut off answers again after the failover, and
/// Sentinels tell it only some seconds later that it is none any more.
async fn until_replaced(shared: &Weak<SharedConnection>, address: &str) {
    let source = shared.upgrade().map(|alive| alive.source.clone());
    let Some(Source::Sentinels(sentinels)) = source else { return std::future::pending().await };
    let asked = async {
        loop {
            sleep(PROBE_INTERVAL).await;
            if shared.strong_count() == 0 || sentinels.name_another(address).await {
                return;
            }
        }
    };
    tokio::select! {
        () = asked => {}
        () = sentinels.report_replacement_of(address) => {}
    }
}
