//! The proxy's settings.

mod access;
mod security;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use clap::{Parser, Subcommand};
use ipnet::IpNet;
use tepal_shared::{
    process::{
        doctor,
        settings::{ConfigError, Mistakes},
    },
    queue::link::ReplicationPolicy,
    settings::{Common, CommonArgs},
};

use self::{access::AccessArgs, security::SecurityArgs};
use crate::edge::access::command::KeyCommand;
pub use crate::{
    edge::cors::AllowedOrigins,
    http::certificate::{CertificateFiles, ClientCertificates},
};

/// How many times its size a body of numbers takes at least while it is read.
const READING_FACTOR: usize = 8;
/// The largest answers take so much.
const LEAST_MEMORY: usize = 8 << 20;

/// REST API of the Tepal inference gateway: takes jobs over HTTP and keeps them in Redis until a worker runs them.
///
/// Every setting is a flag or the environment variable named beside it.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "tepal-proxy",
    version,
    override_usage = "tepal-proxy [OPTIONS] [doctor]\n       tepal-proxy key new [OPTIONS]",
    disable_help_subcommand = true
)]
pub struct Args {
    /// What to do; without it, the proxy serves
    #[arg(value_enum, value_name = "COMMAND")]
    command: Option<doctor::Command>,
    #[command(subcommand)]
    key: Option<KeySubcommand>,
    #[command(flatten)]
    common: CommonArgs,
    /// Address to listen on
    #[arg(
        long,
        env = "LISTEN_ADDR",
        default_value = "0.0.0.0:8000",
        value_name = "ADDR",
        help_heading = "HTTP"
    )]
    listen_addr: String,
    /// Largest body of a request, bytes
    #[arg(
        long,
        env = "MAX_BODY_BYTES",
        default_value = "1048576",
        value_name = "BYTES",
        help_heading = "HTTP"
    )]
    max_body_bytes: String,
    /// Memory for bodies and answers above 8 KiB, all together, bytes; what does not fit is answered with 503
    #[arg(
        long,
        env = "BODY_MEMORY_BYTES",
        default_value = "67108864",
        value_name = "BYTES",
        help_heading = "HTTP"
    )]
    body_memory_bytes: String,
    /// Longest time for a request's headers to arrive, ms; a new connection that sends nothing is closed after it, too
    #[arg(
        long,
        env = "HEADER_TIMEOUT_MS",
        default_value = "10000",
        value_name = "MS",
        help_heading = "HTTP"
    )]
    header_timeout_ms: String,
    /// How long a connection may wait for its next request, ms; longer than a balancer in front keeps its connections
    #[arg(long, env = "IDLE_TIMEOUT_MS", default_value = "75000", value_name = "MS", help_heading = "HTTP")]
    idle_timeout_ms: String,
    /// Longest time for a request's body to arrive, ms; a client that takes nothing of its answer for so long is cut off
    #[arg(long, env = "BODY_TIMEOUT_MS", default_value = "10000", value_name = "MS", help_heading = "HTTP")]
    body_timeout_ms: String,
    /// Most open connections; beyond it, an idle one of the address with the most is closed for a new one
    #[arg(long, env = "MAX_CONNECTIONS", default_value = "10000", value_name = "N", help_heading = "HTTP")]
    max_connections: String,
    /// Most requests of a client address a minute, in this process; 0 = no limit
    #[arg(
        long,
        env = "RATE_LIMIT_PER_MINUTE",
        default_value = "100",
        value_name = "N",
        help_heading = "HTTP"
    )]
    rate_limit_per_minute: String,
    /// Addresses of proxies before this one whose X-Forwarded-For is believed, as in 10.0.0.0/8,192.0.2.1/32
    #[arg(long, env = "TRUSTED_PROXIES", value_name = "CIDR,...", help_heading = "HTTP")]
    trusted_proxies: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    security: SecurityArgs,
    /// Replicas of Redis that must hold a job before it is acknowledged; 0 = the primary is enough
    #[arg(long, env = "REPLICAS_REQUIRED", default_value = "0", value_name = "N", help_heading = "Redis")]
    replicas_required: String,
    /// Longest wait for those replicas, ms
    #[arg(
        long,
        env = "REPLICATION_TIMEOUT_MS",
        default_value = "1000",
        value_name = "MS",
        help_heading = "Redis"
    )]
    replication_timeout_ms: String,
    /// How long to go on serving after SIGTERM with /readyz at 503, so that load balancers notice, ms
    #[arg(long, env = "SHUTDOWN_DELAY_MS", default_value = "0", value_name = "MS", help_heading = "Service")]
    shutdown_delay_ms: String,
    /// How long requests in flight may take to finish before the process ends, s
    #[arg(
        long,
        env = "DRAIN_TIMEOUT_SECONDS",
        default_value = "10",
        value_name = "S",
        help_heading = "Service"
    )]
    drain_timeout_seconds: String,
}

