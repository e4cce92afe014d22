//! Blocking reads of a queue's streams, on a connection of their own. A read that is abandoned while it blocks would
//! still be delivered an entry, so [`Reader::read`] must be awaited to its end; it blocks for a bounded time.
//!
//! What starts the delivered jobs is sent right behind the blocking read: Redis runs it as soon as the read ends, so that
//! an idle worker has a new job one round trip earlier. It cannot know which entries will have been delivered. So the read
//! delivers to an inbox, a consumer of its own, and the script takes what is in there.

use std::time::Duration;

use redis::{Cmd, Pipeline, Value, aio::MultiplexedConnection};

use crate::{
    job::Priority,
    queue::{
        error::StoreError,
        keys::{GROUP, inbox},
        link::{break_connection, outcomes},
        scripts::Granted,
        store::JobStore,
    },
};

/// Reads the streams of all partitions as one consumer.
#[derive(Debug)]
pub struct Reader {
    store: JobStore,
    consumer: String,
    streams: Vec<String>,
    longest_block: Duration,
    max_bytes: usize,
    connection: Option<MultiplexedConnection>,
}

impl Reader {
    /// A reader for `consumer` that blocks for at most `longest_block` a call and starts jobs of a partition until they have
    /// `max_bytes` of input.
    #[must_use]
    pub fn new(store: JobStore, consumer: String, longest_block: Duration, max_bytes: usize) -> Self {
        let streams = store
            .partitions()
            .flat_map(|partition| Priority::ALL.map(|priority| store.keys().stream(partition, priority)))
            .collect();
        Self { store, consumer, streams, longest_block, max_bytes, connection: None }
    }

    /// Waits for new entries and starts at most one of each stream: what became of them, for each partition. Nothing is
    /// granted when the time is over. Never cancel it.
    ///
    /// # Errors
    /// Any [`StoreError`]; the next call connects anew. What was delivered and not started is started by the next call;
    /// jobs whose grant was lost come back after the lease.
    pub async fn read(&mut self) -> Result<Vec<Result<Granted, StoreError>>, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.store.redis().dedicated(self.longest_block).await?,
        };
        let replies = outcomes(self.calls().query_async(&mut connection).await?);
        if !break_connection(&replies) {
            self.connection = Some(connection);
        }
        let mut replies = replies.into_iter();
        let read = replies.next().unwrap_or(Ok(Value::Nil));
        let mut started = Vec::with_capacity(replies.len());
        for (partition, reply) in self.store.partitions().zip(replies) {
            started.push(match reply {
                Ok(reply) => Granted::started(reply),
                // Redis may have forgotten the script: the shared connection knows how to load it.
                Err(_) => self.store.start(partition, &self.consumer, self.max_bytes).await,
            });
        }
        match read {
            Err(error) if !started.iter().flatten().any(Granted::found_something) => Err(error),
            // What was in the inbox from before; should reading fail again, that is early enough to tell.
            _ => Ok(started),
        }
    }

    fn calls(&self) -> Pipeline {
        let mut calls = Pipeline::with_capacity(2);
        calls.ignore_errors().add_command(self.blocking_read());
        for partition in self.store.partitions() {
            calls.add_command(self.store.start_call(partition, &self.consumer, self.max_bytes));
        }
        calls
    }

    fn blocking_read(&self) -> Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(inbox(&self.consumer)).arg("COUNT").arg(1).arg("BLOCK");
        command.arg(self.longest_block.as_millis() as u64).arg("STREAMS");
        for stream in &self.streams {
            command.arg(stream);
        }
        for _ in &self.streams {
            command.arg(">");
        }
        command
    }
}
