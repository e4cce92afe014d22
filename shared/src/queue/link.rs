//! The connection to Redis.

mod arguments;
mod cluster;
mod connection;
mod format;
mod handle;
mod place;
mod replication;
mod request;
mod role;
mod sentinel;
mod sentinel_events;
pub(super) mod settings;
mod slot_map;
mod topology;

pub(crate) use arguments::RedisArgs;
pub(crate) use connection::Generation;
pub(crate) use format::{FoundFormat, found_format};
pub use handle::Redis;
pub use place::UrlError;
pub use replication::ReplicationSettings;
pub(crate) use replication::{Replicated, Written};
pub(crate) use request::{Answered, break_connection, is_redirection, outcomes};
pub(crate) use sentinel::SentinelGroup;
pub use settings::ConnectionSettings;