#[derive(Subcommand, Clone, Debug)]
enum KeySubcommand {
    /// Make API keys
    Key(KeyCommand),
}

/// What the proxy does instead of serving.
#[derive(Clone, Debug)]
pub enum Command {
    /// Looks for what is wrong.
    Doctor,
    /// Makes keys; needs none of the settings.
    Key(KeyCommand),
}

/// [`Args`] after checking.
#[derive(Clone, Debug)]
pub struct Config {
    /// What both services have.
    pub common: Common,
    /// Address to listen on.
    pub listen_addr: SocketAddr,
    /// Which replicas must hold a job before it is acknowledged; `None` when the primary is enough.
    pub replication: Option<ReplicationPolicy>,
    /// Who may do what; `None` = everybody everything.
    pub api_keys_file: Option<PathBuf>,
    /// Most requests of one client a minute; `None` = any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Networks of proxies before this one: their X-Forwarded-For is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Most bytes that a caller may keep in Redis, 0 = any number; `None` = a part of the memory of Redis.
    pub owner_max_bytes: Option<u64>,
    /// How much a request's body may hold and how long it may take.
    pub body: BodyLimits,
    /// How connections are held and let go.
    pub connections: ConnectionLimits,
    /// Where the API's certificate is; `None` = plain HTTP.
    pub certificate: Option<CertificateFiles>,
    /// Whose pages may use the API from a browser; `None` = nobody's.
    pub cors: Option<AllowedOrigins>,
    /// Where clients reach the API; `None` = where they read the contract.
    pub public_url: Option<String>,
}

/// How much a request's body may hold and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body.
    pub max_bytes: usize,
    /// What all bodies and answers together may hold.
    pub memory_bytes: usize,
    /// Longest time for all of it to arrive.
    pub timeout: Duration,
}

/// How connections are held and let go.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most open connections.
    pub most: usize,
    /// Longest time for a request's headers to arrive.
    pub header_timeout: Duration,
    /// Longest wait for the next request, after one was answered.
    pub idle_timeout: Duration,
    /// Longest time for a client to take a part of its answer.
    pub write_timeout: Duration,
    /// How long to go on accepting after the shutdown began.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let mut mistakes = Mistakes::default();
        let common = args.common.check(&mut mistakes);
        let any_addr = SocketAddr::from(([0, 0, 0, 0], 8000));
        let listen_addr = mistakes.parsed("LISTEN_ADDR", &args.listen_addr, any_addr);
        let replication = args.replication(&mut mistakes);
        let api_keys_file = args.access.check(&mut mistakes);
        let per_minute = mistakes.number("RATE_LIMIT_PER_MINUTE", &args.rate_limit_per_minute, 0..=u32::MAX);
        let rate_limit = NonZeroU32::new(per_minute);
        let trusted_proxies = args.trusted_proxies(&mut mistakes);
        let owner_max_bytes = args.access.owner_max_bytes(&mut mistakes);
        let body = args.body(&mut mistakes);
        let connections = args.connections(body.timeout, &mut mistakes);
        let certificate = args.security.certificate(&mut mistakes);
        let cors = args.security.origins(&mut mistakes);
        let public_url = args.security.public_url(&mut mistakes);
        mistakes.unless_any(common.map(|common| Self {
            common,
            listen_addr,
            replication,
            api_keys_file,
            rate_limit,
            trusted_proxies,
            owner_max_bytes,
            body,
            connections,
            certificate,
            cors,
            public_url,
        }))
    }
}

