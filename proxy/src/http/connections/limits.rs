//! The limits of connections, and their settings.

use std::time::Duration;

use clap::Args;
use tepal_shared::process::settings::Mistakes;

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct ConnectionArgs {
    /// Most open connections. When they are reached, a new connection replaces an idle one of the address with the most
    #[arg(long, env, default_value = "10000", value_name = "N")]
    max_connections: String,
    /// Longest time for a request's headers to arrive, ms. A new connection that sends nothing is closed after the same time
    #[arg(long, env, default_value = "10000", value_name = "MS")]
    header_timeout_ms: String,
    /// Longest time between two requests of a connection, ms. Set it above the idle timeout of a load balancer in front
    #[arg(long, env, default_value = "75000", value_name = "MS")]
    idle_timeout_ms: String,
    /// How long to keep serving after SIGTERM while /readyz returns 503, so that load balancers notice, ms
    #[arg(long, env, default_value = "0", value_name = "MS", help_heading = "Service")]
    shutdown_delay_ms: String,
    /// How long requests in flight may take after that, before the process ends, s
    #[arg(long, env, default_value = "10", value_name = "S", help_heading = "Service")]
    drain_timeout_seconds: String,
}

/// How long connections may wait, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most open connections.
    pub most: usize,
    /// Most requests in progress.
    pub requests: usize,
    /// Most connections that wait for a slot.
    pub waiting: usize,
    /// Most connections that lost their slots and are not closed yet.
    pub leaving: usize,
    /// Longest time for a request's headers to arrive.
    pub header_timeout: Duration,
    /// Longest wait for the next request, after one was answered.
    pub idle_timeout: Duration,
    /// Longest time in which a client must read a part of its answer.
    pub write_timeout: Duration,
    /// How long to go on accepting after the shutdown began.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
}

impl ConnectionArgs {
    /// The limits. `write_timeout`: that of bodies.
    pub(crate) fn check(&self, write_timeout: Duration, mistakes: &mut Mistakes) -> ConnectionLimits {
        let most = mistakes.number("MAX_CONNECTIONS", &self.max_connections, 1..=1_000_000);
        ConnectionLimits {
            most,
            requests: most,
            waiting: 0,
            leaving: 0,
            header_timeout: mistakes.millis("HEADER_TIMEOUT_MS", &self.header_timeout_ms, 1..=3_600_000),
            idle_timeout: mistakes.millis("IDLE_TIMEOUT_MS", &self.idle_timeout_ms, 1..=3_600_000),
            write_timeout,
            shutdown_delay: mistakes.millis("SHUTDOWN_DELAY_MS", &self.shutdown_delay_ms, 0..=3_600_000),
            drain_timeout: mistakes.seconds("DRAIN_TIMEOUT_SECONDS", &self.drain_timeout_seconds, 0..=3600),
        }
    }
}
