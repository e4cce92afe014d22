//! The queue's secret: random bytes that all proxies of a queue share through Redis.

use std::fmt;

use redis::{Cmd, FromRedisValue as _, Value};

use crate::queue::{error::StoreError, intake::handle::Intake};

/// 32 random bytes, from which the proxies derive their keys. Never log it, and never send it to a client.
#[derive(Clone, PartialEq, Eq)]
pub struct QueueSecret([u8; 32]);

impl QueueSecret {
    /// Generates a new secret.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes, for the derivation of keys.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for QueueSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueSecret")
    }
}

impl Intake {
    /// The queue's secret. The first call creates it. If it changes, Redis has lost its data.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn secret(&self) -> Result<QueueSecret, StoreError> {
        let key = self.queue.keys.secret();
        // A read works under memory pressure; only an empty Redis needs a new secret.
        if let Some(secret) = secret_in(self.queue.primary(0).run(Cmd::new().arg("GET").arg(&key)).await?)? {
            return Ok(secret);
        }
        let candidate = QueueSecret::generate().map_err(StoreError::NoRandomness)?;
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&candidate.0[..]).arg("NX").arg("GET");
        Ok(secret_in(self.queue.primary(0).run(&set).await?)?.unwrap_or(candidate))
    }
}

fn secret_in(reply: Value) -> Result<Option<QueueSecret>, StoreError> {
    let bytes = Option::<Vec<u8>>::from_redis_value(reply).map_err(StoreError::unreadable("secret"))?;
    let Some(bytes) = bytes else { return Ok(None) };
    // Its bytes must not reach the log, so the error has only their number.
    let secret = <[u8; 32]>::try_from(bytes).map_err(|bytes| damaged(format!("{} bytes", bytes.len())))?;
    Ok(Some(QueueSecret(secret)))
}

fn damaged(reason: String) -> StoreError {
    StoreError::Protocol { script: "secret", reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::error::Unreadable;

    #[test]
    fn the_cause_of_an_unreadable_answer_is_kept() {
        let error = secret_in(Value::Int(5)).unwrap_err();
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<Unreadable>());
        assert!(matches!(cause, Some(Unreadable::Type(_))), "{error:?}");
    }

    #[test]
    fn no_error_and_no_text_shows_the_secret() {
        let shown = format!("{:?}", QueueSecret(*b"canary-0123456789-0123456789-abc"));
        assert_eq!(shown, "QueueSecret");
        for value in ["canary", "canary-0123456789-0123456789-abcd"] {
            let error = secret_in(Value::BulkString(value.into())).unwrap_err();
            assert!(!crate::process::telemetry::chain(&error).contains("canary"), "{error:?}");
        }
    }
}
