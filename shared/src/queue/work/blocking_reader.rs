//! Blocking reads of the streams of one partition, on a connection of their own. Redis may deliver an entry to a read that was
//! cancelled while it blocked. So [`BlockingReader::read_until`] must be awaited to its end; Redis is asked to end it early.
//!
//! The script that starts the delivered jobs is sent right behind the blocking read, and Redis runs it when the read ends. So an idle
//! worker has a new job one round trip earlier. The script cannot know which entries will be delivered. So the read delivers to an
//! inbox, a consumer of its own, and the script claims the entries of the inbox.

use std::{convert::Infallible, future, pin::pin, sync::Once, time::Duration};

use futures_util::FutureExt as _;
use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::sleep;
use tracing::warn;

use crate::{
    job::Stream,
    queue::{
        error::StoreError,
        keys::{GROUP, inbox},
        link::{Redis, break_connection, outcomes},
        work::{handle::Work, outcome::Granted},
    },
};

/// The first and the longest pause before Redis is asked again to end a read.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

static UNBLOCK_FORBIDDEN: Once = Once::new();

/// How a [`BlockingReader`] reads.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// The partition.
    pub partition: u8,
    /// The consumer's name.
    pub consumer: String,
    /// No read blocks for longer than this.
    pub longest_block: Duration,
    /// The same for a user that lacks the right to end a read.
    pub longest_unendable_block: Duration,
    /// A read starts jobs until they have so many bytes of input.
    pub max_bytes: usize,
}

/// Reads streams of any models in one partition as one consumer.
#[derive(Debug)]
pub struct BlockingReader {
    work: Work,
    settings: ReadSettings,
    streams: Vec<Stream>,
    keys: Vec<String>,
    connection: Option<ReadConnection>,
}

#[derive(Debug)]
struct ReadConnection {
    connection: MultiplexedConnection,
    /// Its number in Redis; `None`: the user may not end reads.
    id: Option<u64>,
    /// The address of the server.
    address: String,
}

impl BlockingReader {
    /// A reader of these streams.
    #[must_use]
    pub fn new(work: Work, settings: ReadSettings, streams: Vec<Stream>) -> Self {
        let mut reader = Self { work, settings, streams: Vec::new(), keys: Vec::new(), connection: None };
        reader.read_from(streams);
        reader
    }

    /// The next read is of these streams.
    pub fn read_from(&mut self, streams: Vec<Stream>) {
        if self.streams != streams {
            let key = |stream: &Stream| self.work.queue().keys().stream(self.settings.partition, *stream);
            self.keys = streams.iter().map(key).collect();
            self.streams = streams;
        }
    }

    /// [`BlockingReader::read_until`] the time is over.
    ///
    /// # Errors
    /// As there.
    pub async fn read(&mut self) -> Result<Granted, StoreError> {
        self.read_until(future::pending()).await
    }

    /// Waits for new entries, at least a millisecond, at most the longest time, and not for much longer than until `end`. Starts at
    /// most one of each stream. Never cancel it. Returns nothing if another server has become the primary meanwhile.
    ///
    /// # Errors
    /// Any [`StoreError`]. The next call reconnects and starts entries that were delivered but not started. If a reply is lost, the
    /// claimed jobs are due again when their lease lapses.
    pub async fn read_until(&mut self, end: impl Future<Output = ()>) -> Result<Granted, StoreError> {
        let former = self.connection.take();
        let is_current =
            |open: &ReadConnection| self.primary().replaced(&open.address).now_or_never().is_none();
        let mut open = match former.filter(is_current) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let calls = self.calls(open.id.is_some());
        let Some(replies) = self.replies(&calls, &mut open, end).await? else {
            return Ok(Granted::default());
        };
        let replies = outcomes(replies);
        if !break_connection(&replies) {
            self.connection = Some(open);
        }
        let ReadSettings { partition, consumer, max_bytes, .. } = &self.settings;
        let mut replies = replies.into_iter();
        let read = replies.next().unwrap_or(Ok(Value::Nil));
        let started = match replies.next() {
            Some(Ok(reply)) => Granted::started(reply, &self.streams),
            // Redis may have lost the script: the shared connection loads it.
            _ => self.work.start(*partition, consumer, &self.streams, *max_bytes).await,
        };
        match read {
            Err(error) if !started.as_ref().is_ok_and(Granted::found_something) => Err(error),
            // These were in the inbox before. If reading fails again, the next call returns the error.
            _ => started,
        }
    }

