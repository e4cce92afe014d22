//! Metrics of the Redis server.

use metrics::Counter;
use tepal_shared::queue::views::ServerState;
use tracing::warn;

use crate::metrics::RedisGauges;

/// The state of the server at the last read.
#[derive(Debug, Default)]
pub(super) struct RedisWatch {
    last: Option<ServerState>,
}

impl RedisWatch {
    /// Sets the metrics.
    pub(super) fn saw(&mut self, gauges: &RedisGauges, server: ServerState) {
        gauges.memory.set(server.memory_bytes as f64);
        gauges.max_memory.set(server.max_memory_bytes as f64);
        gauges.keys.set(server.keys as f64);
        gauges.clients.set(server.clients as f64);
        gauges.uptime.set(server.uptime_seconds as f64);
        gauges.aof_enabled.set(flag(server.aof.enabled));
        gauges.aof_write_ok.set(flag(server.aof.write_ok));
        gauges.aof_rewrite_ok.set(flag(server.aof.rewrite_ok));
        gauges.aof_bytes.set(server.aof.bytes as f64);
        let is_news = self.last.is_none_or(|last| last.aof.enabled != server.aof.enabled);
        if is_news && !server.aof.enabled {
            warn!(
                action = "redis_not_durable",
                reason = "appendonly must be yes: without it, jobs are lost when Redis stops"
            );
        }
        let last = self.last.replace(server).unwrap_or(server);
        raise(&gauges.expired, last.expired_keys, server.expired_keys);
        raise(&gauges.evicted, last.evicted_keys, server.evicted_keys);
        raise(&gauges.commands, last.commands, server.commands);
    }
}

/// Redis counts from its own start, but a Prometheus counter never falls. So after a restart of Redis, the whole new count is
/// added.
fn raise(counter: &Counter, last: u64, now: u64) {
    counter.increment(now.checked_sub(last).unwrap_or(now));
}

fn flag(is_ok: bool) -> f64 {
    f64::from(u8::from(is_ok))
}
