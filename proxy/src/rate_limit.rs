//! How many requests a client may make: for each key, or for each address of those without one, by the generic cell rate
//! algorithm, in this process. With several proxies a client has the limit of each.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    InsufficientCapacity, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock, QuantaInstant},
    middleware::{StateInformationMiddleware, StateSnapshot},
    state::{InMemoryState, NotKeyed, keyed::DashMapStateStore},
};
use ipnet::IpNet;

use crate::config::RateLimitSettings;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
// draft-ietf-httpapi-ratelimit-headers-10.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
/// Clients remembered one by one, some 100 bytes each; beyond that they share [`BUCKETS`].
const MOST_CLIENTS: usize = 100_000;
const BUCKETS: u64 = 4096;
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
const WINDOW_SECONDS: u32 = 60;

/// The address on the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    V4(u32),
    /// The first half of an address: the rest is the client's to choose (RFC 6177).
    V6(u64),
    /// One of many, while there are too many to tell apart.
    Bucket(u64),
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// That of a client's address.
    Address,
    /// That of a key.
    Key,
}

/// What a client has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Budget {
    policy: Policy,
    limit: u32,
    remaining: u32,
    /// Why the request is refused; `None` when it was within the limit.
    pub(crate) excess: Option<Excess>,
}

/// More than the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    /// Whose limit.
    pub(crate) policy: Policy,
    /// How many requests it counts as.
    pub(crate) cost: u32,
    /// Seconds until it may be asked again.
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

type Middleware = StateInformationMiddleware;
type Limiter = RateLimiter<Client, DashMapStateStore<Client>, DefaultClock, Middleware>;
type Checked = Result<Result<StateSnapshot, NotUntil<QuantaInstant>>, InsufficientCapacity>;

/// Counts the requests of all clients without a key.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: Limiter,
    limit: NonZeroU32,
    trusted: Vec<IpNet>,
    is_crowded: AtomicBool,
    /// Seeded anew in each process, so that nobody can choose a bucket.
    hasher: RandomState,
}

/// Counts the requests of one key.
#[derive(Debug)]
pub(crate) struct KeyLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock, Middleware>,
    limit: NonZeroU32,
}

impl KeyLimit {
    pub(crate) fn new(per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::direct(Quota::per_minute(per_minute)).with_middleware();
        Self { limiter, limit: per_minute }
    }

    /// Most requests a minute.
    pub(crate) fn per_minute(&self) -> NonZeroU32 {
        self.limit
    }
}

impl Account {
    /// Counts a request.
    pub(crate) fn spend(&self) -> Budget {
        self.budget(NonZeroU32::MIN, Duration::ZERO)
    }

    /// Counts what a request costs beside the one that was counted already. Nothing is counted when that is too much; who
    /// asks again then will have spent one more by the time that it comes to this.
    pub(crate) fn spend_more(&self, more: NonZeroU32) -> Budget {
        let one = Duration::from_secs(u64::from(WINDOW_SECONDS)) / self.limit();
        let mut budget = self.budget(more, one);
        if let Some(excess) = &mut budget.excess {
            excess.cost += 1;
        }
        budget
    }

    /// Most requests a minute, and most that one request may cost.
    pub(crate) fn limit(&self) -> u32 {
        match self {
            Self::Address(limit, _) => limit.limit.get(),
            Self::Key(limit) => limit.limit.get(),
        }
    }

    fn policy(&self) -> Policy {
        match self {
            Self::Address(..) => Policy::Address,
            Self::Key(_) => Policy::Key,
        }
    }

    /// `later`: how much longer than the limiter says it takes until there is enough.
    fn budget(&self, cost: NonZeroU32, later: Duration) -> Budget {
        let (checked, now): (Checked, _) = match self {
            Self::Address(limit, client) => {
                (limit.limiter.check_key_n(client, cost), limit.limiter.clock().now())
            }
            Self::Key(limit) => (limit.limiter.check_n(cost), limit.limiter.clock().now()),
        };
        let (policy, limit) = (self.policy(), self.limit());
        let wait = match checked {
            Ok(Ok(state)) => {
                return Budget { policy, limit, remaining: state.remaining_burst_capacity(), excess: None };
            }
            Ok(Err(not_until)) => not_until.wait_time_from(now) + later,
            Err(_) => Duration::from_secs(u64::from(WINDOW_SECONDS)),
        };
        // Rounded up: a client that comes a little early is refused again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let excess = Excess { policy, cost: cost.get(), retry_after: seconds.max(1) };
        Budget { policy, limit, remaining: 0, excess: Some(excess) }
    }
}