    fn primary(&self) -> &Redis {
        self.work.queue().primary(self.settings.partition)
    }

    async fn connect(&self) -> Result<ReadConnection, StoreError> {
        let (mut connection, address) = self.primary().dedicated_at(self.settings.longest_block).await?;
        let mut calls = Pipeline::with_capacity(2);
        // No connection has the number 0, so this only shows whether the user has the right.
        calls.ignore_errors().add_command(client("ID")).add_command(unblock(0));
        let mut replies = outcomes(calls.query_async(&mut connection).await?);
        let may_unblock = replies.pop().unwrap_or(Ok(Value::Nil));
        let id = may_unblock.and_then(|_| replies.pop().unwrap_or(Ok(Value::Nil)));
        let id = match id {
            Ok(id) => Some(redis::from_redis_value(id).map_err(StoreError::unread)?),
            Err(StoreError::Forbidden(_)) => {
                UNBLOCK_FORBIDDEN.call_once(|| {
                    let error =
                        "the Redis user lacks +client|id or +client|unblock; idle workers send more commands";
                    warn!(action = "unblock_forbidden", error);
                });
                None
            }
            Err(error) => return Err(error),
        };
        Ok(ReadConnection { connection, id, address })
    }

    /// Makes the calls. From `end` on, asks Redis to end the read. `None`: another server is the primary. The former one may not know
    /// that yet, and what it delivers is thrown away when it becomes a replica.
    async fn replies(
        &self,
        calls: &Pipeline,
        open: &mut ReadConnection,
        end: impl Future<Output = ()>,
    ) -> Result<Option<Value>, RedisError> {
        let (id, address) = (open.id, open.address.as_str());
        let mut replies = pin!(calls.query_async(&mut open.connection));
        let unblocking = async {
            end.await;
            self.unblock(id).await
        };
        tokio::select! {
            biased;
            replies = &mut replies => replies.map(Some),
            () = self.primary().replaced(address) => Ok(None),
            never = unblocking => match never {},
        }
    }

    /// Asks Redis to end the read, again and again: the first call may overtake the read on its way.
    async fn unblock(&self, id: Option<u64>) -> Infallible {
        let Some(id) = id else { return future::pending().await };
        let (call, mut pause) = (unblock(id), FIRST_PAUSE);
        loop {
            // If it fails, the read blocks to the end of its time, or the next call ends it.
            let _ = self.primary().run(&call).await;
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn calls(&self, can_be_ended: bool) -> Pipeline {
        let ReadSettings { partition, consumer, max_bytes, .. } = &self.settings;
        let mut calls = Pipeline::with_capacity(2);
        calls.ignore_errors().add_command(self.blocking_read(can_be_ended));
        calls.add_command(self.work.start_call(*partition, consumer, &self.streams, *max_bytes));
        calls
    }

    fn blocking_read(&self, can_be_ended: bool) -> Cmd {
        let ReadSettings { consumer, longest_block, longest_unendable_block, .. } = &self.settings;
        let block = if can_be_ended { longest_block } else { longest_unendable_block.min(longest_block) };
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(inbox(consumer)).arg("COUNT").arg(1).arg("BLOCK");
        // 0 is to block for ever.
        command.arg(block.as_millis().max(1) as u64).arg("STREAMS");
        for key in &self.keys {
            command.arg(key);
        }
        for _ in &self.keys {
            command.arg(">");
        }
        command
    }
}

fn client(subcommand: &str) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg(subcommand);
    command
}

/// Ends the read of this connection as if its time were over.
fn unblock(id: u64) -> Cmd {
    let mut command = client("UNBLOCK");
    command.arg(id);
    command
}
