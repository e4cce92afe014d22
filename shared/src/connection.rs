//! How Redis is reached, and reached again after it went away. Commands never wait for a reconnection longer than
//! their caller allows; one background task reconnects with backoff and says so in the log.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, RedisError, ServerErrorKind, TlsCertificates, Value,
    aio::{MultiplexedConnection, PubSub},
    io::tcp::TcpSettings,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use crate::{
    error::StoreError,
    retry::Backoff,
    scripts, supervisor,
    tls::{ClientTls, Peer, Reason},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often an idle connection is checked, so that a half-open one is noticed before a request needs it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How a connection to a replica fails: as the changes sent over it would.
const REPLICA: ErrorKind = ErrorKind::Server(ServerErrorKind::ReadOnly);

/// Where Redis is and how long to wait for it.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Address and credentials.
    pub info: ConnectionInfo,
    /// The address without credentials, for logs.
    pub display: String,
    /// Longest wait for the answer to a command that does not block.
    pub response_timeout: Duration,
    /// How long a call may wait for a reconnection and repeat itself before it fails.
    pub patience: Duration,
    has_identity: bool,
}

impl ConnectionSettings {
    /// Settings for the Redis at `url` (`redis://[user:password@]host[:port][/db]`, `rediss://` for TLS).
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(url: &str) -> Result<Self, RedisError> {
        let info = url.into_connection_info()?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let display = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
                if host.contains(':') =>
            {
                format!("[{host}]:{port}")
            }
            address => address.to_string(),
        };
        let (response_timeout, patience) = (Duration::from_secs(2), Duration::from_secs(1));
        Ok(Self { info, display, response_timeout, patience, has_identity: false })
    }

    /// The same, with these credentials unless the URL has its own.
    #[must_use]
    pub fn with_missing_credentials(mut self, username: Option<&str>, password: Option<&str>) -> Self {
        let mut settings = self.info.redis_settings().clone();
        if settings.username().is_some() || settings.password().is_some() {
            return self;
        }
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        self.info = self.info.set_redis_settings(settings);
        self
    }

    /// The same, with these certificates; for a `rediss://` URL.
    ///
    /// # Errors
    /// When the client library rejects them.
    pub fn with_tls(mut self, tls: &ClientTls) -> Result<Self, RedisError> {
        let client_tls = tls.identity.as_ref().map(|identity| ClientTlsConfig {
            client_cert: identity.chain.clone().into_bytes(),
            client_key: identity.expose_key().to_owned().into_bytes(),
        });
        self.has_identity = client_tls.is_some();
        let root_cert = tls.authorities.clone().map(String::into_bytes);
        let client = Client::build_with_tls(self.info, TlsCertificates { client_tls, root_cert })?;
        self.info = client.get_connection_info().clone();
        Ok(self)
    }

    /// The same, with another limit for answers.
    #[must_use]
    pub fn with_response_timeout(mut self, response_timeout: Duration) -> Self {
        self.response_timeout = response_timeout;
        self
    }

    /// The same, with another patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl ConnectionSettings {
    /// Why no connection came about, if TLS or the role of the node is to blame.
    pub(crate) fn explain(&self, error: &RedisError) -> Option<Reason> {
        if error.kind() == REPLICA {
            let mend =
                "wait until it is promoted, or set REDIS_HOST and REDIS_PORT, or REDIS_URL, to the primary";
            return Some(Reason { what: "Redis is a read-only replica".to_owned(), mend: mend.to_owned() });
        }
        let peer = Peer { name: "Redis", prefix: "REDIS", has_identity: self.has_identity };
        let is_tls = matches!(self.info.addr(), ConnectionAddr::TcpTls { .. });
        peer.explain(error).or_else(|| (is_tls && is_closed(error)).then(|| peer.explain_closed()))
    }
}