impl RateLimit {
    pub(crate) fn new(settings: &RateLimitSettings) -> Self {
        let quota = Quota::per_minute(settings.per_minute);
        Self {
            limiter: RateLimiter::dashmap(quota).with_middleware(),
            limit: settings.per_minute,
            trusted: settings.trusted_proxies.clone(),
            is_crowded: AtomicBool::new(false),
            hasher: RandomState::new(),
        }
    }

    /// Where requests of that origin are counted.
    pub(crate) fn account(self: &Arc<Self>, peer: Peer, headers: &HeaderMap) -> Account {
        let client = self.client(self.origin(peer.0.to_canonical(), headers));
        Account::Address(Arc::clone(self), client)
    }

    /// Where a request comes from: the connection's peer, or, behind proxies of ours, the last hop that is not one. What
    /// stands before that hop in X-Forwarded-For is the client's own claim.
    pub(crate) fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        // As bytes: a client's own part of the line need not be text.
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut origin = peer;
        for hop in hops {
            if !self.trusted.iter().any(|net| net.contains(&origin)) {
                break;
            }
            let hop = std::str::from_utf8(hop.trim_ascii()).ok();
            let Some(address) = hop.and_then(address_in) else { break };
            origin = address.to_canonical();
        }
        origin
    }

    fn client(&self, origin: IpAddr) -> Client {
        if self.is_crowded.load(Ordering::Relaxed) {
            return Client::Bucket(self.hasher.hash_one(network(origin)) % BUCKETS);
        }
        network(origin)
    }

    /// Forgets clients whose limit is whole again.
    fn tidy(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.is_crowded.store(self.limiter.len() > MOST_CLIENTS, Ordering::Relaxed);
    }

    /// Bounds the memory, for as long as the process lives.
    pub(crate) async fn upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tidy();
        }
    }
}

impl Policy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Address => "client",
            Self::Key => "key",
        }
    }
}

