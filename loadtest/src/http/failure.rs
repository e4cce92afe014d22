//! Why a request failed. The set of reasons is closed, so reports and memory stay bounded.

use std::fmt;
use std::time::Duration;

/// The longest pause that a refusal can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a refusal without `Retry-After`.
const DEFAULT_PAUSE: Duration = Duration::from_millis(100);

/// The kinds of failure, in the order of the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureKind {
    /// Not sent: `--max-outstanding` requests were already waiting for an answer.
    Dropped,
    /// No connection could be opened.
    Connect,
    /// The connection broke before the whole answer had arrived.
    ConnectionLost,
    /// No whole answer within `--timeout`.
    Timeout,
    /// The answer breaks the API's contract.
    Malformed,
    /// A read was answered with the record of another job.
    OtherJob,
    /// An HTTP status other than that of success.
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

/// A failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The `Retry-After` header, if it is in seconds (RFC 9110 section 10.2.3).
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// Whether the server refused the request for now (rate limit, overload). The same request may succeed later.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.kind, FailureKind::Status(429 | 503))
    }

    /// Whether the job or route is unknown to the server.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == FailureKind::Status(404)
    }

    /// How long to wait before the next try.
    pub(crate) fn pause(&self) -> Duration {
        self.retry_after.unwrap_or(DEFAULT_PAUSE).min(LONGEST_PAUSE)
    }
}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self { kind, retry_after: None }
    }
}
