//! The host of another service: a name or an address.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// The name or the IP address of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

/// Bytes of the longest name (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

impl Host {
    /// Without brackets, as in certificates.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This machine.
    #[must_use]
    pub fn local() -> Self {
        Self("127.0.0.1".to_owned())
    }
}

impl fmt::Display for Host {
    /// As in URLs: an IPv6 address has brackets (RFC 3986, section 3.2.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]", self.0) } else { f.write_str(&self.0) }
    }
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => text.parse::<IpAddr>().is_ok() || is_name(text),
        };
        if is_host {
            Ok(Self(bracketed.unwrap_or(text).to_owned()))
        } else {
            Err(
                "must be a host name or an IP address, as in redis.example, 10.0.0.1 or ::1, without scheme or port",
            )
        }
    }
}

/// Letters, digits, hyphens and, since Docker allows them, underscores. A name must not end in a number: resolvers would read it as
/// an IPv4 address.
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=LONGEST_LABEL).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let ends_in_number = |last: &str| last.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= LONGEST_NAME
        && text.split('.').all(is_label)
        && !text.rsplit('.').next().is_some_and(ends_in_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_hosts() {
        for (text, bare, in_url) in [
            ("redis", "redis", "redis"),
            ("my_redis-1.example.", "my_redis-1.example.", "my_redis-1.example."),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
            ("::1", "::1", "[::1]"),
            ("[::1]", "::1", "[::1]"),
            ("2001:db8::a", "2001:db8::a", "[2001:db8::a]"),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!((host.as_str(), host.to_string().as_str()), (bare, in_url));
        }
    }

    #[test]
    fn nothing_else_is_a_host() {
        let long = ["a"; 130].join(".");
        for text in [
            "",
            "a b",
            " a",
            "http://a",
            "redis://a",
            "a:6379",
            "[::1]:6379",
            "[a]",
            "[10.0.0.1]",
            "[::1",
            "::1]",
            ":::",
            "a/b",
            "u@a",
            "a..b",
            ".a",
            "-a",
            "a-",
            "10.0.0",
            "256.1.1.1",
            "10.0.0.1.5",
            "a.1",
            "7",
            "r\u{e9}dis",
            "a%b",
            "a,b",
            &long,
            &"a".repeat(64),
        ] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
