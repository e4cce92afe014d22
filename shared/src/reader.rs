//! Blocking reads of a queue's streams, on a connection of their own. A read that is abandoned while it blocks would
//! still be delivered an entry, so [`Reader::read`] must be awaited to its end; it blocks for a bounded time.

use std::time::Duration;

use redis::{FromRedisValue as _, Value, aio::MultiplexedConnection};

use crate::{
    error::StoreError,
    job::{JobId, Priority},
    keys::GROUP,
    store::{Delivery, JobStore},
};

/// Reads the streams of all partitions as one consumer.
#[derive(Debug)]
pub struct Reader {
    store: JobStore,
    consumer: String,
    streams: Vec<(String, u8, Priority)>,
    longest_block: Duration,
    connection: Option<MultiplexedConnection>,
}

impl Reader {
    /// A reader for `consumer` that blocks for at most `longest_block` a call.
    #[must_use]
    pub fn new(store: JobStore, consumer: String, longest_block: Duration) -> Self {
        let streams = store
            .partitions()
            .flat_map(|partition| Priority::ALL.map(|priority| (partition, priority)))
            .map(|(partition, priority)| (store.keys().stream(partition, priority), partition, priority))
            .collect();
        Self { store, consumer, streams, longest_block, connection: None }
    }

    /// Waits for new entries; gives at most one of each stream, none when the time is over. Never cancel it.
    ///
    /// # Errors
    /// Any [`StoreError`]; the next call connects anew. Entries whose delivery was lost come back after the lease.
    pub async fn read(&mut self) -> Result<Vec<(u8, Delivery)>, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.store.redis().dedicated(self.longest_block).await?,
        };
        let reply = self.command().query_async::<Value>(&mut connection).await.map_err(StoreError::from);
        if !matches!(&reply, Err(error) if error.is_retryable()) {
            self.connection = Some(connection);
        }
        self.deliveries(reply?)
    }

    fn command(&self) -> redis::Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(1).arg("BLOCK");
        command.arg(self.longest_block.as_millis() as u64).arg("STREAMS");
        for (stream, ..) in &self.streams {
            command.arg(stream);
        }
        for _ in &self.streams {
            command.arg(">");
        }
        command
    }

    fn deliveries(&self, reply: Value) -> Result<Vec<(u8, Delivery)>, StoreError> {
        type Streams = Vec<(String, Vec<(String, Vec<(String, String)>)>)>;
        let read = Option::<Streams>::from_redis_value(reply)
            .map_err(|error| StoreError::Protocol { script: "read", reason: error.to_string() })?;
        let mut deliveries = Vec::new();
        for (name, entries) in read.unwrap_or_default() {
            let Some((_, partition, priority)) = self.streams.iter().find(|(stream, ..)| *stream == name)
            else {
                continue;
            };
            for (entry, fields) in entries {
                let job_id: Option<JobId> =
                    fields.into_iter().find(|(field, _)| field == "id").and_then(|(_, id)| id.parse().ok());
                if let Some(job_id) = job_id {
                    deliveries.push((*partition, Delivery { priority: *priority, entry, job_id }));
                }
            }
        }
        Ok(deliveries)
    }
}
