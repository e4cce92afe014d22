//! The rate limit: how many requests a client may send in any minute. It applies to each key, or to each address of clients
//! without a key. Each proxy counts for itself.

mod clients;
mod window;

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use clap::Args;
use tepal_shared::process::settings::Mistakes;

use self::{
    clients::Clients,
    window::{Moment, SECONDS, Window},
};
use crate::{
    error::ApiError,
    http::peer::{Client, Peer, TrustedProxies},
};

// draft-ietf-httpapi-ratelimit-headers-10.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct RateLimitArgs {
    /// Most requests of a client address per minute, in this process; 0 = no limit
    #[arg(long, env, default_value = "100", value_name = "N")]
    rate_limit_per_minute: String,
}

impl RateLimitArgs {
    /// Most requests a minute; `None` = any number.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Option<NonZeroU32> {
        let text = &self.rate_limit_per_minute;
        NonZeroU32::new(mistakes.number("RATE_LIMIT_PER_MINUTE", text, 0..=u32::MAX))
    }
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    /// That of a client's address.
    Address,
    /// That of a key.
    Key,
}

/// What a client has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allowance {
    kind: LimitKind,
    limit: u32,
    remaining: u32,
    /// Seconds until nothing is spent any more.
    whole_in: u64,
    /// Why the request is rejected; `None` if it was within the limit.
    pub(crate) excess: Option<Excess>,
}

/// More than the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    /// Whose limit.
    pub(crate) kind: LimitKind,
    /// How many requests it counts as.
    pub(crate) cost: u32,
    /// Seconds until it may be sent again.
    pub(crate) retry_after: u64,
}

/// Where a request is counted.
#[derive(Clone, Debug)]
pub(crate) enum Account {
    /// With its address.
    Address(Arc<RateLimit>, Client),
    /// With its key.
    Key(Arc<KeyLimit>),
}

/// Counts the requests of all clients without a key.
#[derive(Debug)]
pub(crate) struct RateLimit {
    clients: Clients,
    start: Instant,
    limit: NonZeroU32,
    trusted: TrustedProxies,
}

/// Counts the requests of one key.
#[derive(Debug)]
pub(crate) struct KeyLimit {
    window: Mutex<Window>,
    start: Instant,
    limit: NonZeroU32,
}

impl KeyLimit {
    pub(crate) fn new(per_minute: NonZeroU32) -> Self {
        Self { window: Mutex::default(), start: Instant::now(), limit: per_minute }
    }

    /// Most requests a minute.
    pub(crate) fn per_minute(&self) -> NonZeroU32 {
        self.limit
    }
}

impl Account {
    /// Counts a request.
    pub(crate) fn spend(&self) -> Allowance {
        self.charge(1, 1)
    }

    /// Counts the additional cost of a request. If it exceeds the limit, nothing is counted; the next try counts as one more.
    pub(crate) fn spend_more(&self, more: u32) -> Allowance {
        self.charge(more, more.saturating_add(1))
    }

    /// Counts a cost that became known later. Later requests wait for it.
    pub(crate) fn owe(&self, more: u32) -> Allowance {
        self.within(|window, now| {
            window.add(now, more);
            self.allowance(window, now)
        })
    }

    /// What is left at present.
    pub(crate) fn left(&self) -> u32 {
        self.within(|window, now| {
            window.forget(now);
            window.left(self.limit())
        })
    }

    /// Most requests a minute. This is also the highest cost of one request.
    pub(crate) fn limit(&self) -> u32 {
        match self {
            Self::Address(limit, _) => limit.limit.get(),
            Self::Key(limit) => limit.limit.get(),
        }
    }

    fn kind(&self) -> LimitKind {
        match self {
            Self::Address(..) => LimitKind::Address,
            Self::Key(_) => LimitKind::Key,
        }
    }

    /// `next`: what must be left for the next try.
    fn charge(&self, cost: u32, next: u32) -> Allowance {
        self.within(|window, now| {
            let wait = window.spend(now, cost, self.limit(), next).err();
            let retry_after = wait.map(|wait| seconds(wait).max(1));
            let excess = retry_after.map(|retry_after| Excess { kind: self.kind(), cost: next, retry_after });
            Allowance { excess, ..self.allowance(window, now) }
        })
    }

    fn allowance(&self, window: &Window, now: Moment) -> Allowance {
        let (kind, limit) = (self.kind(), self.limit());
        let (remaining, whole_in) = (window.left(limit), seconds(window.time_until_whole(now)));
        Allowance { kind, limit, remaining, whole_in, excess: None }
    }

    fn within<T>(&self, work: impl FnOnce(&mut Window, Moment) -> T) -> T {
        match self {
            Self::Address(limit, client) => {
                limit.clients.with(*client, |window| work(window, Moment::since(limit.start)))
            }
            Self::Key(limit) => {
                let mut window = limit.window.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut window, Moment::since(limit.start))
            }
        }
    }
}

