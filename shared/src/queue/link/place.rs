//! The forms of `REDIS_URL`: how Redis is operated, and the addresses under which it is found.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

const SENTINEL_PORT: u16 = 26_379;
const REDIS_PORT: u16 = 6379;

/// How Redis is operated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One server at a fixed address.
    Standalone,
    /// A primary with replicas. Sentinels say which server is the primary at present.
    Sentinel {
        /// Addresses of Sentinels.
        sentinels: Vec<NodeAddress>,
        /// The name of the group, as in `sentinel monitor <name> ...`.
        name: String,
    },
    /// A Redis Cluster.
    Cluster {
        /// Nodes that are asked for the others.
        nodes: Vec<NodeAddress>,
    },
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl NodeAddress {
    /// Reads `host:port`. Redis may leave the host out: then it is that of the node that said so.
    pub(super) fn parse(text: &str, said_by: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() || host == "?" { said_by } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl std::fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// What is wrong with a URL. No text contains the URL, because it may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No known form.
    #[error(
        "must have the form redis://[[user]:password@]host[:port][/db], \
         redis+sentinel://[[user]:password@]host[:port],.../name[/db] or \
         redis+cluster://[[user]:password@]host[:port],...; rediss instead of redis means TLS"
    )]
    Form,
    /// Several addresses of a server.
    #[error("has several addresses, which need redis+sentinel:// or redis+cluster://")]
    SeveralAddresses,
    /// No name of the group.
    #[error(
        "does not say which group the Sentinels watch; add its name, as in redis+sentinel://a:26379,b:26379/mymaster"
    )]
    NoName,
    /// A database of a cluster.
    #[error(
        "selects a database, but a Redis Cluster has only database 0; leave out what follows the addresses"
    )]
    ClusterDatabase,
}

/// A checked URL: the place, and an address of it with the credentials.
pub(super) fn parse(url: &str) -> Result<(Place, ConnectionInfo), UrlError> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlError::Form)?;
    let (base, kind) = match scheme.split_once('+') {
        Some((base, kind)) => (base, Some(kind)),
        None => (scheme, None),
    };
    if kind.is_some() && !matches!(base, "redis" | "rediss") {
        return Err(UrlError::Form);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let user = if authority.contains('@') { format!("{user}@") } else { String::new() };
    let server = |host: &str, path: &str| {
        let info = format!("{base}://{user}{host}{path}").into_connection_info();
        info.map_err(|_| UrlError::Form)
    };
    let Some(kind) = kind else {
        return if hosts.contains(',') && matches!(base, "redis" | "rediss") {
            Err(UrlError::SeveralAddresses)
        } else {
            Ok((Place::Standalone, url.into_connection_info().map_err(|_| UrlError::Form)?))
        };
    };
    let addresses = |port| {
        let addresses = hosts.split(',').map(|host| address(&server(host, "")?, host, port));
        addresses.collect::<Result<Vec<_>, _>>()
    };
    let first = hosts.split(',').next().unwrap_or_default();
    match kind {
        "sentinel" => {
            let mut parts = path.strip_prefix('/').unwrap_or_default().splitn(2, ['/', '?', '#']);
            let name = parts.next().filter(|name| !name.is_empty()).ok_or(UrlError::NoName)?;
            let rest = &path[1 + name.len()..];
            let place = Place::Sentinel { sentinels: addresses(SENTINEL_PORT)?, name: name.to_owned() };
            Ok((place, server(first, rest)?))
        }
        "cluster" if path.trim_start_matches('/').is_empty() || path.starts_with('#') => {
            Ok((Place::Cluster { nodes: addresses(REDIS_PORT)? }, server(first, path)?))
        }
        "cluster" => Err(UrlError::ClusterDatabase),
        _ => Err(UrlError::Form),
    }
}

/// The address in a URL of one server, or this port if the text names none.
fn address(info: &ConnectionInfo, text: &str, usual_port: u16) -> Result<NodeAddress, UrlError> {
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']') && !port.is_empty());
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if !host.is_empty() => {
            Ok(NodeAddress { host: host.clone(), port: if has_port { *port } else { usual_port } })
        }
        _ => Err(UrlError::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<String, UrlError> {
        let join =
            |nodes: &[NodeAddress]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        parse(url).map(|(place, info)| {
            let settings = info.redis_settings();
            let user = format!("{:?} {:?} {}", settings.username(), settings.password(), settings.db());
            match place {
                Place::Standalone => format!("standalone {} {user}", info.addr()),
                Place::Sentinel { sentinels, name } => format!("sentinel {} {name} {user}", join(&sentinels)),
                Place::Cluster { nodes } => format!("cluster {} {user}", join(&nodes)),
            }
        })
    }

    #[test]
    fn every_form_is_read() {
        for (url, expected) in [
            ("redis://h", "standalone h:6379 None None 0"),
            ("redis://u:p@h:1/2", "standalone h:1 Some(\"u\") Some(\"p\") 2"),
            ("redis+sentinel://a,b:7/main", "sentinel a:26379 b:7 main None None 0"),
            (
                "rediss+sentinel://u:p@a:1,[::1]/main/3",
                "sentinel a:1 [::1]:26379 main Some(\"u\") Some(\"p\") 3",
            ),
            ("redis+cluster://:p@a,b:2,[::1]:3", "cluster a:6379 b:2 [::1]:3 None Some(\"p\") 0"),
            ("rediss+cluster://a/", "cluster a:6379 None None 0"),
        ] {
            assert_eq!(place(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (url, expected) in [
            ("nonsense", UrlError::Form),
            ("http://h", UrlError::Form),
            ("redis+sentinels://h/x", UrlError::Form),
            ("unix+cluster://h", UrlError::Form),
            ("redis+cluster://", UrlError::Form),
            ("redis+cluster://a,", UrlError::Form),
            ("redis+cluster://a:x", UrlError::Form),
            ("redis+sentinel://a,,b/main", UrlError::Form),
            ("redis://a,b", UrlError::SeveralAddresses),
            ("redis+sentinel://a:26379", UrlError::NoName),
            ("redis+sentinel://a:26379/", UrlError::NoName),
            ("redis+cluster://a/1", UrlError::ClusterDatabase),
        ] {
            assert_eq!(place(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn a_node_without_a_host_is_where_it_was_named() {
        let parse = |text| NodeAddress::parse(text, "asked").map(|node| node.to_string());
        assert_eq!(parse("10.0.0.1:7001").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(parse(":7001").as_deref(), Some("asked:7001"));
        assert_eq!(parse("?:7001").as_deref(), Some("asked:7001"));
        assert_eq!(parse("[::1]:7001").as_deref(), Some("[::1]:7001"));
        assert_eq!(parse("::1:7001").as_deref(), Some("[::1]:7001"));
        assert_eq!(parse("nowhere"), None);
    }
}
