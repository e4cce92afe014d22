//! Where a request comes from: the address on the other end of its connection or, behind trusted proxies, the client that
//! they name in X-Forwarded-For.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName};
use clap::Args;
use ipnet::IpNet;
use tepal_shared::process::settings::Mistakes;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address on the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Addresses that count as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// An IPv4 address.
    V4(u32),
    /// The first half of an IPv6 address: a client chooses the rest itself (RFC 6177).
    V6(u64),
    /// One of many clients that are counted together, because there are too many to count each.
    Bucket(u64),
}

impl Client {
    /// The client with this canonical address.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct TrustedProxiesArgs {
    /// Networks of trusted proxies in front of this one, whose X-Forwarded-For is used, as in 10.0.0.0/8,192.0.2.1/32
    #[arg(long, env, value_name = "CIDR,...")]
    trusted_proxies: Option<String>,
}

impl TrustedProxiesArgs {
    /// The networks.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> TrustedProxies {
        let networks = self.trusted_proxies.as_deref().unwrap_or_default().split(',').map(str::trim);
        let parsed = networks.filter(|text| !text.is_empty()).filter_map(|text| {
            let parsed = text.parse();
            if parsed.is_err() {
                mistakes.add("TRUSTED_PROXIES", format!("`{text}` is not a network such as 10.0.0.0/8"));
            }
            parsed.ok()
        });
        parsed.collect()
    }
}

/// Networks of proxies in front of this one, whose X-Forwarded-For is trusted.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// The client of a connection; `None` for a trusted proxy, whose connections carry requests of many clients.
    pub(crate) fn client(&self, peer: Peer) -> Option<Client> {
        let address = peer.0.to_canonical();
        (!self.contains(address)).then(|| Client::of(address))
    }

    /// The address that a request comes from: the connection's peer or, behind trusted proxies, the last hop that is not one
    /// of them. Hops before that one are the client's own claim.
    pub(crate) fn origin(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        // Bytes, because the client's own part of the line need not be text.
        let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut origin = peer.0.to_canonical();
        for hop in hops {
            if !self.contains(origin) {
                break;
            }
            let hop = std::str::from_utf8(hop.trim_ascii()).ok();
            let Some(address) = hop.and_then(address_in) else { break };
            origin = address.to_canonical();
        }
        origin
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromIterator<IpNet> for TrustedProxies {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// An address as proxies write it: alone, in brackets, or with a port.
pub(crate) fn address_in(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn origin(trusted: &TrustedProxies, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            // Latin-1, so that a value need not be UTF-8.
            let bytes: Vec<u8> = value.chars().map(|letter| letter as u8).collect();
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(&bytes).unwrap());
        }
        trusted.origin(Peer(peer.parse().unwrap()), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let nobody = TrustedProxies::default();
        assert_eq!(origin(&nobody, "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        let ours: TrustedProxies =
            ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap()).into_iter().collect();
        assert_eq!(origin(&ours, "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(origin(&ours, "10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(origin(&ours, "10.0.0.1", &[]), "10.0.0.1");
        // The client's own claim comes first, and is not trusted.
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
}