/// Whether the other end closed a connection that there was.
fn is_closed(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

/// Which connection in the order of connecting; tells an old failure from a new one.
pub(crate) type Generation = u64;

/// The state of the shared connection.
#[derive(Clone)]
enum Link {
    Down,
    Up { generation: Generation, connection: MultiplexedConnection },
}

struct Shared {
    client: Client,
    settings: ConnectionSettings,
    link: watch::Sender<Link>,
}

/// A handle to one shared, multiplexed connection. Clones are cheap; commands of all clones are pipelined by
/// themselves. Never run a blocking command on it: use [`Redis::dedicated`].
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

impl Redis {
    /// Starts to connect in the background; needs a tokio runtime. Works without a reachable Redis: calls fail with
    /// [`StoreError::Disconnected`] until it answers.
    ///
    /// # Errors
    /// When the client library rejects the address.
    pub fn open(settings: ConnectionSettings) -> Result<Self, RedisError> {
        let client = Client::open(settings.info.clone())?;
        let (link, _) = watch::channel(Link::Down);
        let shared = Arc::new(Shared { client, settings, link });
        let weak = Arc::downgrade(&shared);
        tokio::spawn(supervisor::keep("redis_connection", move || keep_connected(Weak::clone(&weak))));
        Ok(Self { shared })
    }

    /// Whether the last probe or command found Redis answering, as a primary.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(*self.shared.link.borrow(), Link::Up { .. })
    }

    /// Waits until Redis answers.
    pub async fn up(&self) {
        let mut link = self.shared.link.subscribe();
        // The sender lives as long as `self`.
        let _ = link.wait_for(|link| matches!(link, Link::Up { .. })).await;
    }

    /// The address, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.settings.display
    }

    /// A connection of its own for commands that block for up to `longest_block`.
    ///
    /// # Errors
    /// When Redis cannot be reached, or is a replica.
    pub async fn dedicated(&self, longest_block: Duration) -> Result<MultiplexedConnection, StoreError> {
        self.shared.connect(longest_block + Duration::from_secs(5)).await.map_err(StoreError::from)
    }

    /// A connection of its own for subscriptions.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn pubsub(&self) -> Result<PubSub, StoreError> {
        match timeout(CONNECT_TIMEOUT, self.shared.client.get_async_pubsub()).await {
            Ok(connected) => connected.map_err(StoreError::from),
            Err(_) => Err(StoreError::Disconnected),
        }
    }

    /// Runs a command, repeating it while repeating can help and patience lasts: it must be safe to repeat.
    ///
    /// # Errors
    /// Any [`StoreError`] but `Protocol`.
    pub async fn run(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.run_on(command).await.map(|answered| answered.value)
    }

    /// [`Redis::run`], with the connection on which the command succeeded and what became of earlier sendings.
    pub(crate) async fn run_on(&self, command: &Cmd) -> Result<Answered, StoreError> {
        self.patiently(Request::One(command)).await
    }

    /// Runs a pipeline of commands that are each safe to repeat, and gives one outcome for each. The pipeline must
    /// have been told to ignore errors.
    ///
    /// # Errors
    /// When the pipeline as a whole failed; failures of single commands are in the list.
    pub async fn run_all(&self, pipeline: &Pipeline) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        if pipeline.is_empty() {
            return Ok(Vec::new()); // The client library refuses to send nothing.
        }
        let Answered { generation, value, earlier } = self.patiently(Request::Many(pipeline)).await?;
        let outcomes = outcomes(value);
        if break_connection(&outcomes) {
            self.shared.discard(generation);
        }
        match earlier {
            // What is refused now may have been done by the earlier sending.
            Some(error) if outcomes.iter().any(is_refusal) => Err(error),
            _ => Ok(outcomes),
        }
    }

    async fn patiently(&self, request: Request<'_>) -> Result<Answered, StoreError> {
        let give_up = Instant::now() + self.shared.settings.patience;
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        // An earlier sending that may have been executed: a later failure to send it again says nothing about that one.
        let mut earlier = None;
        loop {
            let (generation, mut connection) = match self.shared.connection(give_up).await {
                Ok(connected) => connected,
                Err(error) => return Err(earlier.unwrap_or(error)),
            };
            let error = match request.send(&mut connection).await {
                Ok(value) => return Ok(Answered { generation, value, earlier }),
                Err(error) => StoreError::from(error),
            };
            if error.breaks_connection() {
                self.shared.discard(generation);
            }
            let pause = backoff.next_pause();
            if !error.is_retryable() || Instant::now() + pause >= give_up {
                return Err(earlier.unwrap_or(error));
            }
            if matches!(error, StoreError::Ambiguous(_)) {
                earlier.get_or_insert(error);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// What became of each command of a pipeline that was told to ignore errors.
pub(crate) fn outcomes(reply: Value) -> Vec<Result<Value, StoreError>> {
    let values = match reply {
        Value::Array(values) => values,
        other => vec![other],
    };
    let outcome = |value| match value {
        Value::ServerError(error) => Err(StoreError::from(RedisError::from(error))),
        value => Ok(value),
    };
    values.into_iter().map(outcome).collect()
}

/// Whether the connection that answered a pipeline so must not be used again: it leads to a node that was demoted.
pub(crate) fn break_connection(outcomes: &[Result<Value, StoreError>]) -> bool {
    outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(StoreError::breaks_connection))
}

/// The answer to a request.
pub(crate) struct Answered {
    /// The connection on which it came.
    pub(crate) generation: Generation,
    /// What Redis said.
    pub(crate) value: Value,
    /// How an earlier sending of the same request failed that may have been executed, or may still be.
    pub(crate) earlier: Option<StoreError>,
}

/// Whether Redis says that it did not execute a command, for a reason that may not have been there before.
fn is_refusal(outcome: &Result<Value, StoreError>) -> bool {
    use StoreError::{CannotPersist, NotReady, OutOfMemory};
    matches!(outcome, Err(OutOfMemory(_) | CannotPersist(_) | NotReady(_)))
}

/// What is sent over the shared connection.
#[derive(Clone, Copy)]
enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
}

impl Request<'_> {
    /// Sends it, and once more if Redis had forgotten the scripts.
    async fn send(self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        let outcome = self.send_once(connection).await;
        if !mentions_unknown_script(&outcome) {
            return outcome;
        }
        scripts::load_all(connection).await?;
        self.send_once(connection).await
    }

    async fn send_once(self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::One(command) => command.query_async(connection).await,
            Self::Many(pipeline) => pipeline.query_async(connection).await,
        }
    }
}

