//! The connection to Redis.

mod arguments;
mod connection;
mod format;
mod handle;
mod replication;
mod request;
pub(super) mod settings;
mod topology;

pub(crate) use arguments::RedisArgs;
pub(crate) use format::{FoundFormat, found_format};
pub use handle::Redis;
pub(crate) use replication::Replicated;
pub use replication::ReplicationSettings;
pub(crate) use request::{Answered, Generation, break_connection, outcomes};
pub use settings::ConnectionSettings;
