//! The shared connection. One background task connects, checks the connection, and reconnects with backoff.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    process::{retry::Backoff, supervisor, telemetry},
    queue::{
        error::{StoreError, WrongTopology},
        link::{
            format::{expect_format, keep_format},
            request::Generation,
            settings::ConnectionSettings,
            topology::{Mode, expect_keys, expect_primary},
        },
        scripts,
    },
};

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests that may wait to be sent. More than there are: the permits of a smaller buffer go to requests in their order, and one
/// whose task is not polled soon, because its client is busy, would keep its permit from all others.
const MOST_WAITING: usize = 1 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often an idle connection is checked, so that a half-open one is found before a request needs it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The stored format is read with each of so many probes.
const PROBES_PER_FORMAT: usize = 5;

/// The state of the shared connection.
#[derive(Clone)]
enum Link {
    /// The next try may succeed, unless the server at the address cannot serve the queue.
    Down(Option<WrongTopology>),
    Up {
        generation: Generation,
        connection: MultiplexedConnection,
    },
}

/// The connection, and what is needed to reconnect.
pub(super) struct SharedConnection {
    pub(super) client: Client,
    pub(super) settings: ConnectionSettings,
    link: watch::Sender<Link>,
    /// Connections so far. Not reset when the task restarts.
    connections: AtomicU64,
}

impl SharedConnection {
    /// Starts to connect. The task ends with the last handle.
    pub(super) fn open(settings: ConnectionSettings) -> Result<Arc<Self>, RedisError> {
        let client = Client::open(settings.info.clone())?;
        let (link, _) = watch::channel(Link::Down(None));
        let shared = Arc::new(Self { client, settings, link, connections: AtomicU64::new(0) });
        let weak = Arc::downgrade(&shared);
        tokio::spawn(supervisor::keep("redis_connection", move || keep_connected(Weak::clone(&weak))));
        Ok(shared)
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

    /// Waits for the connection, unless the server cannot serve the queue.
    pub(super) async fn connection(
        &self,
        give_up: Instant,
    ) -> Result<(Generation, MultiplexedConnection), StoreError> {
        let mut link = self.link.subscribe();
        let is_decided = |link: &Link| !matches!(link, Link::Down(None));
        match timeout_at(give_up, link.wait_for(is_decided)).await {
            Ok(Ok(link)) => match &*link {
                Link::Up { generation, connection } => Ok((*generation, connection.clone())),
                Link::Down(Some(topology)) => Err(StoreError::WrongTopology(topology.clone())),
                Link::Down(None) => Err(StoreError::Disconnected),
            },
            _ => Err(StoreError::Disconnected),
        }
    }

    /// Marks the connection of that generation as broken. A newer one is not affected.
    pub(super) fn discard(&self, broken: Generation) {
        self.link.send_if_modified(|link| {
            let is_current = matches!(link, Link::Up { generation, .. } if *generation == broken);
            if is_current {
                *link = Link::Down(None);
            }
            is_current
        });
    }

    /// A new connection to a primary that can serve the queue.
    pub(super) async fn connect(
        &self,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(MOST_WAITING);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mode = expect_primary(&mut connection).await?;
        if let (Mode::Cluster, Some(queue)) = (mode, &self.settings.queue) {
            expect_keys(&mut connection, queue).await?;
        }
        Ok(connection)
    }

    /// Checks a connection that was checked before. `probe` counts these checks.
    async fn still_serves(
        &self,
        connection: &mut MultiplexedConnection,
        probe: usize,
    ) -> Result<(), StoreError> {
        expect_primary(connection).await?;
        match self.settings.queue.as_ref().filter(|queue| queue.has_format) {
            Some(queue) if probe.is_multiple_of(PROBES_PER_FORMAT) => {
                keep_format(connection, &queue.keys).await
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

    async fn connect_ready(&self) -> Result<MultiplexedConnection, StoreError> {
        let mut connection = self.connect(self.settings.response_timeout).await?;
        if let Some(queue) = self.settings.queue.as_ref().filter(|queue| queue.has_format) {
            expect_format(&mut connection, &queue.keys, queue.partitions).await?;
        }
        scripts::load_all(&mut connection).await?;
        Ok(connection)
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

/// Connects, checks the connection, reconnects. Ends when the last handle is gone.
async fn keep_connected(shared: Weak<SharedConnection>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut down_since: Option<Instant> = None;
    loop {
        let Some(alive) = shared.upgrade() else { return };
        match alive.connect_ready().await {
            Ok(connection) => {
                let generation: Generation = alive.connections.fetch_add(1, Ordering::Relaxed) + 1;
                backoff.reset();
                let outage_ms = down_since.take().map(|since| since.elapsed().as_millis() as u64);
                info!(action = "redis_connected", address = alive.settings.display, outage_ms);
                alive.link.send_replace(Link::Up { generation, connection: connection.clone() });
                let link = alive.link.subscribe();
                drop(alive);
                until_broken(&shared, link, generation, connection).await;
                down_since = Some(Instant::now());
            }
            Err(error) => {
                down_since.get_or_insert_with(Instant::now);
                let pause = backoff.next_pause();
                alive.failed(&error, pause);
                drop(alive);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Returns when a caller or a failed probe has discarded the connection of `generation`.
async fn until_broken(
    shared: &Weak<SharedConnection>,
    mut link: watch::Receiver<Link>,
    generation: Generation,
    mut connection: MultiplexedConnection,
) {
    let is_discarded =
        |link: &Link| !matches!(link, Link::Up { generation: current, .. } if *current == generation);
    for probe in 1.. {
        if timeout(PROBE_INTERVAL, link.wait_for(is_discarded)).await.is_ok() {
            return;
        }
        let Some(alive) = shared.upgrade() else { return };
        if alive.still_serves(&mut connection, probe).await.is_err_and(|error| error.breaks_connection()) {
            alive.discard(generation);
        }
    }
}