/// Rounded up, because a client that comes a little early is rejected again.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl RateLimit {
    pub(crate) fn new(per_minute: NonZeroU32, trusted: TrustedProxies) -> Self {
        Self { clients: Clients::new(), start: Instant::now(), limit: per_minute, trusted }
    }

    /// Where a request is counted.
    pub(crate) fn account(self: &Arc<Self>, peer: Peer, headers: &HeaderMap) -> Account {
        let client = self.clients.client(self.trusted.origin(peer, headers));
        Account::Address(Arc::clone(self), client)
    }

    /// Where a request with an unreadable head is counted; `None` for a trusted proxy, which sends requests of others.
    pub(crate) fn account_of_peer(self: &Arc<Self>, peer: Peer) -> Option<Account> {
        self.trusted.client(peer)?;
        Some(self.account(peer, &HeaderMap::new()))
    }

    /// Bounds the memory, for as long as the process lives.
    pub(crate) async fn upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.clients.tidy(Moment::since(self.start));
        }
    }
}

impl LimitKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Address => "client",
            Self::Key => "key",
        }
    }
}

impl Allowance {
    /// Adds the headers with the client's limit and what is left of it.
    pub(crate) fn add_to(self, headers: &mut HeaderMap) {
        let Self { kind, limit, remaining, whole_in, .. } = self;
        let name = kind.as_str();
        let policy = HeaderValue::try_from(format!(r#""{name}";q={limit};w={SECONDS}"#));
        let state = HeaderValue::try_from(format!(r#""{name}";r={remaining};t={whole_in}"#));
        // Digits and ASCII punctuation always make a header value.
        if let (Ok(policy), Ok(state)) = (policy, state) {
            headers.insert(POLICY, policy);
            headers.insert(STATE, state);
        }
    }
}

impl From<Excess> for ApiError {
    fn from(Excess { kind, cost, retry_after }: Excess) -> Self {
        let whose = match kind {
            LimitKind::Address => "from this address",
            LimitKind::Key => "with this key",
        };
        Self::RateLimited { whose, cost, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_minute: u32) -> Arc<RateLimit> {
        Arc::new(RateLimit::new(NonZeroU32::new(per_minute).unwrap(), TrustedProxies::default()))
    }

    fn account(limit: &Arc<RateLimit>, address: &str) -> Account {
        limit.account(Peer(address.parse().unwrap()), &HeaderMap::new())
    }

    #[test]
    fn a_client_has_its_limit_and_no_other_clients() {
        let limit = limit(3);
        let spend = |address: &str| account(&limit, address).spend();

        assert_eq!([(); 3].map(|()| spend("192.0.2.1").remaining), [2, 1, 0]);
        let refused = spend("192.0.2.1");
        assert!((59..=61).contains(&refused.excess.unwrap().retry_after), "{refused:?}");
        assert_eq!(spend("192.0.2.2").excess, None);
        // As a dual-stack socket shows an IPv4 peer.
        assert!(spend("::ffff:192.0.2.1").excess.is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let limit = limit(1);
        let is_refused = |address: &str| account(&limit, address).spend().excess.is_some();
        assert!(!is_refused("2001:db8:0:1::1"));
        assert!(is_refused("2001:db8:0:1:ffff::2"));
        assert!(!is_refused("2001:db8:0:2::1"));
    }

    #[test]
    fn a_request_that_costs_more_counts_as_many_or_not_at_all() {
        let account = account(&limit(10), "192.0.2.1");
        assert_eq!(account.spend().remaining, 9);
        assert_eq!(account.spend_more(6).remaining, 3);
        account.spend();
        let refused = account.spend_more(4);
        let excess = refused.excess.unwrap();
        assert_eq!((excess.cost, excess.kind, refused.remaining), (5, LimitKind::Address, 2));
        assert!((59..=61).contains(&excess.retry_after), "{excess:?}");
        assert_eq!(account.spend_more(2).remaining, 0);
        assert!(account.spend_more(11).excess.is_some());
    }

    #[test]
    fn what_a_request_turned_out_to_cost_is_taken_from_later_ones() {
        let account = account(&limit(10), "192.0.2.1");
        account.spend();
        assert_eq!(account.owe(9).remaining, 0);
        assert!(account.spend().excess.is_some());
    }

    #[test]
    fn a_key_has_a_limit_of_its_own() {
        let account = Account::Key(Arc::new(KeyLimit::new(NonZeroU32::new(2).unwrap())));
        assert_eq!([(); 2].map(|()| account.spend().remaining), [1, 0]);
        assert_eq!(account.spend().excess.unwrap().kind, LimitKind::Key);
    }

    #[test]
    fn the_headers_show_the_limit_and_what_is_left() {
        let mut headers = HeaderMap::new();
        Allowance { kind: LimitKind::Address, limit: 100, remaining: 70, whole_in: 18, excess: None }
            .add_to(&mut headers);
        assert_eq!(headers[POLICY], r#""client";q=100;w=60"#);
        assert_eq!(headers[STATE], r#""client";r=70;t=18"#);
        Allowance { kind: LimitKind::Key, limit: 600, remaining: 0, whole_in: 60, excess: None }
            .add_to(&mut headers);
        assert_eq!(headers[POLICY], r#""key";q=600;w=60"#);
        assert_eq!(headers[STATE], r#""key";r=0;t=60"#);
    }
}
