//! Checks the server at an address: its kind and its role.

use std::collections::HashMap;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};

use crate::queue::error::{StoreError, WrongTopology};

/// The error of a connection to a replica: the same as that of a write.
pub(super) const REPLICA: ErrorKind = ErrorKind::Server(ServerErrorKind::ReadOnly);

/// Checks that the server is a primary of the expected kind. A replica may have old data and refuses writes. Every user may send
/// HELLO, whatever the ACL, and a replica that has lost its primary answers it, too.
pub(super) async fn expect_primary(
    connection: &mut MultiplexedConnection,
    of_cluster: bool,
) -> Result<(), StoreError> {
    match expect_kind(connection, of_cluster).await?.as_deref() {
        Some("replica") => Err(RedisError::from((REPLICA, "it says so itself")).into()),
        _ => Ok(()),
    }
}

/// Checks the kind of the server. Returns its role.
pub(super) async fn expect_kind(
    connection: &mut MultiplexedConnection,
    of_cluster: bool,
) -> Result<Option<String>, StoreError> {
    let reply: HashMap<String, Value> = redis::cmd("HELLO").query_async(connection).await?;
    let text = |field: &str| match reply.get(field) {
        Some(Value::BulkString(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    match (text("mode").as_deref(), of_cluster) {
        (Some("sentinel"), _) => Err(StoreError::WrongTopology(WrongTopology::Sentinel)),
        (Some("cluster"), false) => Err(StoreError::WrongTopology(WrongTopology::Cluster)),
        (Some("cluster"), true) | (_, false) => Ok(text("role")),
        (_, true) => Err(StoreError::WrongTopology(WrongTopology::NoCluster)),
    }
}
