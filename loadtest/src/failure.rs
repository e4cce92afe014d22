//! Why a request did not succeed: a closed set, so that reports and memory stay bounded.

use std::fmt;
use std::time::Duration;

/// The kinds of failure, in the order in which reports list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureKind {
    /// Not sent at all: `--max-outstanding` requests were already waiting for an answer.
    Dropped,
    /// No connection could be opened.
    Connect,
    /// The connection broke before the whole answer had arrived.
    ConnectionLost,
    /// No whole answer within `--timeout`.
    Timeout,
    /// An answer that is not what the API promises.
    Malformed,
    /// A read was answered with the record of another job.
    OtherJob,
    /// An HTTP status other than the one that means success.
    Status(u16),
}

impl fmt::Display for FailureKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => out.write_str("dropped"),
            Self::Connect => out.write_str("no connection"),
            Self::ConnectionLost => out.write_str("connection lost"),
            Self::Timeout => out.write_str("timeout"),
            Self::Malformed => out.write_str("malformed answer"),
            Self::OtherJob => out.write_str("another job's record"),
            Self::Status(code) => write!(out, "status {code}"),
        }
    }
}

/// A failed request and how long the server asked to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) kind: FailureKind,
    /// The `Retry-After` header in its seconds form (RFC 9110 section 10.2.3).
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// Did the server refuse for the moment (rate limit, overload), so that the same request may succeed later?
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.kind, FailureKind::Status(429 | 503))
    }

    /// Does the server not know what was asked for?
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == FailureKind::Status(404)
    }
}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self { kind, retry_after: None }
    }
}
