//! Runs commands on the primary that owns a key. While it is down, or another takes over, a command waits, but no longer than its
//! caller allows.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, ProtocolVersion, PushInfo, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, timeout},
};

use crate::{
    process::retry::Backoff,
    queue::{
        error::{StoreError, WrongTopology},
        link::{
            connection::{CONNECT_TIMEOUT, Generation, SharedConnection},
            request::{Answered, Request, break_connection, is_redirection, is_refusal, outcomes},
            settings::ConnectionSettings,
            topology::{Redirection, Topology},
        },
    },
};

/// How often a call follows other nodes without a pause. In a failover, two nodes may each name the other for a moment.
const REDIRECTIONS_AT_ONCE: u32 = 3;

/// A handle of the shared, multiplexed connection to the primary that owns a key, or to any primary. Clones are cheap, and share the
/// connection without waiting for each other. Never run a blocking command on it: use [`Redis::dedicated`].
#[derive(Clone)]
pub struct Redis {
    topology: Topology,
    settings: Arc<ConnectionSettings>,
    /// The slot of the key in a cluster.
    slot: Option<u16>,
    runtime: Handle,
}

impl Redis {
    /// Starts to connect in the background; needs a tokio runtime. Until Redis answers, calls fail with
    /// [`StoreError::Disconnected`]. In a cluster, the handle is that of any primary.
    ///
    /// # Errors
    /// When the client library rejects the address.
    pub fn open(settings: ConnectionSettings) -> Result<Self, RedisError> {
        let topology = Topology::open(settings.clone())?;
        Ok(Self { topology, settings: Arc::new(settings), slot: None, runtime: Handle::current() })
    }

    /// The primary that owns this key.
    #[must_use]
    pub fn of_key(&self, key: &str) -> Self {
        Self { slot: self.topology.slot_of(key), ..self.clone() }
    }

