//! The settings of the connection to Redis.

use clap::Args;
use redis::{ConnectionAddr, RedisError};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    process::{settings::Mistakes, tls::ClientFiles},
    queue::link::settings::ConnectionSettings,
};

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
pub(crate) struct RedisArgs {
    /// Address of Redis: redis://[[user]:password@]host[:port][/db], redis+sentinel://[[user]:password@]host[:port],.../name[/db] or
    /// redis+cluster://[[user]:password@]host[:port],...; rediss instead of redis means TLS; takes precedence over host and port
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL", help_heading = "Redis")]
    redis_url: Option<SecretString>,
    /// Host of Redis
    #[arg(
        long,
        env = "REDIS_HOST",
        default_value = "127.0.0.1",
        value_name = "HOST",
        help_heading = "Redis"
    )]
    redis_host: String,
    /// Port of Redis
    #[arg(long, env = "REDIS_PORT", default_value = "6379", value_name = "PORT", help_heading = "Redis")]
    redis_port: String,
    /// Name of the Redis user (ACL), if REDIS_URL contains none
    #[arg(long, env = "REDIS_USERNAME", value_name = "USER", help_heading = "Redis")]
    redis_username: Option<String>,
    /// Password of Redis, if REDIS_URL contains none
    #[arg(
        long,
        env = "REDIS_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        help_heading = "Redis"
    )]
    redis_password: Option<SecretString>,
    /// Name of the user of the Sentinels, if they have users
    #[arg(long, env = "SENTINEL_USERNAME", value_name = "USER", help_heading = "Redis")]
    sentinel_username: Option<String>,
    /// Password of the Sentinels, if they have one
    #[arg(
        long,
        env = "SENTINEL_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        help_heading = "Redis"
    )]
    sentinel_password: Option<SecretString>,
    /// PEM file of the authorities that may have issued the certificate of Redis; none = those that browsers trust
    #[arg(long, env = "REDIS_CA_FILE", value_name = "FILE", help_heading = "Redis")]
    redis_ca_file: Option<String>,
    /// PEM file of the client certificate, if Redis requires one
    #[arg(long, env = "REDIS_CERT_FILE", value_name = "FILE", help_heading = "Redis")]
    redis_cert_file: Option<String>,
    /// PEM file of its private key
    #[arg(long, env = "REDIS_KEY_FILE", value_name = "FILE", help_heading = "Redis")]
    redis_key_file: Option<String>,
}

impl RedisArgs {
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Option<ConnectionSettings> {
        let url = match &self.redis_url {
            Some(url) => url.expose_secret().to_owned(),
            None => {
                let host = mistakes.host("REDIS_HOST", &self.redis_host);
                format!("redis://{host}:{}", mistakes.port("REDIS_PORT", &self.redis_port))
            }
        };
        let settings =
            ConnectionSettings::new(&url).map_err(|error| mistakes.add("REDIS_URL", error)).ok()?;
        let settings = settings.with_sentinel_credentials(
            self.sentinel_username.as_deref(),
            self.sentinel_password.as_ref().map(|password| password.expose_secret()),
        );
        let password = self.redis_password.as_ref().map(|password| password.expose_secret());
        let settings = settings.with_missing_credentials(self.redis_username.as_deref(), password);
        self.with_tls(settings, mistakes)
    }

    fn with_tls(&self, settings: ConnectionSettings, mistakes: &mut Mistakes) -> Option<ConnectionSettings> {
        let files = ClientFiles {
            prefix: "REDIS",
            authorities: self.redis_ca_file.as_deref(),
            certificate: self.redis_cert_file.as_deref(),
            key: self.redis_key_file.as_deref(),
        };
        match settings.info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                mistakes
                    .add("REDIS_URL", "#insecure would trust everybody; leave it out and set REDIS_CA_FILE");
                None
            }
            ConnectionAddr::TcpTls { .. } => {
                let tls = files.read(mistakes);
                let refused = |error: RedisError| mistakes.add("REDIS_URL", error);
                settings.with_tls(&tls).map_err(refused).ok()
            }
            _ => {
                let needless = files.given().join(" and ");
                if !needless.is_empty() {
                    mistakes.add(&needless, "without effect: set REDIS_URL to rediss://..., which means TLS");
                }
                Some(settings)
            }
        }
    }
}
