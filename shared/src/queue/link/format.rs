//! The stored format of a queue: what its keys hold and how. Its number is in Redis, so that a program never touches the jobs of
//! another format.

use redis::{RedisError, Value, aio::MultiplexedConnection};

use crate::queue::{
    error::{StoreError, WrongTopology},
    keys::{Keys, STORED_FORMAT},
};

const FORMER: &str = "1";

/// What is in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundFormat {
    /// This format.
    Own,
    /// No jobs that have not ended, and no number.
    None,
    /// Another format.
    Other(String),
}

/// Reads the number. A queue without one has the former format if it has jobs that have not ended.
pub(crate) async fn found_format(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    partitions: u16,
) -> Result<FoundFormat, RedisError> {
    match redis::cmd("GET").arg(keys.format()).query_async::<Option<String>>(connection).await? {
        Some(number) if number == STORED_FORMAT.to_string() => return Ok(FoundFormat::Own),
        Some(number) => return Ok(FoundFormat::Other(number)),
        None => {}
    }
    let mut reads = redis::pipe();
    for stream in (0..partitions.min(256)).flat_map(|partition| keys.former_streams(partition as u8)) {
        reads.cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(1);
    }
    if reads.is_empty() {
        return Ok(FoundFormat::None);
    }
    let entries: Vec<Value> = reads.query_async(connection).await?;
    let is_empty = |entries: &Value| matches!(entries, Value::Array(entries) if entries.is_empty());
    let former = || FoundFormat::Other(FORMER.to_owned());
    Ok(if entries.iter().all(is_empty) { FoundFormat::None } else { former() })
}

/// Checks the format, and writes the number into an empty queue.
pub(super) async fn expect_format(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    partitions: u16,
) -> Result<(), StoreError> {
    match found_format(connection, keys, partitions).await? {
        FoundFormat::Own => Ok(()),
        FoundFormat::None => write_format(connection, keys).await,
        FoundFormat::Other(found) => Err(StoreError::WrongTopology(WrongTopology::StoredFormat { found })),
    }
}

/// Checks the number on a connection that was checked before. If it is gone, Redis was emptied meanwhile, and what is in the queue
/// now is of this format.
pub(super) async fn keep_format(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<(), StoreError> {
    match redis::cmd("GET").arg(keys.format()).query_async::<Option<String>>(connection).await? {
        Some(number) if number == STORED_FORMAT.to_string() => Ok(()),
        Some(found) => Err(StoreError::WrongTopology(WrongTopology::StoredFormat { found })),
        None => write_format(connection, keys).await,
    }
}

async fn write_format(connection: &mut MultiplexedConnection, keys: &Keys) -> Result<(), StoreError> {
    let mut set = redis::cmd("SET");
    set.arg(keys.format()).arg(STORED_FORMAT).arg("NX");
    match set.exec_async(connection).await.map_err(StoreError::from) {
        // A Redis that is full accepts no jobs either. The next check writes it.
        Err(StoreError::OutOfMemory(_) | StoreError::CannotPersist(_)) => Ok(()),
        written => written,
    }
}
