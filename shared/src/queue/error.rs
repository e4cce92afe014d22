//! Failures between Tepal and Redis, by what the caller should do.

mod topology;

use redis::{ErrorKind, ParsingError, RedisError, ServerErrorKind};

pub use topology::WrongTopology;

use crate::{
    job::{NotAModelName, UnknownWord},
    tensor::stored::StoredError,
};

/// A call to Redis failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection to Redis. The request was not sent.
    #[error("Redis is not reachable")]
    Disconnected,
    /// The connection broke, or the reply did not come in time. The request may have been executed. It is safe to repeat the
    /// call.
    #[error("the connection to Redis broke before its answer")]
    Ambiguous(#[source] RedisError),
    /// Redis is loading, failing over or busy. Nothing was executed.
    #[error("Redis is not ready")]
    NotReady(#[source] RedisError),
    /// Redis is at its memory limit and refuses new jobs.
    #[error("Redis is at its memory limit")]
    OutOfMemory(#[source] RedisError),
    /// Redis cannot write to its disk and refuses all writes.
    #[error("Redis cannot persist its data to disk and refuses writes")]
    CannotPersist(#[source] RedisError),
    /// The credentials are wrong, or the user lacks the right to run a command.
    #[error("Redis refuses the credentials or the command; check the password and the ACL rules")]
    Forbidden(#[source] RedisError),
    /// A stream or its consumer group is gone: the data was lost or removed.
    #[error("a stream or its consumer group is missing in Redis")]
    GroupMissing(#[source] RedisError),
    /// The server at the address cannot serve the queue. Nothing was executed.
    #[error("Redis cannot serve the queue")]
    WrongTopology(#[source] WrongTopology),
    /// Executed, but too few replicas confirmed it in time: a failover may lose it.
    #[error("only {reached} of {required} replicas confirmed the write")]
    NotReplicated {
        /// Replicas that confirmed.
        reached: u32,
        /// Replicas that must confirm.
        required: u32,
    },
    /// Any other refusal by Redis.
    #[error("Redis refused the request")]
    Refused(#[source] RedisError),
    /// Redis returned something that the script never returns.
    #[error("unexpected answer of script `{script}`: {reason}")]
    Protocol {
        /// Which script.
        script: &'static str,
        /// What was unexpected.
        reason: String,
    },
    /// Redis returned a value of another type, or an unknown word.
    #[error("unexpected answer of script `{script}`")]
    Unreadable {
        /// Which script, or `read` for a command.
        script: &'static str,
        /// What was unexpected.
        #[source]
        source: Unreadable,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness(#[source] getrandom::Error),
}

/// Why a reply of Redis cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub enum Unreadable {
    /// The type is wrong.
    Type(#[from] ParsingError),
    /// The word names no status or priority.
    Word(#[from] UnknownWord),
    /// The text is not the name of a model.
    Name(#[from] NotAModelName),
    /// The text is not a number of bytes.
    Size(#[from] std::num::ParseIntError),
    /// The text is not UTF-8.
    Text(#[from] std::string::FromUtf8Error),
    /// The tensors have another form.
    Tensors(#[from] StoredError),
}

/// A read result is damaged.
impl From<StoredError> for StoreError {
    fn from(cause: StoredError) -> Self {
        Self::unread(cause)
    }
}

impl StoreError {
    /// The reply of this script cannot be read; `read` stands for a command.
    pub(crate) fn unreadable<E: Into<Unreadable>>(script: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::Unreadable { script, source: cause.into() }
    }

    /// The reply of a command cannot be read.
    pub(crate) fn unread<E: Into<Unreadable>>(cause: E) -> Self {
        Self::unreadable("read")(cause)
    }

    /// Whether the same call can succeed later without an operator.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Disconnected | Self::Ambiguous(_) | Self::NotReady(_))
    }

    /// Whether a command did not find a key that it needs.
    #[must_use]
    pub(crate) fn is_missing_key(&self) -> bool {
        matches!(self, Self::Refused(error) if error.detail() == Some("no such key"))
    }

    /// The error of the client library, if there is one.
    #[must_use]
    pub(crate) fn cause(&self) -> Option<&RedisError> {
        match self {
            Self::Ambiguous(cause)
            | Self::NotReady(cause)
            | Self::OutOfMemory(cause)
            | Self::CannotPersist(cause)
            | Self::Forbidden(cause)
            | Self::GroupMissing(cause)
            | Self::Refused(cause) => Some(cause),
            Self::Disconnected
            | Self::WrongTopology(_)
            | Self::NotReplicated { .. }
            | Self::Protocol { .. }
            | Self::Unreadable { .. }
            | Self::NoRandomness(_) => None,
        }
    }

    /// Whether the connection of the call must not be used again.
    #[must_use]
    pub(crate) fn breaks_connection(&self) -> bool {
        matches!(self, Self::Ambiguous(_) | Self::WrongTopology(_))
            || matches!(self, Self::NotReady(error) if error.code().is_some_and(is_topology_change))
    }
}

/// Codes of a node that is not the primary, or not any more.
fn is_topology_change(code: &str) -> bool {
    matches!(code, "READONLY" | "MASTERDOWN" | "UNBLOCKED" | "MOVED")
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => return Self::Ambiguous(error),
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
                return Self::Forbidden(error);
            }
            // A reply that was cut off in the middle.
            ErrorKind::Parse => return Self::Ambiguous(error),
            _ => {}
        }
        match error.code() {
            Some("OOM") => Self::OutOfMemory(error),
            Some("MISCONF") => Self::CannotPersist(error),
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Forbidden(error),
            Some("NOGROUP") => Self::GroupMissing(error),
            Some("UNBLOCKED") if mentions_stream(&error) => Self::GroupMissing(error),
            Some(
                "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" | "NOREPLICAS"
                | "UNBLOCKED" | "MOVED" | "ASK",
            ) => Self::NotReady(error),
            _ => Self::Refused(error),
        }
    }
}

/// Redis 7.0 sends a blocked reader `UNBLOCKED the stream key no longer exists`; later versions send `NOGROUP`.
fn mentions_stream(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("stream key"))
}