impl Budget {
    /// Tells the client its limit and what is left of it.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let Self { policy, limit, remaining, .. } = self;
        let name = policy.as_str();
        let restored_in = ((limit - remaining.min(limit)) * WINDOW_SECONDS).div_ceil(limit);
        let policy = HeaderValue::try_from(format!(r#""{name}";q={limit};w={WINDOW_SECONDS}"#));
        let state = HeaderValue::try_from(format!(r#""{name}";r={remaining};t={restored_in}"#));
        // Digits and ASCII punctuation always make a header value.
        if let (Ok(policy), Ok(state)) = (policy, state) {
            headers.insert(POLICY, policy);
            headers.insert(STATE, state);
        }
    }
}

fn network(address: IpAddr) -> Client {
    match address {
        IpAddr::V4(address) => Client::V4(address.to_bits()),
        IpAddr::V6(address) => Client::V6((address.to_bits() >> 64) as u64),
    }
}

/// An address as proxies write it: alone, in brackets, or with a port.
pub(crate) fn address_in(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_minute: u32, trusted: &[&str]) -> Arc<RateLimit> {
        Arc::new(RateLimit::new(&RateLimitSettings {
            per_minute: NonZeroU32::new(per_minute).unwrap(),
            trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
        }))
    }

    fn account(limit: &Arc<RateLimit>, address: &str) -> Account {
        limit.account(Peer(address.parse().unwrap()), &HeaderMap::new())
    }

    fn more(more: u32) -> NonZeroU32 {
        NonZeroU32::new(more).unwrap()
    }

    fn origin(limit: &RateLimit, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            // Latin-1, so that a value need not be UTF-8.
            let bytes: Vec<u8> = value.chars().map(|letter| letter as u8).collect();
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(&bytes).unwrap());
        }
        limit.origin(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_client_has_its_limit_and_no_other_clients() {
        let limit = limit(3, &[]);
        let spend = |address: &str| account(&limit, address).spend();

        assert_eq!([(); 3].map(|()| spend("192.0.2.1").remaining), [2, 1, 0]);
        let refused = spend("192.0.2.1");
        assert!((1..=20).contains(&refused.excess.unwrap().retry_after), "{refused:?}");
        assert_eq!(spend("192.0.2.2").excess, None);
        // As a dual-stack socket shows an IPv4 peer.
        assert!(spend("::ffff:192.0.2.1").excess.is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let limit = limit(1, &[]);
        let is_refused = |address: &str| account(&limit, address).spend().excess.is_some();
        assert!(!is_refused("2001:db8:0:1::1"));
        assert!(is_refused("2001:db8:0:1:ffff::2"));
        assert!(!is_refused("2001:db8:0:2::1"));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let nobody = limit(1, &[]);
        assert_eq!(origin(&nobody, "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        let ours = limit(1, &["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(origin(&ours, "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(origin(&ours, "10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(origin(&ours, "10.0.0.1", &[]), "10.0.0.1");
        // The client's own claim stands first, and is not believed.
        assert_eq!(origin(&ours, "10.0.0.1", &["203.0.113.9, 198.51.100.7", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(origin(&ours, "10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        for claim in ["\u{ff}, 198.51.100.7", "a\u{e9}b,198.51.100.7\t", "\u{ff}"] {
            let lines = ["\u{fe}", claim, "198.51.100.7, 10.0.0.3"];
            assert_eq!(origin(&ours, "10.0.0.1", &lines), "198.51.100.7", "{claim:?}");
            assert_eq!(origin(&ours, "10.0.0.1", &[claim, "198.51.100.7"]), "198.51.100.7", "{claim:?}");
        }
        assert_eq!(origin(&ours, "10.0.0.1", &["\u{ff}, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(origin(&ours, "10.0.0.1", &["198.51.100.7, \u{ff}"]), "10.0.0.1");
        assert_eq!(origin(&ours, "fd00::1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(origin(&ours, "fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(origin(&ours, "fd00::1", &["[2001:db8::1]"]), "2001:db8::1");
    }

    #[test]
    fn a_crowd_shares_buckets_and_is_forgotten_when_it_has_gone() {
        let limit = limit(u32::MAX, &[]);
        let spend = |number: u32| {
            limit.account(Peer(IpAddr::V4(number.into())), &HeaderMap::new()).spend();
        };
        (0..=MOST_CLIENTS as u32).for_each(spend);
        limit.is_crowded.store(true, Ordering::Relaxed);
        let before = limit.limiter.len();
        (0..2 * MOST_CLIENTS as u32).for_each(|number| spend(number << 8));
        assert!(limit.limiter.len() <= before + BUCKETS as usize);
        // So high a limit is whole again at once.
        limit.tidy();
        assert_eq!(limit.limiter.len(), 0);
        assert!(!limit.is_crowded.load(Ordering::Relaxed));
    }

    #[test]
    fn a_request_that_costs_more_counts_as_many_or_not_at_all() {
        let account = account(&limit(10, &[]), "192.0.2.1");
        assert_eq!(account.spend().remaining, 9);
        assert_eq!(account.spend_more(more(6)).remaining, 3);
        account.spend();
        let excess = account.spend_more(more(4)).excess.unwrap();
        // Two are left, and one of them goes with the next try: three more must come, at six seconds each.
        assert_eq!((excess.cost, excess.policy), (5, Policy::Address));
        assert!((13..=18).contains(&excess.retry_after), "{excess:?}");
        assert_eq!(account.spend_more(more(2)).remaining, 0);
        assert!(account.spend_more(more(11)).excess.is_some());
    }

    #[test]
    fn a_key_has_a_limit_of_its_own() {
        let account = Account::Key(Arc::new(KeyLimit::new(more(2))));
        assert_eq!([(); 2].map(|()| account.spend().remaining), [1, 0]);
        assert_eq!(account.spend().excess.unwrap().policy, Policy::Key);
    }

    #[test]
    fn the_headers_tell_limit_and_rest() {
        let mut headers = HeaderMap::new();
        Budget { policy: Policy::Address, limit: 100, remaining: 70, excess: None }.tell(&mut headers);
        assert_eq!(headers[POLICY], r#""client";q=100;w=60"#);
        assert_eq!(headers[STATE], r#""client";r=70;t=18"#);
        Budget { policy: Policy::Key, limit: 600, remaining: 0, excess: None }.tell(&mut headers);
        assert_eq!(headers[POLICY], r#""key";q=600;w=60"#);
        assert_eq!(headers[STATE], r#""key";r=0;t=60"#);
    }
}