    /// Whether a primary answered the last probe or command.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.topology.state(self.slot).is_ok()
    }

    /// Why Redis cannot be used, unless it is up: `Disconnected` or `WrongTopology`.
    #[must_use]
    pub fn down(&self) -> Option<StoreError> {
        self.topology.state(self.slot).err()
    }

    /// Spawns a task of all callers on the runtime of the connection, whichever runtime this caller uses.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// The connection that is up. No two connections of a process have the same number.
    pub(crate) fn generation(&self) -> Result<Generation, StoreError> {
        self.topology.state(self.slot)
    }

    /// Waits until the primary is at another address than this one, and connected.
    pub(crate) async fn replaced(&self, former: &str) {
        self.topology.replaced(self.slot, former).await;
    }

    /// Waits until Redis answers.
    pub async fn up(&self) {
        self.topology.up(self.slot).await;
    }

    /// Why this version must not use the queue, if its jobs have another stored format when Redis first answers. Waits for ever if
    /// they have not.
    pub async fn refused_format(&self) -> WrongTopology {
        match &self.settings.queue {
            Some(queue) => self.topology.refused_format(&queue.keys.format()).await,
            None => std::future::pending().await,
        }
    }

    /// The address, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.settings.display
    }

    /// A new connection for commands that block for up to `longest_block`.
    ///
    /// # Errors
    /// When Redis cannot be reached, is a replica, or cannot serve the queue.
    pub async fn dedicated(&self, longest_block: Duration) -> Result<MultiplexedConnection, StoreError> {
        self.dedicated_at(longest_block).await.map(|(connection, _)| connection)
    }

    /// The same, with the address of the server.
    pub(crate) async fn dedicated_at(
        &self,
        longest_block: Duration,
    ) -> Result<(MultiplexedConnection, String), StoreError> {
        // The last one may have been refused by a node that does not own the key any more.
        self.topology.doubt();
        let response_timeout = longest_block + Duration::from_secs(5);
        self.primary().await?.connect(response_timeout).await
    }

    /// A new connection for subscriptions, and what arrives on it.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub(crate) async fn subscriber(
        &self,
    ) -> Result<(MultiplexedConnection, UnboundedReceiver<PushInfo>), StoreError> {
        // The last one may have been closed because the slot has moved.
        self.topology.doubt();
        let (sender, pushes) = unbounded_channel();
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(sender);
        let connected = async {
            let (client, _) = self.primary().await?.client().await?;
            let info = client.get_connection_info();
            let with_pushes = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            let client = Client::open(info.clone().set_redis_settings(with_pushes))?;
            Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
        };
        let connection: Result<_, StoreError> =
            timeout(CONNECT_TIMEOUT, connected).await.unwrap_or(Err(StoreError::Disconnected));
        Ok((connection?, pushes))
    }

    /// Whether it is a Redis Cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.settings.is_cluster()
    }

    /// The primary. A connection of its own may be possible although the shared one is not up.
    async fn primary(&self) -> Result<Arc<SharedConnection>, StoreError> {
        match &self.topology {
            Topology::One(shared) => Ok(Arc::clone(shared)),
            Topology::Cluster(cluster) => {
                let give_up = Instant::now() + self.settings.patience;
                cluster.connection(self.slot, give_up).await.map(|(primary, ..)| primary)
            }
        }
    }

    /// Runs a command. Repeats it after a failure that may pass, until the time limit of calls is over; so it must be safe to
    /// repeat.
    ///
    /// # Errors
    /// Any [`StoreError`] but `Protocol`.
    pub async fn run(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.run_on(command).await.map(|answered| answered.value)
    }

    /// As [`Redis::run`]. Also returns the connection on which the command succeeded, and how an earlier sending failed.
    pub(crate) async fn run_on(&self, command: &Cmd) -> Result<Answered, StoreError> {
        self.patiently(Request::One(command)).await
    }

    /// Runs a pipeline of commands on keys of one slot, which are all safe to repeat. Returns one outcome for each. The pipeline must
    /// ignore errors.
    ///
    /// # Errors
    /// When the whole pipeline failed. Failures of single commands are in the list.
    pub async fn run_all(&self, pipeline: &Pipeline) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.run_all_on(pipeline).await.map(|(_, outcomes)| outcomes)
    }

    /// As [`Redis::run_all`]. Also returns the connection on which the replies came.
    pub(crate) async fn run_all_on(
        &self,
        pipeline: &Pipeline,
    ) -> Result<(Generation, Vec<Result<Value, StoreError>>), StoreError> {
        let (generation, mut outcomes) = self.send_all(pipeline).await?;
        if outcomes.iter().any(is_redirection) {
            for (command, outcome) in pipeline.cmd_iter().zip(&mut outcomes) {
                if is_redirection(outcome) {
                    *outcome = self.run(command).await;
                }
            }
        }
        Ok((generation, outcomes))
    }

    /// Runs a pipeline on the primary of this slot. A command of another slot, or of one that moves, may be redirected; whoever sent
    /// the command follows.
    pub(crate) async fn send_all(
        &self,
        pipeline: &Pipeline,
    ) -> Result<(Generation, Vec<Result<Value, StoreError>>), StoreError> {
        if pipeline.is_empty() {
            return Ok((0, Vec::new())); // The client library refuses to send nothing.
        }
        let answered = self.patiently(Request::Many(pipeline)).await?;
        let outcomes = outcomes(answered.value);
        if break_connection(&outcomes) && !outcomes.iter().any(is_redirection) {
            answered.primary.discard(answered.generation);
        }
        match answered.earlier {
            // Redis may have executed the earlier sending of a command that it refuses now.
            Some(error) if outcomes.iter().any(is_refusal) => Err(error),
            _ => Ok((answered.generation, outcomes)),
        }
    }

    /// Whether both handles lead to the same primary now.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.slot == other.slot
            || matches!((self.generation(), other.generation()), (Ok(one), Ok(other)) if one == other)
    }

    async fn patiently(&self, request: Request<'_>) -> Result<Answered, StoreError> {
        let give_up = Instant::now() + self.settings.patience;
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        // The failure of an earlier sending that may have been executed. A later failure proves nothing about it.
        let mut earlier = None;
        let mut redirections = 0;
        loop {
            let connected = self.topology.connection(self.slot, give_up).await;
            let (primary, generation, mut connection) = match connected {
                Ok(connected) => connected,
                Err(error) => return Err(earlier.unwrap_or(error)),
            };
            let sent = self.send(request, primary, generation, &mut connection, give_up).await;
            let Sent { primary, generation, outcome, is_redirected } = sent;
            let error = match outcome {
                Ok(value) => return Ok(Answered { primary, generation, value, earlier }),
                Err(error) => error,
            };
            redirections += u32::from(is_redirected);
            if is_redirected && redirections <= REDIRECTIONS_AT_ONCE {
                continue;
            }
            if error.breaks_connection() && !is_redirected {
                primary.discard(generation);
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

    /// Sends a request once. If the slot is being migrated and the key is not here any more, sends it to the other node, too.
    async fn send(
        &self,
        request: Request<'_>,
        primary: Arc<SharedConnection>,
        generation: Generation,
        connection: &mut MultiplexedConnection,
        give_up: Instant,
    ) -> Sent {
        let outcome = tokio::select! {
            biased;
            outcome = request.send(connection) => outcome,
            // A primary that was frozen or cut off may answer after the failover, but what it did is thrown away.
            () = primary.given_up(generation) => {
                Err(RedisError::from((ErrorKind::Io, "the connection was given up before the answer")))
            }
        };
        let redirection = outcome.as_ref().err().and_then(|error| self.topology.redirection(error, &primary));
        let is_redirected = redirection.is_some();
        if let (Some(Redirection::Ask(node)), Request::One(command)) = (redirection, request) {
            let (generation, outcome) = match node.connection(give_up).await {
                Ok((generation, mut connection)) => {
                    let outcome = Request::Asking(command).send(&mut connection).await;
                    (generation, outcome.map_err(StoreError::from))
                }
                Err(error) => (0, Err(error)),
            };
            return Sent { primary: node, generation, outcome, is_redirected: false };
        }
        Sent { primary, generation, outcome: outcome.map_err(StoreError::from), is_redirected }
    }
}

/// The outcome of one sending.
struct Sent {
    /// The node that answered.
    primary: Arc<SharedConnection>,
    generation: Generation,
    outcome: Result<Value, StoreError>,
    /// Whether the node said that the slot has another owner.
    is_redirected: bool,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("address", &self.address()).field("up", &self.is_up()).finish()
    }
}
