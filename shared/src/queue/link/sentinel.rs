//! Asks Sentinels which server of a group is the primary. The client library asks them, too, but cannot tell an unknown group from a
//! primary that is down, and waits without a limit for a server that is frozen.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError, aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout};

use crate::queue::{
    error::{StoreError, WrongTopology},
    link::place::NodeAddress,
};

/// A Sentinel answers from memory.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a primary is avoided because a Sentinel is about to promote a replica. It may fail to; it takes about a second.
const LONGEST_REPLACEMENT: Duration = Duration::from_secs(5);

/// The Sentinels of a group.
#[derive(Clone, Debug)]
pub(super) struct Sentinels {
    /// Their addresses, with their credentials.
    pub(super) addresses: Vec<ConnectionInfo>,
    /// The name of the group.
    pub(super) name: String,
    /// The one that is asked next while all is well.
    pub(super) turn: Arc<AtomicUsize>,
    /// Since when a replica is about to be promoted.
    pub(super) replacing_since: Arc<Mutex<Option<Instant>>>,
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
    /// The Sentinel has begun to promote a replica in place of this server, which may be up.
    Replacing(NodeAddress),
    /// It has promoted this server. The other Sentinels learn of it up to two seconds later.
    Promoted(NodeAddress),
    UnknownGroup,
    Refused(WrongTopology),
    Unreachable(RedisError),
}

/// What the answers of all Sentinels mean.
#[derive(Clone, Debug, PartialEq)]
enum Decision {
    Primary(NodeAddress),
    /// What the present primary accepts now may be lost.
    Wait,
}

impl Sentinels {
    /// The primary, if most of the Sentinels that answer say that it is up.
    pub(super) async fn primary(&self) -> Result<NodeAddress, StoreError> {
        match self.decision().await? {
            Decision::Primary(address) => Ok(address),
            Decision::Wait => {
                Err(RedisError::from((ErrorKind::Io, "the Sentinels are replacing the primary")).into())
            }
        }
    }

    async fn decision(&self) -> Result<Decision, StoreError> {
        let mut answers = join_all(self.addresses.iter().map(|sentinel| self.ask(sentinel))).await;
        if !self.may_wait(answers.iter().any(|answer| matches!(answer, Answer::Replacing(_)))) {
            for answer in &mut answers {
                if let Answer::Replacing(address) = answer {
                    *answer = Answer::Primary { address: address.clone(), is_down: false };
                }
            }
        }
        decide(answers, &self.name)
    }

    /// Whether to wait for the promotion of a replica.
    fn may_wait(&self, is_replacing: bool) -> bool {
        let mut since = self.replacing_since.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_replacing {
            *since = None;
        }
        is_replacing && since.get_or_insert_with(Instant::now).elapsed() < LONGEST_REPLACEMENT
    }

    /// What the Sentinels know of the group; `None` if none knows it.
    pub(super) async fn group(&self) -> Option<SentinelGroup> {
        let ask = async |sentinel| self.fields(&mut connect(sentinel).await?).await;
        let answers = join_all(self.addresses.iter().map(|sentinel| in_time(ask(sentinel)))).await;
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

    /// Whether there is another primary than the one at this address, or will be in a moment. Asks one Sentinel, and all only if that
    /// one says so.
    pub(super) async fn name_another(&self, address: &str) -> bool {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(sentinel) = self.addresses.get(turn % self.addresses.len().max(1)) else { return false };
        let is_news = match self.ask(sentinel).await {
            Answer::Primary { address: named, is_down: false } | Answer::Promoted(named) => {
                named.to_string() != address
            }
            Answer::Replacing(_) => true,
            _ => false,
        };
        let confirmed = async || match self.decision().await {
            Ok(Decision::Primary(primary)) => primary.to_string() != address,
            Ok(Decision::Wait) => true,
            Err(_) => false,
        };
        is_news && confirmed().await
    }

    async fn ask(&self, sentinel: &ConnectionInfo) -> Answer {
        let asked = async {
            let mut connection = connect(sentinel).await?;
            let fields = self.fields(&mut connection).await?;
            // SENTINEL MASTER names the former primary until all replicas follow the new one; this names the new one at once.
            let promoted = match is_in_failover(&fields) {
                // Without the right, the other Sentinels decide.
                true => self.command("GET-MASTER-ADDR-BY-NAME").query_async(&mut connection).await.ok(),
                false => None,
            };
            Ok(read(&fields, promoted))
        };
        in_time(asked).await.unwrap_or_else(refused)
    }

    async fn fields(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<HashMap<String, String>, RedisError> {
        self.command("MASTER").query_async(connection).await
    }

    fn command(&self, subcommand: &str) -> redis::Cmd {
        let mut command = redis::cmd("SENTINEL");
        command.arg(subcommand).arg(&self.name);
        command
    }
}

async fn connect(sentinel: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT));
    Client::open(sentinel.clone())?.get_multiplexed_async_connection_with_config(&config).await
}

