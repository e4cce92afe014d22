//! Runs commands over the shared connection. While it is down, a command waits for the reconnection, but no longer than its
//! caller allows.

use std::{sync::Arc, time::Duration};

use redis::{
    Cmd, Pipeline, RedisError, Value,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

use crate::{
    process::retry::Backoff,
    queue::{
        error::{StoreError, WrongTopology},
        link::{
            connection::{CONNECT_TIMEOUT, SharedConnection},
            request::{Answered, Generation, Request, break_connection, is_refusal, outcomes},
            settings::ConnectionSettings,
        },
    },
};

/// A handle of one shared, multiplexed connection. Clones are cheap, and share the connection without waiting for each other.
/// Never run a blocking command on it: use [`Redis::dedicated`].
#[derive(Clone)]
pub struct Redis {
    shared: Arc<SharedConnection>,
    runtime: Handle,
}

impl Redis {
    /// Starts to connect in the background; needs a tokio runtime. Until Redis answers, calls fail with
    /// [`StoreError::Disconnected`].
    ///
    /// # Errors
    /// When the client library rejects the address.
    pub fn open(settings: ConnectionSettings) -> Result<Self, RedisError> {
        Ok(Self { shared: SharedConnection::open(settings)?, runtime: Handle::current() })
    }

    /// Whether a primary answered the last probe or command.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.state().is_ok()
    }

    /// Why Redis cannot be used, unless it is up: `Disconnected` or `WrongTopology`.
    #[must_use]
    pub fn down(&self) -> Option<StoreError> {
        self.shared.state().err()
    }

    /// Spawns a task of all callers on the runtime of the connection, whichever runtime this caller uses.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// The connection that is up.
    pub(crate) fn generation(&self) -> Result<Generation, StoreError> {
        self.shared.state()
    }

    /// Waits until Redis answers.
    pub async fn up(&self) {
        self.shared.up().await;
    }

    /// Why this version must not use the queue, if its jobs have another stored format when Redis first answers. Waits for ever if
    /// they have not.
    pub async fn refused_format(&self) -> WrongTopology {
        self.shared.refused_format().await
    }

    /// The address, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.settings.display
    }

    /// A new connection for commands that block for up to `longest_block`.
    ///
    /// # Errors
    /// When Redis cannot be reached, is a replica, or cannot serve the queue.
    pub async fn dedicated(&self, longest_block: Duration) -> Result<MultiplexedConnection, StoreError> {
        self.shared.connect(longest_block + Duration::from_secs(5)).await
    }

    /// A new connection for subscriptions.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn pubsub(&self) -> Result<PubSub, StoreError> {
        match timeout(CONNECT_TIMEOUT, self.shared.client.get_async_pubsub()).await {
            Ok(connected) => connected.map_err(StoreError::from),
            Err(_) => Err(StoreError::Disconnected),
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

    /// Runs a pipeline of commands that are all safe to repeat. Returns one outcome for each. The pipeline must ignore errors.
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
        if pipeline.is_empty() {
            return Ok((0, Vec::new())); // The client library refuses to send nothing.
        }
        let Answered { generation, value, earlier } = self.patiently(Request::Many(pipeline)).await?;
        let outcomes = outcomes(value);
        if break_connection(&outcomes) {
            self.shared.discard(generation);
        }
        match earlier {
            // Redis may have executed the earlier sending of a command that it refuses now.
            Some(error) if outcomes.iter().any(is_refusal) => Err(error),
            _ => Ok((generation, outcomes)),
        }
    }

    async fn patiently(&self, request: Request<'_>) -> Result<Answered, StoreError> {
        let give_up = Instant::now() + self.shared.settings.patience;
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        // The failure of an earlier sending that may have been executed. A later failure proves nothing about it.
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

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("address", &self.address()).field("up", &self.is_up()).finish()
    }
}