impl Args {
    /// What to do instead of serving.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        match (&self.key, self.command) {
            (Some(KeySubcommand::Key(command)), _) => Some(Command::Key(command.clone())),
            (None, Some(doctor::Command::Doctor)) => Some(Command::Doctor),
            (None, None) => None,
        }
    }

    fn replication(&self, mistakes: &mut Mistakes) -> Option<ReplicationPolicy> {
        let replicas = mistakes.number("REPLICAS_REQUIRED", &self.replicas_required, 0..=100);
        // WAIT takes 0 for "for ever".
        let timeout = mistakes.millis("REPLICATION_TIMEOUT_MS", &self.replication_timeout_ms, 1..=60_000);
        (replicas > 0).then_some(ReplicationPolicy { replicas, timeout })
    }

    fn trusted_proxies(&self, mistakes: &mut Mistakes) -> Arc<[IpNet]> {
        let nets = self.trusted_proxies.as_deref().unwrap_or_default().split(',').map(str::trim);
        let mut trusted_proxies = Vec::new();
        for net in nets.filter(|net| !net.is_empty()) {
            match net.parse() {
                Ok(net) => trusted_proxies.push(net),
                Err(_) => mistakes.add("TRUSTED_PROXIES", format!("`{net}` is no network like 10.0.0.0/8")),
            }
        }
        trusted_proxies.into()
    }

    fn body(&self, mistakes: &mut Mistakes) -> BodyLimits {
        let max_bytes = mistakes.number("MAX_BODY_BYTES", &self.max_body_bytes, 64..=1 << 30);
        let memory_bytes =
            mistakes.number("BODY_MEMORY_BYTES", &self.body_memory_bytes, LEAST_MEMORY..=1 << 40);
        if memory_bytes < max_bytes * READING_FACTOR {
            let detail = format!(
                "must be at least {READING_FACTOR} times MAX_BODY_BYTES ({max_bytes}), which reading a body can take"
            );
            mistakes.add("BODY_MEMORY_BYTES", detail);
        }
        BodyLimits {
            max_bytes,
            memory_bytes,
            timeout: mistakes.millis("BODY_TIMEOUT_MS", &self.body_timeout_ms, 1..=3_600_000),
        }
    }

    fn connections(&self, write_timeout: Duration, mistakes: &mut Mistakes) -> ConnectionLimits {
        ConnectionLimits {
            most: mistakes.number("MAX_CONNECTIONS", &self.max_connections, 1..=1_000_000),
            header_timeout: mistakes.millis("HEADER_TIMEOUT_MS", &self.header_timeout_ms, 1..=3_600_000),
            idle_timeout: mistakes.millis("IDLE_TIMEOUT_MS", &self.idle_timeout_ms, 1..=3_600_000),
            write_timeout,
            shutdown_delay: mistakes.millis("SHUTDOWN_DELAY_MS", &self.shutdown_delay_ms, 0..=3_600_000),
            drain_timeout: mistakes.seconds("DRAIN_TIMEOUT_SECONDS", &self.drain_timeout_seconds, 0..=3600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/models");
        let flags = ["tepal-proxy", "--models-dir", models].into_iter().chain(flags.iter().copied());
        Config::try_from(Args::try_parse_from(flags).unwrap())
    }

    #[test]
    fn no_settings_at_all_are_fine() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen_addr.to_string(), "0.0.0.0:8000");
        assert_eq!((config.body.max_bytes, config.body.memory_bytes), (1 << 20, 64 << 20));
        assert_eq!(config.replication, None);
        assert_eq!((config.rate_limit, config.trusted_proxies.len()), (NonZeroU32::new(100), 0));
    }

    #[test]
    fn replicas_are_asked_for_when_they_are_required() {
        let config = config(&["--replicas-required", "2", "--replication-timeout-ms", "300"]).unwrap();
        let expected = ReplicationPolicy { replicas: 2, timeout: Duration::from_millis(300) };
        assert_eq!(config.replication, Some(expected));
    }

    #[test]
    fn settings_of_client_certificates_belong_together() {
        let pair = ["--tls-cert-file", "c", "--tls-key-file", "k"];
        let of = |flags: &[&str]| config(&[&pair[..], flags].concat());
        let authorities = ["--tls-client-ca-file", "ca"];
        for (word, is_required) in [(None, true), (Some("required"), true), (Some("optional"), false)] {
            let word = word.map_or(Vec::new(), |word| vec!["--tls-client-auth", word]);
            let clients = of(&[&authorities[..], &word].concat()).unwrap().certificate.unwrap().clients;
            assert_eq!(clients, Some(ClientCertificates { authorities: "ca".into(), is_required }));
        }
        assert_eq!(of(&[]).unwrap().certificate.unwrap().clients, None);

        let alone = config(&authorities).unwrap_err().to_string();
        assert!(alone.contains("TLS_CLIENT_CA_FILE: needs TLS_CERT_FILE and TLS_KEY_FILE"), "{alone}");
        let without = of(&["--tls-client-auth", "required"]).unwrap_err().to_string();
        assert!(without.contains("TLS_CLIENT_AUTH: needs TLS_CLIENT_CA_FILE"), "{without}");
        let word = of(&[&authorities[..], &["--tls-client-auth", "Yes"]].concat()).unwrap_err().to_string();
        assert!(word.contains("TLS_CLIENT_AUTH: `Yes` must be optional or required"), "{word}");
    }

    #[test]
    fn a_public_address_is_one_of_http_without_anything_behind_its_path() {
        let url = |text: &str| config(&["--public-url", text]).map(|config| config.public_url);
        assert_eq!(url("https://api.example/").unwrap().as_deref(), Some("https://api.example"));
        assert_eq!(url("http://127.0.0.1:8000/a/b").unwrap().as_deref(), Some("http://127.0.0.1:8000/a/b"));
        for bad in ["api.example", "ftp://a", "https://", "https://a?b", "https://u:p@a", "https://a#b", "/a"]
        {
            let error = url(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("PUBLIC_URL: `{bad}` is no address")), "{error}");
        }
    }

    #[test]
    fn the_memory_holds_a_body_of_the_largest_size() {
        assert_eq!(config(&["--max-body-bytes", "8388608"]).unwrap().body.memory_bytes, 64 << 20);
        let text = config(&["--max-body-bytes", "8388609"]).unwrap_err().to_string();
        assert!(text.contains("BODY_MEMORY_BYTES: must be at least 8 times MAX_BODY_BYTES"), "{text}");
        assert!(config(&["--max-body-bytes", "8388609", "--body-memory-bytes", "67108872"]).is_ok());
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let error = config(&[
            "--model-name",
            "x",
            "--listen-addr",
            "here",
            "--max-body-bytes",
            "1",
            "--lease-ms",
            "-",
            "--replicas-required",
            "101",
            "--replication-timeout-ms",
            "0",
            "--rate-limit-per-minute",
            "many",
            "--owner-max-bytes",
            "all",
            "--trusted-proxies",
            "10.0.0.0/8, next-door",
            "--cors-allowed-origins",
            "https://a.example, everybody",
            "--tls-key-file",
            "key.pem",
        ]);
        let text = error.unwrap_err().to_string();
        for name in [
            "MODEL_NAME",
            "LISTEN_ADDR: `here`",
            "MAX_BODY_BYTES: `1`",
            "LEASE_MS: `-`",
            "REPLICAS_REQUIRED: `101`",
            "REPLICATION_TIMEOUT_MS: `0`",
            "RATE_LIMIT_PER_MINUTE: `many`",
            "OWNER_MAX_BYTES: `all`",
            "TRUSTED_PROXIES: `next-door`",
            "CORS_ALLOWED_ORIGINS: `everybody` is no origin",
            "TLS_CERT_FILE: must be given with TLS_KEY_FILE",
        ] {
            assert!(text.contains(name), "{text}");
        }
    }
}
