//! A request over a connection, and its outcome.

use std::sync::Arc;

use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};

use crate::queue::{
    error::StoreError,
    link::connection::{Generation, SharedConnection},
    scripts,
};

/// The reply to a request.
pub(crate) struct Answered {
    /// The node that answered.
    pub(super) primary: Arc<SharedConnection>,
    /// The connection of the reply.
    pub(crate) generation: Generation,
    /// The reply.
    pub(crate) value: Value,
    /// The failure of an earlier sending of the same request that may have been executed, or may still be.
    pub(crate) earlier: Option<StoreError>,
}

/// A request.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
    /// One command about a slot that is being migrated to this node.
    Asking(&'a Cmd),
}

impl Request<'_> {
    /// Sends the request. If Redis does not know a script, loads all scripts and sends the request again.
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
            Self::Asking(command) => {
                let mut both = redis::pipe();
                both.cmd("ASKING").ignore().add_command(command.clone());
                let (value,) = both.query_async(connection).await?;
                Ok(value)
            }
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

/// Whether a node of a cluster says that another has the key. Nothing was executed.
pub(crate) fn is_redirection(outcome: &Result<Value, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::NotReady(error)) if error.redirect_node().is_some())
}

/// Whether the connection with these outcomes must not be used again: its node was demoted, or does not own the keys any more.
pub(crate) fn break_connection(outcomes: &[Result<Value, StoreError>]) -> bool {
    outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(StoreError::breaks_connection))
}

/// Whether Redis refused a command for a reason that may not have existed at an earlier sending.
pub(super) fn is_refusal(outcome: &Result<Value, StoreError>) -> bool {
    use StoreError::{CannotPersist, NotReady, OutOfMemory, WrongTopology};
    matches!(outcome, Err(OutOfMemory(_) | CannotPersist(_) | NotReady(_) | WrongTopology(_)))
}
