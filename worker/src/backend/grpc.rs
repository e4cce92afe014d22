//! What the backends that call a model server over gRPC share.

mod connection;
pub(super) mod elements;
pub(super) mod failure;

use std::time::Duration;

pub(super) use self::connection::{Connection, LARGEST_REPLY_BYTES};
use super::{BackendError, Verdict};

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for the answer to a question about a model, at most five seconds.
pub(super) async fn in_time<T>(
    question: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(PROBE_TIMEOUT, question).await.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> BackendError {
    BackendError::new(Verdict::Silent, "model_unavailable", "The model server does not answer")
}

/// The server serves, but not the model.
pub(super) fn not_served(message: &str) -> BackendError {
    BackendError::new(Verdict::Unavailable, "model_unavailable", message)
}
