//! How many requests a client may make: per address, by the generic cell rate algorithm, in this process. With several
//! proxies a client has the limit of each.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter, clock::Clock as _, clock::DefaultClock, middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
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

/// Whether requests of that route count. Those of who watches the service do not.
pub(crate) fn is_limited(route: &str) -> bool {
    !matches!(route, "/health" | "/livez" | "/readyz" | "/metrics" | "/docs" | "/openapi.json")
}

/// The address on the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    V4(u32),
    /// The first half of an address: the rest is the client's to choose (RFC 6177).
    V6(u64),
    /// One of many, while there are too many to tell apart.
    Bucket(u64),
}

/// What a client has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Budget {
    limit: u32,
    remaining: u32,
    /// Seconds until it may ask again; `None` when this request was within the limit.
    pub(crate) retry_after: Option<u64>,
}

type Limiter = RateLimiter<Client, DashMapStateStore<Client>, DefaultClock, StateInformationMiddleware>;

/// Counts the requests of all clients.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: Limiter,
    limit: NonZeroU32,
    trusted: Vec<IpNet>,
    is_crowded: AtomicBool,
    /// Seeded anew in each process, so that nobody can choose a bucket.
    hasher: RandomState,
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

    /// Counts a request.
    pub(crate) fn spend(&self, peer: Peer, headers: &HeaderMap) -> Budget {
        let client = self.client(self.origin(peer.0.to_canonical(), headers));
        let limit = self.limit.get();
        match self.limiter.check_key(&client) {
            Ok(state) => Budget { limit, remaining: state.remaining_burst_capacity(), retry_after: None },
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.limiter.clock().now());
                // Rounded up: a client that comes a little early is refused again.
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Budget { limit, remaining: 0, retry_after: Some(seconds.max(1)) }
            }
        }
    }

    /// Where a request comes from: the connection's peer, or, behind proxies of ours, the last hop that is not one. What
    /// stands before that hop in X-Forwarded-For is the client's own claim.
    fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let hops: Vec<&str> = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','))
            .collect();
        let mut origin = peer;
        for hop in hops.into_iter().rev() {
            if !self.trusted.iter().any(|net| net.contains(&origin)) {
                break;
            }
            let Some(address) = address_in(hop.trim()) else { break };
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

impl Budget {
    /// Tells the client its limit and what is left of it.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let Self { limit, remaining, .. } = self;
        let restored_in = ((limit - remaining.min(limit)) * WINDOW_SECONDS).div_ceil(limit);
        let policy = HeaderValue::try_from(format!(r#""client";q={limit};w={WINDOW_SECONDS}"#));
        let state = HeaderValue::try_from(format!(r#""client";r={remaining};t={restored_in}"#));
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
fn address_in(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_minute: u32, trusted: &[&str]) -> RateLimit {
        RateLimit::new(&RateLimitSettings {
            per_minute: NonZeroU32::new(per_minute).unwrap(),
            trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
        })
    }

    fn origin(limit: &RateLimit, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        limit.origin(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_client_has_its_limit_and_no_other_clients() {
        let limit = limit(3, &[]);
        let spend = |address: &str| limit.spend(Peer(address.parse().unwrap()), &HeaderMap::new());

        assert_eq!([(); 3].map(|()| spend("192.0.2.1").remaining), [2, 1, 0]);
        let refused = spend("192.0.2.1");
        assert!((1..=20).contains(&refused.retry_after.unwrap()), "{refused:?}");
        assert_eq!(spend("192.0.2.2").retry_after, None);
        // As a dual-stack socket shows an IPv4 peer.
        assert!(spend("::ffff:192.0.2.1").retry_after.is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let limit = limit(1, &[]);
        let is_refused = |address: &str| {
            limit.spend(Peer(address.parse().unwrap()), &HeaderMap::new()).retry_after.is_some()
        };
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
        assert_eq!(origin(&ours, "fd00::1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(origin(&ours, "fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(origin(&ours, "fd00::1", &["[2001:db8::1]"]), "2001:db8::1");
    }

    #[test]
    fn a_crowd_shares_buckets_and_is_forgotten_when_it_has_gone() {
        let limit = limit(u32::MAX, &[]);
        let spend = |number: u32| limit.spend(Peer(IpAddr::V4(number.into())), &HeaderMap::new());
        (0..=MOST_CLIENTS as u32).for_each(|number| {
            spend(number);
        });
        limit.is_crowded.store(true, Ordering::Relaxed);
        let before = limit.limiter.len();
        (0..2 * MOST_CLIENTS as u32).for_each(|number| {
            spend(number << 8);
        });
        assert!(limit.limiter.len() <= before + BUCKETS as usize);
        // So high a limit is whole again at once.
        limit.tidy();
        assert_eq!(limit.limiter.len(), 0);
        assert!(!limit.is_crowded.load(Ordering::Relaxed));
    }

    #[test]
    fn the_headers_tell_limit_and_rest() {
        let mut headers = HeaderMap::new();
        Budget { limit: 100, remaining: 70, retry_after: None }.tell(&mut headers);
        assert_eq!(headers[POLICY], r#""client";q=100;w=60"#);
        assert_eq!(headers[STATE], r#""client";r=70;t=18"#);
    }
}
