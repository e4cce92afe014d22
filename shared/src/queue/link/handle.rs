//! How Redis is reached, and reached again after it went away. Commands never wait for a reconnection longer than
//! their caller allows; one background task reconnects with backoff and says so in the log.

use std::{sync::Arc, time::Duration};

use redis::{
    Cmd, Pipeline, RedisError, Value,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::time::{Instant, timeout};

use crate::{
    process::retry::Backoff,
    queue::{
        error::StoreError,
        link::{
            connection::{CONNECT_TIMEOUT, Shared},
            request::{Answered, Generation, Request, break_connection, is_refusal, outcomes},
            settings::ConnectionSettings,
        },
    },
};

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
        Ok(Self { shared: Shared::open(settings)? })
    }

    /// Whether the last probe or command found Redis answering, as a primary.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.state().is_ok()
    }

    /// Why Redis cannot be used, unless it is up: `Disconnected` or `WrongTopology`.
    #[must_use]
    pub fn down(&self) -> Option<StoreError> {
        self.shared.state().err()
    }

    /// Which connection is up.
    pub(crate) fn generation(&self) -> Result<Generation, StoreError> {
        self.shared.state()
    }

    /// Waits until Redis answers.
    pub async fn up(&self) {
        self.shared.up().await;
    }

    /// The address, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.settings.display
    }

    /// A connection of its own for commands that block for up to `longest_block`.
    ///
    /// # Errors
    /// When Redis cannot be reached, is a replica, or cannot serve the queue.
    pub async fn dedicated(&self, longest_block: Duration) -> Result<MultiplexedConnection, StoreError> {
        self.shared.connect(longest_block + Duration::from_secs(5)).await
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
    /// ignore errors.
    ///
    /// # Errors
    /// When the pipeline as a whole failed; failures of single commands are in the list.
    pub async fn run_all(&self, pipeline: &Pipeline) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        self.run_all_on(pipeline).await.map(|(_, outcomes)| outcomes)
    }

    /// [`Redis::run_all`], with the connection on which the pipeline was answered.
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
            // What is refused now may have been done by the earlier sending.
            Some(error) if outcomes.iter().any(is_refusal) => Err(error),
            _ => Ok((generation, outcomes)),
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

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("address", &self.address()).field("up", &self.is_up()).finish()
    }
}
