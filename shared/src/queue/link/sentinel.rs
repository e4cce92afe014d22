//! Asks Sentinels which server of a group is the primary. The client library asks them, too, but cannot tell an unknown group from a
//! primary that is down, and waits without a limit for a server that is frozen.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError};
use tokio::time::timeout;

use crate::queue::{
    error::{StoreError, WrongTopology},
    link::place::NodeAddress,
};

/// A Sentinel answers from memory.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The Sentinels of a group.
#[derive(Clone, Debug)]
pub(super) struct Sentinels {
    /// Their addresses, with their credentials.
    pub(super) addresses: Vec<ConnectionInfo>,
    /// The name of the group.
    pub(super) name: String,
    /// The one that is asked next while all is well.
    pub(super) turn: Arc<AtomicUsize>,
}

/// What Sentinels know of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentinelGroup {
    /// How many of the addresses answered.
    pub(crate) answered: u64,
    /// All Sentinels that watch the group.
    pub(crate) sentinels: u64,
    /// How many must agree that the primary is down.
    pub(crate) quorum: u64,
    pub(crate) replicas: u64,
    /// How long a server does not answer until it counts as down.
    pub(crate) down_after: Duration,
}

/// What a Sentinel says.
#[derive(Clone, Debug)]
enum Answer {
    /// This server is the primary, and may be down.
    Primary {
        address: NodeAddress,
        is_down: bool,
    },
    UnknownGroup,
    Refused(WrongTopology),
    Unreachable(RedisError),
}

impl Sentinels {
    /// The primary, if most of the Sentinels that answer say that it is up.
    pub(super) async fn primary(&self) -> Result<NodeAddress, StoreError> {
        decide(join_all(self.addresses.iter().map(|sentinel| self.ask(sentinel))).await, &self.name)
    }

    /// What the Sentinels know of the group; `None` if none knows it.
    pub(super) async fn group(&self) -> Option<SentinelGroup> {
        let answers = join_all(self.addresses.iter().map(|sentinel| self.fields(sentinel))).await;
        let known: Vec<_> = answers.into_iter().flatten().collect();
        let number =
            |name: &str| known.first().and_then(|fields| fields.get(name)?.parse().ok()).unwrap_or(0);
        (!known.is_empty()).then(|| SentinelGroup {
            answered: known.len() as u64,
            sentinels: 1 + number("num-other-sentinels"),
            quorum: number("quorum"),
            replicas: number("num-slaves"),
            down_after: Duration::from_millis(number("down-after-milliseconds")),
        })
    }

    /// Whether there is another primary than the one at this address. Asks one Sentinel, and all only if that one says so.
    pub(super) async fn name_another(&self, address: &str) -> bool {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(sentinel) = self.addresses.get(turn % self.addresses.len().max(1)) else { return false };
        match self.ask(sentinel).await {
            Answer::Primary { address: named, is_down: false } if named.to_string() != address => {
                self.primary().await.is_ok_and(|primary| primary.to_string() != address)
            }
            _ => false,
        }
    }

    async fn ask(&self, sentinel: &ConnectionInfo) -> Answer {
        self.fields(sentinel).await.map_or_else(refused, |fields| read(&fields))
    }

    async fn fields(&self, sentinel: &ConnectionInfo) -> Result<HashMap<String, String>, RedisError> {
        let asked = async {
            let client = Client::open(sentinel.clone())?;
            let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT));
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("MASTER").arg(&self.name);
            command.query_async(&mut connection).await
        };
        let late = || RedisError::from((ErrorKind::Io, "a Sentinel did not answer"));
        timeout(TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

fn read(fields: &HashMap<String, String>) -> Answer {
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    match field("port").parse() {
        Ok(port) => {
            let address = NodeAddress { host: field("ip").to_owned(), port };
            // `s_down`: it does not answer this Sentinel; `o_down`: enough Sentinels say so.
            Answer::Primary { address, is_down: field("flags").contains("_down") }
        }
        Err(_) => Answer::UnknownGroup,
    }
}

fn refused(error: RedisError) -> Answer {
    match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Answer::Refused(WrongTopology::SentinelCredentials),
        _ if error.kind() == ErrorKind::AuthenticationFailed => {
            Answer::Refused(WrongTopology::SentinelCredentials)
        }
        Some("ERR") if error.detail().is_some_and(|detail| detail.contains("No such master")) => {
            Answer::UnknownGroup
        }
        Some("ERR") => Answer::Refused(WrongTopology::NoSentinel),
        _ => Answer::Unreachable(error),
    }
}

/// The primary that the most Sentinels name. They differ for a moment in a failover, and if one of them is cut off.
fn decide(answers: Vec<Answer>, name: &str) -> Result<NodeAddress, StoreError> {
    let mut votes = Vec::<(NodeAddress, usize)>::new();
    let (mut is_down, mut is_unknown, mut refusal, mut unreachable) = (false, false, None, None);
    for answer in answers {
        match answer {
            Answer::Primary { address, is_down: false } => {
                match votes.iter_mut().find(|(of, _)| *of == address) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((address, 1)),
                }
            }
            Answer::Primary { .. } => is_down = true,
            Answer::UnknownGroup => is_unknown = true,
            Answer::Refused(topology) => refusal = Some(topology),
            Answer::Unreachable(error) => unreachable = Some(error),
        }
    }
    // Of equal counts the first: the order of the URL.
    if let Some((address, _)) = votes.into_iter().rev().max_by_key(|(_, count)| *count) {
        return Ok(address);
    }
    Err(match (is_down, is_unknown, refusal, unreachable) {
        (true, ..) => RedisError::from((ErrorKind::Io, "the Sentinels say that the primary is down")).into(),
        (_, true, ..) => StoreError::WrongTopology(WrongTopology::UnknownGroup { name: name.to_owned() }),
        (.., Some(topology), _) => StoreError::WrongTopology(topology),
        (.., Some(error)) => error.into(),
        _ => StoreError::Disconnected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(port: u16, is_down: bool) -> Answer {
        Answer::Primary { address: NodeAddress { host: "h".to_owned(), port }, is_down }
    }

    fn decided(answers: &[Answer]) -> Result<u16, String> {
        decide(answers.to_vec(), "main").map(|address| address.port).map_err(|error| match error {
            StoreError::WrongTopology(topology) => topology.to_string(),
            error => error.cause().map_or_else(|| error.to_string(), ToString::to_string),
        })
    }

    #[test]
    fn most_sentinels_decide_and_a_primary_that_is_down_is_none() {
        let lost = || Answer::Unreachable(RedisError::from((ErrorKind::Io, "gone")));
        assert_eq!(decided(&[primary(1, false), primary(2, false), primary(2, false)]), Ok(2));
        assert_eq!(decided(&[primary(1, false), primary(2, false)]), Ok(1));
        assert_eq!(decided(&[primary(1, true), lost(), primary(2, false)]), Ok(2));
        assert_eq!(decided(&[lost(), primary(2, false)]), Ok(2));
        assert!(decided(&[primary(1, true), lost()]).unwrap_err().contains("the primary is down"));
        assert!(decided(&[lost(), Answer::UnknownGroup]).unwrap_err().contains("no group called `main`"));
        let refused = Answer::Refused(WrongTopology::SentinelCredentials);
        assert!(decided(&[lost(), refused]).unwrap_err().contains("refuse the credentials"));
        assert!(decided(&[lost()]).unwrap_err().contains("gone"));
    }
}
