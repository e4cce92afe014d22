//! Blocking reads of the streams, on a connection of their own. Redis may deliver an entry to a read that was cancelled while it
//! blocked. So [`BlockingReader::read`] must be awaited to its end; it blocks for a bounded time.
//!
//! The script that starts the delivered jobs is sent right behind the blocking read, and Redis runs it when the read ends. So an idle
//! worker has a new job one round trip earlier. The script cannot know which entries will be delivered. So the read delivers to an
//! inbox, a consumer of its own, and the script claims the entries of the inbox.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value, aio::MultiplexedConnection};

use crate::{
    job::Stream,
    queue::{
        error::StoreError,
        keys::{GROUP, inbox},
        link::{break_connection, outcomes},
        work::{handle::Work, outcome::Granted},
    },
};

/// Reads streams of any models in all partitions as one consumer.
#[derive(Debug)]
pub struct BlockingReader {
    work: Work,
    consumer: String,
    streams: Vec<Stream>,
    /// The keys of the streams in all partitions.
    keys: Vec<String>,
    longest_block: Duration,
    max_bytes: usize,
    connection: Option<MultiplexedConnection>,
}

impl BlockingReader {
    /// A reader for `consumer`. No read blocks for longer than `longest_block`. A read starts jobs of a partition until they have
    /// `max_bytes` of input.
    #[must_use]
    pub fn new(
        work: Work,
        consumer: String,
        streams: Vec<Stream>,
        longest_block: Duration,
        max_bytes: usize,
    ) -> Self {
        let (keys, connection) = (keys_of(&work, &streams), None);
        Self { work, consumer, streams, keys, longest_block, max_bytes, connection }
    }

    /// The next read is of these streams.
    pub fn read_from(&mut self, streams: Vec<Stream>) {
        if self.streams != streams {
            (self.keys, self.streams) = (keys_of(&self.work, &streams), streams);
        }
    }

    /// [`BlockingReader::read_for`] as long as a read may block.
    ///
    /// # Errors
    /// As there.
    pub async fn read(&mut self) -> Result<Vec<Result<Granted, StoreError>>, StoreError> {
        self.read_for(self.longest_block).await
    }

    /// Waits for new entries, at least a millisecond and for at most `block`, and starts at most one of each stream. Returns the claims
    /// of each partition; none if the time is over. Never cancel it.
    ///
    /// # Errors
    /// Any [`StoreError`]. The next call reconnects and starts entries that were delivered but not started. If a reply is lost, the
    /// claimed jobs are due again when their lease lapses.
    pub async fn read_for(
        &mut self,
        block: Duration,
    ) -> Result<Vec<Result<Granted, StoreError>>, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.work.queue().redis().dedicated(self.longest_block).await?,
        };
        let replies = outcomes(self.calls(block).query_async(&mut connection).await?);
        if !break_connection(&replies) {
            self.connection = Some(connection);
        }
        let mut replies = replies.into_iter();
        let read = replies.next().unwrap_or(Ok(Value::Nil));
        let mut started = Vec::with_capacity(replies.len());
        for (partition, reply) in self.work.queue().partitions().zip(replies) {
            started.push(match reply {
                Ok(reply) => Granted::started(reply, &self.streams),
                // Redis may have lost the script: the shared connection loads it.
                Err(_) => self.work.start(partition, &self.consumer, &self.streams, self.max_bytes).await,
            });
        }
        match read {
            Err(error) if !started.iter().flatten().any(Granted::found_something) => Err(error),
            // These were in the inbox before. If reading fails again, the next call returns the error.
            _ => Ok(started),
        }
    }

    fn calls(&self, block: Duration) -> Pipeline {
        let mut calls = Pipeline::with_capacity(2);
        calls.ignore_errors().add_command(self.blocking_read(block));
        for partition in self.work.queue().partitions() {
            let call = self.work.start_call(partition, &self.consumer, &self.streams, self.max_bytes);
            calls.add_command(call);
        }
        calls
    }

    fn blocking_read(&self, block: Duration) -> Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(inbox(&self.consumer)).arg("COUNT").arg(1).arg("BLOCK");
        // 0 is to block for ever.
        command.arg(block.min(self.longest_block).as_millis().max(1) as u64).arg("STREAMS");
        for key in &self.keys {
            command.arg(key);
        }
        for _ in &self.keys {
            command.arg(">");
        }
        command
    }
}

/// The keys of these streams in all partitions.
fn keys_of(work: &Work, streams: &[Stream]) -> Vec<String> {
    let of_partition =
        |partition| streams.iter().map(move |stream| work.queue().keys().stream(partition, *stream));
    work.queue().partitions().flat_map(of_partition).collect()
}