async fn in_time<T>(asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let late = || RedisError::from((ErrorKind::Io, "a Sentinel did not answer"));
    timeout(TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
}

fn flags(fields: &HashMap<String, String>) -> &str {
    fields.get("flags").map(String::as_str).unwrap_or_default()
}

fn is_in_failover(fields: &HashMap<String, String>) -> bool {
    flags(fields).contains("failover_in_progress")
}

/// Reads the reply of SENTINEL MASTER, and in a failover that of SENTINEL GET-MASTER-ADDR-BY-NAME.
fn read(fields: &HashMap<String, String>, promoted: Option<(String, u16)>) -> Answer {
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    let Ok(port) = field("port").parse() else { return Answer::UnknownGroup };
    let address = NodeAddress { host: field("ip").to_owned(), port };
    let promoted = promoted.map(|(host, port)| NodeAddress { host, port });
    // `s_down`: it does not answer this Sentinel; `o_down`: enough Sentinels say so.
    let is_down = flags(fields).contains("_down");
    match promoted.filter(|promoted| *promoted != address) {
        Some(promoted) => Answer::Promoted(promoted),
        None if is_in_failover(fields) && !is_down => Answer::Replacing(address),
        None => Answer::Primary { address, is_down },
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

/// The primary that a Sentinel has just promoted, or that the most Sentinels name. They differ for a moment in a failover, and if one of
/// them is cut off.
fn decide(answers: Vec<Answer>, name: &str) -> Result<Decision, StoreError> {
    if let Some(decision) = in_failover(&answers) {
        return Ok(decision);
    }
    let mut votes = Vec::<(NodeAddress, Votes)>::new();
    let (mut is_unknown, mut refusal, mut unreachable) = (false, None, None);
    for answer in answers {
        match answer {
            Answer::Primary { address, is_down } => {
                let at = votes.iter().position(|(of, _)| *of == address).unwrap_or(votes.len());
                if at == votes.len() {
                    votes.push((address, Votes::default()));
                }
                votes[at].1.count(is_down);
            }
            Answer::UnknownGroup => is_unknown = true,
            Answer::Refused(topology) => refusal = Some(topology),
            Answer::Unreachable(error) => unreachable = Some(error),
            // Decided above.
            Answer::Replacing(_) | Answer::Promoted(_) => {}
        }
    }
    let is_down = votes.iter().any(|(_, votes)| votes.down > 0);
    votes.retain(|(_, votes)| votes.up > 0 && votes.up >= votes.down);
    // Of equal counts the first: the order of the URL.
    if let Some((address, _)) = votes.into_iter().rev().max_by_key(|(_, votes)| votes.up) {
        return Ok(Decision::Primary(address));
    }
    Err(match (is_down, is_unknown, refusal, unreachable) {
        (true, ..) => RedisError::from((ErrorKind::Io, "the Sentinels say that the primary is down")).into(),
        (_, true, ..) => StoreError::WrongTopology(WrongTopology::UnknownGroup { name: name.to_owned() }),
        (.., Some(topology), _) => StoreError::WrongTopology(topology),
        (.., Some(error)) => error.into(),
        _ => StoreError::Disconnected,
    })
}

/// How many Sentinels say that a primary is up or down.
#[derive(Default)]
struct Votes {
    up: usize,
    down: usize,
}

impl Votes {
    fn count(&mut self, is_down: bool) {
        match is_down {
            true => self.down += 1,
            false => self.up += 1,
        }
    }
}

fn in_failover(answers: &[Answer]) -> Option<Decision> {
    let promoted = answers.iter().find_map(|answer| match answer {
        Answer::Promoted(address) => Some(Decision::Primary(address.clone())),
        _ => None,
    });
    let is_replacing = answers.iter().any(|answer| matches!(answer, Answer::Replacing(_)));
    promoted.or_else(|| is_replacing.then_some(Decision::Wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(port: u16, is_down: bool) -> Answer {
        Answer::Primary { address: NodeAddress { host: "h".to_owned(), port }, is_down }
    }

    fn decided(answers: &[Answer]) -> Result<u16, String> {
        let port = |decision| match decision {
            Decision::Primary(address) => address.port,
            Decision::Wait => 0,
        };
        decide(answers.to_vec(), "main").map(port).map_err(|error| match error {
            StoreError::WrongTopology(topology) => topology.to_string(),
            error => error.cause().map_or_else(|| error.to_string(), ToString::to_string),
        })
    }

    #[test]
    fn a_promotion_counts_before_the_other_sentinels_know_of_it() {
        let address = |port| NodeAddress { host: "h".to_owned(), port };
        let answers = |first| [first, primary(1, false), primary(1, false)];
        assert_eq!(decided(&answers(Answer::Replacing(address(1)))), Ok(0));
        assert_eq!(decided(&answers(Answer::Promoted(address(2)))), Ok(2));

        let fields = |flags: &str| {
            let fields = [("ip", "h"), ("port", "1"), ("flags", flags)];
            fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        };
        let in_order = fields("master,failover_in_progress,force_failover");
        let says = |port| Some(("h".to_owned(), port));
        assert!(matches!(read(&in_order, says(1)), Answer::Replacing(of) if of == address(1)));
        assert!(matches!(read(&in_order, says(2)), Answer::Promoted(of) if of == address(2)));
        let after_kill = fields("s_down,o_down,master,failover_in_progress");
        assert!(matches!(read(&after_kill, says(1)), Answer::Primary { is_down: true, .. }));
        assert!(matches!(read(&after_kill, says(2)), Answer::Promoted(of) if of == address(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_not_promoted_in_time_is_not_awaited() {
        let (addresses, turn, replacing_since) = Default::default();
        let sentinels = Sentinels { addresses, name: "main".to_owned(), turn, replacing_since };
        assert!(sentinels.may_wait(true));
        tokio::time::advance(LONGEST_REPLACEMENT).await;
        assert!(!sentinels.may_wait(true));
        assert!(!sentinels.may_wait(false));
        assert!(sentinels.may_wait(true), "the next failover");
    }

    #[test]
    fn most_sentinels_decide_and_a_primary_that_is_down_is_none() {
        let lost = || Answer::Unreachable(RedisError::from((ErrorKind::Io, "gone")));
        assert_eq!(decided(&[primary(1, false), primary(2, false), primary(2, false)]), Ok(2));
        assert_eq!(decided(&[primary(1, false), primary(2, false)]), Ok(1));
        assert_eq!(decided(&[primary(1, true), lost(), primary(2, false)]), Ok(2));
        assert_eq!(decided(&[lost(), primary(2, false)]), Ok(2));
        assert_eq!(decided(&[primary(1, true), primary(1, false)]), Ok(1));
        let most = [primary(1, true), primary(1, false), primary(1, true)];
        assert!(decided(&most).unwrap_err().contains("the primary is down"), "one has not noticed it yet");
        assert!(decided(&[primary(1, true), lost()]).unwrap_err().contains("the primary is down"));
        assert!(decided(&[lost(), Answer::UnknownGroup]).unwrap_err().contains("no group called `main`"));
        let refused = Answer::Refused(WrongTopology::SentinelCredentials);
        assert!(decided(&[lost(), refused]).unwrap_err().contains("refuse the credentials"));
        assert!(decided(&[lost()]).unwrap_err().contains("gone"));
    }
}
