//! How many requests a client may make in any minute: for each key, or for each address of those without one, in this
//! process. With several proxies a client has the limit of each.

mod clients;
mod window;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

pub(crate) use self::clients::Client;
use self::{
    clients::Clients,
    window::{Moment, SECONDS, Window},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
// draft-ietf-httpapi-ratelimit-headers-10.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The address on the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Peer {
    /// Whose connection it is; `None` for a trusted proxy, whose connections are those of many clients.
    pub(crate) fn client(self, trusted: &[IpNet]) -> Option<Client> {
        let address = self.0.to_canonical();
        (!is_in(trusted, address)).then(|| Client::of(address))
    }
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
    /// Seconds until the limit is whole again.
    whole_in: u64,
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

/// Counts the requests of all clients without a key.
#[derive(Debug)]
pub(crate) struct RateLimit {
    clients: Clients,
    start: Instant,
    limit: NonZeroU32,
    trusted: Arc<[IpNet]>,
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
    pub(crate) fn spend(&self) -> Budget {
        self.charge(1, 1)
    }

    /// Counts what a request costs beside the one that was counted already. Nothing is counted when that is too much; the
    /// next try needs one more.
    pub(crate) fn spend_more(&self, more: u32) -> Budget {
        self.charge(more, more.saturating_add(1))
    }

    /// Counts what a request turned out to cost. Later requests wait for it.
    pub(crate) fn owe(&self, more: u32) -> Budget {
        self.within(|window, now| {
            window.add(now, more);
            self.budget(window, now)
        })
    }

    /// What is left at present.
    pub(crate) fn left(&self) -> u32 {
        self.within(|window, now| {
            window.forget(now);
            window.left(self.limit())
        })
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

    /// `next`: what must be left for the next try.
    fn charge(&self, cost: u32, next: u32) -> Budget {
        self.within(|window, now| {
            let wait = window.spend(now, cost, self.limit(), next).err();
            let retry_after = wait.map(|wait| seconds(wait).max(1));
            let excess =
                retry_after.map(|retry_after| Excess { policy: self.policy(), cost: next, retry_after });
            Budget { excess, ..self.budget(window, now) }
        })
    }

    fn budget(&self, window: &Window, now: Moment) -> Budget {
        let (policy, limit) = (self.policy(), self.limit());
        let (remaining, whole_in) = (window.left(limit), seconds(window.time_until_whole(now)));
        Budget { policy, limit, remaining, whole_in, excess: None }
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

/// Rounded up: a client that comes a little early is refused again.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl RateLimit {
    pub(crate) fn new(per_minute: NonZeroU32, trusted: Arc<[IpNet]>) -> Self {
        Self { clients: Clients::new(), start: Instant::now(), limit: per_minute, trusted }
    }

    /// Where requests of that origin are counted.
    pub(crate) fn account(self: &Arc<Self>, peer: Peer, headers: &HeaderMap) -> Account {
        let client = self.clients.client(self.origin(peer.0.to_canonical(), headers));
        Account::Address(Arc::clone(self), client)
    }

    /// Where a request is counted whose head cannot be read. `None` for a trusted proxy: it sends the requests of others.
    pub(crate) fn account_of_peer(self: &Arc<Self>, peer: Peer) -> Option<Account> {
        peer.client(&self.trusted)?;
        Some(self.account(peer, &HeaderMap::new()))
    }

    /// Where a request comes from.
    pub(crate) fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        origin(&self.trusted, peer, headers)
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
        let Self { policy, limit, remaining, whole_in, .. } = self;
        let name = policy.as_str();
        let policy = HeaderValue::try_from(format!(r#""{name}";q={limit};w={SECONDS}"#));
        let state = HeaderValue::try_from(format!(r#""{name}";r={remaining};t={whole_in}"#));
        // Digits and ASCII punctuation always make a header value.
        if let (Ok(policy), Ok(state)) = (policy, state) {
            headers.insert(POLICY, policy);
            headers.insert(STATE, state);
        }
    }
}

/// Where a request comes from: the connection's peer, or, behind trusted proxies, the last hop that is none of them. What stands
/// before that hop in X-Forwarded-For is the client's own claim.
pub(crate) fn origin(trusted: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    // As bytes: a client's own part of the line need not be text.
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut origin = peer;
    for hop in hops {
        if !is_in(trusted, origin) {
            break;
        }
        let hop = std::str::from_utf8(hop.trim_ascii()).ok();
        let Some(address) = hop.and_then(address_in) else { break };
        origin = address.to_canonical();
    }
    origin
}

/// Whether one of the networks has this address.
fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
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
        let trusted = trusted.iter().map(|net| net.parse().unwrap()).collect();
        Arc::new(RateLimit::new(NonZeroU32::new(per_minute).unwrap(), trusted))
    }

    fn account(limit: &Arc<RateLimit>, address: &str) -> Account {
        limit.account(Peer(address.parse().unwrap()), &HeaderMap::new())
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
        assert!((59..=61).contains(&refused.excess.unwrap().retry_after), "{refused:?}");
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
    fn a_request_that_costs_more_counts_as_many_or_not_at_all() {
        let account = account(&limit(10, &[]), "192.0.2.1");
        assert_eq!(account.spend().remaining, 9);
        assert_eq!(account.spend_more(6).remaining, 3);
        account.spend();
        let refused = account.spend_more(4);
        let excess = refused.excess.unwrap();
        assert_eq!((excess.cost, excess.policy, refused.remaining), (5, Policy::Address, 2));
        assert!((59..=61).contains(&excess.retry_after), "{excess:?}");
        assert_eq!(account.spend_more(2).remaining, 0);
        assert!(account.spend_more(11).excess.is_some());
    }

    #[test]
    fn what_a_request_turned_out_to_cost_is_taken_from_later_ones() {
        let account = account(&limit(10, &[]), "192.0.2.1");
        account.spend();
        assert_eq!(account.owe(9).remaining, 0);
        assert!(account.spend().excess.is_some());
    }

    #[test]
    fn a_key_has_a_limit_of_its_own() {
        let account = Account::Key(Arc::new(KeyLimit::new(NonZeroU32::new(2).unwrap())));
        assert_eq!([(); 2].map(|()| account.spend().remaining), [1, 0]);
        assert_eq!(account.spend().excess.unwrap().policy, Policy::Key);
    }

    #[test]
    fn the_headers_tell_limit_and_rest() {
        let mut headers = HeaderMap::new();
        Budget { policy: Policy::Address, limit: 100, remaining: 70, whole_in: 18, excess: None }
            .tell(&mut headers);
        assert_eq!(headers[POLICY], r#""client";q=100;w=60"#);
        assert_eq!(headers[STATE], r#""client";r=70;t=18"#);
        Budget { policy: Policy::Key, limit: 600, remaining: 0, whole_in: 60, excess: None }
            .tell(&mut headers);
        assert_eq!(headers[POLICY], r#""key";q=600;w=60"#);
        assert_eq!(headers[STATE], r#""key";r=0;t=60"#);
    }
}
