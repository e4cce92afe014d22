//! The list of the proxy's settings. Each part declares and checks its own; here they are gathered for `--help` and for the list
//! of mistakes.

mod grpc;
mod replication;
mod workers;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use tepal_shared::{
    process::{
        doctor,
        settings::{ConfigError, Mistakes},
    },
    queue::link::ReplicationSettings,
    settings::{Base, CommonArgs},
};

pub use self::grpc::GrpcPort;
use self::{grpc::GrpcArgs, replication::ReplicationArgs, workers::WorkersArgs};
pub use crate::{
    edge::cors::AllowedOrigins,
    http::{
        bodies::BodyLimits,
        certificate::{CertificateFiles, ClientCertificates},
        connections::limits::ConnectionLimits,
        peer::TrustedProxies,
    },
};
use crate::{
    edge::{
        access::{AccessArgs, command::KeyCommand},
        cors::CorsArgs,
        rate_limit::RateLimitArgs,
    },
    fronts::{call::settings::CallArgs, openapi::public_url::PublicUrlArgs},
    http::{
        bodies::BodyArgs, certificate::TlsArgs, connections::limits::ConnectionArgs, peer::TrustedProxiesArgs,
    },
    jobs::{own_models::OwnModels, quota::QuotaArgs},
};

/// REST API of the Tepal inference gateway: accepts jobs over HTTP and stores them in Redis until a worker runs them.
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
    /// Command to run; without it, the proxy serves
    #[arg(value_enum, value_name = "COMMAND")]
    command: Option<doctor::Command>,
    #[command(subcommand)]
    key: Option<KeySubcommand>,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    replication: ReplicationArgs,
    /// Address to listen on
    #[arg(long, env, default_value = "0.0.0.0:8000", value_name = "ADDR", help_heading = "HTTP")]
    listen_addr: String,
    #[command(flatten)]
    grpc: GrpcArgs,
    #[command(flatten)]
    connections: ConnectionArgs,
    #[command(flatten)]
    body: BodyArgs,
    #[command(flatten)]
    rate_limit: RateLimitArgs,
    #[command(flatten)]
    trusted_proxies: TrustedProxiesArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    quota: QuotaArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    public_url: PublicUrlArgs,
    #[command(flatten)]
    cors: CorsArgs,
    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    workers: WorkersArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum KeySubcommand {
    /// Make API keys
    Key(KeyCommand),
}

/// A command that runs instead of serving.
#[derive(Clone, Debug)]
pub enum Command {
    /// Checks the environment.
    Doctor,
    /// Makes API keys. Needs no settings.
    Key(KeyCommand),
}

/// The checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings of both services.
    pub common: Base,
    /// The models in MODELS_DIR.
    pub(crate) own_models: OwnModels,
    /// Address to listen on.
    pub listen_addr: SocketAddr,
    /// The port for gRPC; `None` = none.
    pub grpc: Option<GrpcPort>,
    /// The replicas that must hold a job before it is acknowledged; `None` if the primary is enough.
    pub replication: Option<ReplicationSettings>,
    /// The file of API keys; `None` = everybody may do everything.
    pub api_keys_file: Option<PathBuf>,
    /// Most requests of one client a minute; `None` = any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Networks of proxies in front of this one, whose X-Forwarded-For is trusted.
    pub trusted_proxies: TrustedProxies,
    /// Most bytes that a caller may keep in Redis, 0 = any number; `None` = a part of the memory of Redis.
    pub owner_max_bytes: Option<u64>,
    /// The limits of bodies.
    pub body: BodyLimits,
    /// The limits of connections.
    pub connections: ConnectionLimits,
    /// The files of the API's certificate; `None` = plain HTTP.
    pub certificate: Option<CertificateFiles>,
    /// Origins whose pages may use the API; `None` = none.
    pub cors: Option<AllowedOrigins>,
    /// The URL of the API for the contract; `None` = the URL of the contract itself.
    pub public_url: Option<String>,
    /// How long a call of another protocol waits for its job.
    pub(crate) longest_call: Duration,
    /// Number of live workers that are expected; 0 = having none is healthy.
    pub(crate) workers_expected: usize,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let mut mistakes = Mistakes::default();
        let common = args.common.check_base(&mut mistakes);
        args.common.check_model_name(&mut mistakes);
        let any_addr = SocketAddr::from(([0, 0, 0, 0], 8000));
        let listen_addr = mistakes.parsed("LISTEN_ADDR", &args.listen_addr, any_addr);
        let grpc = args.grpc.check(listen_addr, &mut mistakes);
        let replication = args.replication.check(&mut mistakes);
        let api_keys_file = args.access.check(&mut mistakes);
        let rate_limit = args.rate_limit.check(&mut mistakes);
        let trusted_proxies = args.trusted_proxies.check(&mut mistakes);
        let owner_max_bytes = args.quota.check(&mut mistakes);
        let body = args.body.check(&mut mistakes);
        let connections = args.connections.check(body.timeout, &mut mistakes);
        let certificate = args.tls.check(&mut mistakes);
        let cors = args.cors.check(&mut mistakes);
        let public_url = args.public_url.check(&mut mistakes);
        let longest_call = args.calls.check(&mut mistakes);
        let workers_expected = args.workers.check(&mut mistakes);
        let own_models = common.as_ref().map(|common| OwnModels::read(&common.models_dir));
        mistakes.unless_any(common.map(|common| Self {
            common,
            own_models: own_models.unwrap_or_default(),
            listen_addr,
            grpc,
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
            longest_call,
            workers_expected,
        }))
    }
}