fn mentions_unknown_script(outcome: &Result<Value, RedisError>) -> bool {
    match outcome {
        Ok(Value::Array(values)) => values
            .iter()
            .any(|value| matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")),
        Ok(_) => false,
        Err(error) => error.code() == Some("NOSCRIPT"),
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("address", &self.address()).field("up", &self.is_up()).finish()
    }
}

impl Shared {
    async fn connection(&self, give_up: Instant) -> Result<(Generation, MultiplexedConnection), StoreError> {
        if let Link::Up { generation, connection } = &*self.link.borrow() {
            return Ok((*generation, connection.clone()));
        }
        let mut link = self.link.subscribe();
        let up = link.wait_for(|link| matches!(link, Link::Up { .. }));
        match tokio::time::timeout_at(give_up, up).await {
            Ok(Ok(link)) => match &*link {
                Link::Up { generation, connection } => Ok((*generation, connection.clone())),
                Link::Down => Err(StoreError::Disconnected),
            },
            _ => Err(StoreError::Disconnected),
        }
    }

    /// Marks the connection of that generation as unusable; a newer one is left alone.
    fn discard(&self, broken: Generation) {
        self.link.send_if_modified(|link| {
            let is_current = matches!(link, Link::Up { generation, .. } if *generation == broken);
            if is_current {
                *link = Link::Down;
            }
            is_current
        });
    }

    async fn connect(&self, response_timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        expect_primary(&mut connection).await?;
        Ok(connection)
    }

    async fn connect_ready(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connect(self.settings.response_timeout).await?;
        scripts::load_all(&mut connection).await?;
        Ok(connection)
    }
}

/// A replica answers, too, but what it holds may be old and it takes no changes. Every user may send HELLO, whatever the
/// ACL, and its answer comes even while a replica has lost its primary.
async fn expect_primary(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let told: HashMap<String, Value> = redis::cmd("HELLO").query_async(connection).await?;
    match told.get("role") {
        Some(Value::BulkString(role)) if role == b"replica" => {
            Err(RedisError::from((REPLICA, "it says so itself")))
        }
        _ => Ok(()),
    }
}

/// Connects, watches the connection, connects again; ends when the last handle is gone.
async fn keep_connected(shared: Weak<Shared>) {
    let mut generation = 0;
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut down_since: Option<Instant> = None;
    loop {
        let Some(alive) = shared.upgrade() else { return };
        match alive.connect_ready().await {
            Ok(connection) => {
                generation += 1;
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
                let retry_ms = pause.as_millis() as u64;
                let reason = alive.settings.explain(&error);
                let error = reason.map_or_else(|| error.to_string(), |reason| format!("{reason} ({error})"));
                warn!(action = "redis_unreachable", address = alive.settings.display, error, retry_ms);
                drop(alive);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Returns when the connection of `generation` was discarded, by a caller or by a failed probe.
async fn until_broken(
    shared: &Weak<Shared>,
    mut link: watch::Receiver<Link>,
    generation: Generation,
    mut connection: MultiplexedConnection,
) {
    let is_discarded =
        |link: &Link| !matches!(link, Link::Up { generation: current, .. } if *current == generation);
    loop {
        if timeout(PROBE_INTERVAL, link.wait_for(is_discarded)).await.is_ok() {
            return;
        }
        let Some(alive) = shared.upgrade() else { return };
        let probe = expect_primary(&mut connection).await;
        if probe.is_err_and(|error| StoreError::from(error).breaks_connection()) {
            alive.discard(generation);
        }
    }
}
