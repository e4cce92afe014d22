//! What is sent over a connection, and what became of it.

use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};

use crate::queue::{error::StoreError, scripts};

/// Which connection in the order of connecting; distinguishes an old failure from a new one.
pub(crate) type Generation = u64;

/// The answer to a request.
pub(crate) struct Answered {
    /// The connection on which it came.
    pub(crate) generation: Generation,
    /// What Redis said.
    pub(crate) value: Value,
    /// How an earlier sending of the same request failed that may have been executed, or may still be.
    pub(crate) earlier: Option<StoreError>,
}

/// What is sent over the shared connection.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
}

impl Request<'_> {
    /// Sends it, and once more if Redis had forgotten the scripts.
    pub(super) async fn send(self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        let outcome = self.send_once(connection).await;
        if !mentions_unknown_script(&outcome) {
            return outcome;
        }
        scripts::load_all(connection).await?;
        self.send_once(connection).await
    }

    async fn send_once(self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::One(command) => command.query_async(connection).await,
            Self::Many(pipeline) => pipeline.query_async(connection).await,
        }
    }
}

fn mentions_unknown_script(outcome: &Result<Value, RedisError>) -> bool {
    match outcome {
        Ok(Value::Array(values)) => values
            .iter()
            .any(|value| matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")),
        Ok(_) => false,
        Err(error) => error.code() == Some("NOSCRIPT"),
    }
}

/// The outcome of each command of a pipeline that ignores errors.
pub(crate) fn outcomes(reply: Value) -> Vec<Result<Value, StoreError>> {
    let values = match reply {
        Value::Array(values) => values,
        other => vec![other],
    };
    let outcome = |value| match value {
        Value::ServerError(error) => Err(StoreError::from(RedisError::from(error))),
        value => Ok(value),
    };
    values.into_iter().map(outcome).collect()
}

/// Whether the connection that answered a pipeline so must not be used again: it leads to a node that was demoted or
/// does not own the keys any more.
pub(crate) fn break_connection(outcomes: &[Result<Value, StoreError>]) -> bool {
    outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(StoreError::breaks_connection))
}

/// Whether Redis says that it did not execute a command, for a reason that an earlier sending may not have met.
pub(super) fn is_refusal(outcome: &Result<Value, StoreError>) -> bool {
    use StoreError::{CannotPersist, NotReady, OutOfMemory, WrongTopology};
    matches!(outcome, Err(OutOfMemory(_) | CannotPersist(_) | NotReady(_) | WrongTopology(_)))
}