impl Args {
    /// The command to run instead of serving.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        match (&self.key, self.command) {
            (Some(KeySubcommand::Key(command)), _) => Some(Command::Key(command.clone())),
            (None, Some(doctor::Command::Doctor)) => Some(Command::Doctor),
            (None, None) => None,
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
        assert_eq!((config.body.max_bytes, config.body.memory_bytes), (8 << 20, 64 << 20));
        assert_eq!(config.replication, None);
        assert_eq!(config.rate_limit, NonZeroU32::new(100));
    }

    #[test]
    fn grpc_has_a_port_of_its_own() {
        assert_eq!(config(&[]).unwrap().grpc, None);
        let grpc = config(&["--grpc-listen-addr", "0.0.0.0:8001"]).unwrap().grpc;
        assert_eq!(grpc, Some(GrpcPort { listen_addr: ([0, 0, 0, 0], 8001).into(), most_connections: 1000 }));
        let same = config(&["--grpc-listen-addr", "0.0.0.0:8000"]).unwrap_err().to_string();
        assert!(same.contains("GRPC_LISTEN_ADDR: must have another port than LISTEN_ADDR"), "{same}");
        let word = config(&["--grpc-listen-addr", "8001"]).unwrap_err().to_string();
        assert!(word.contains("GRPC_LISTEN_ADDR: "), "{word}");
    }

    #[test]
    fn replicas_are_asked_for_when_they_are_required() {
        let config = config(&["--replicas-required", "2", "--replication-timeout-ms", "300"]).unwrap();
        let expected = ReplicationSettings { replicas: 2, timeout: Duration::from_millis(300) };
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
            assert!(error.contains(&format!("PUBLIC_URL: `{bad}` is not a URL")), "{error}");
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
    fn all_mistakes_are_reported_at_once() {
        let error = config(&[
            "--model-name",
            "a:b",
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
            "--workers-expected",
            "some",
        ]);
        let text = error.unwrap_err().to_string();
        for name in [
            "MODEL_NAME: `a:b` is not a model name",
            "LISTEN_ADDR: `here`",
            "MAX_BODY_BYTES: `1`",
            "LEASE_MS: `-`",
            "REPLICAS_REQUIRED: `101`",
            "REPLICATION_TIMEOUT_MS: `0`",
            "RATE_LIMIT_PER_MINUTE: `many`",
            "OWNER_MAX_BYTES: `all`",
            "TRUSTED_PROXIES: `next-door`",
            "CORS_ALLOWED_ORIGINS: `everybody` is not an origin",
            "TLS_CERT_FILE: must be given with TLS_KEY_FILE",
            "WORKERS_EXPECTED: `some`",
        ] {
            assert!(text.contains(name), "{text}");
        }
    }
}
