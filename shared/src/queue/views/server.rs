//! Reads the state of the Redis server, for health and metrics.

use futures_util::future::join_all;
use redis::FromRedisValue as _;

use crate::queue::{error::StoreError, info::Info, views::handle::Views};

/// State of the Redis server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// Memory in use.
    pub memory_bytes: u64,
    /// Its limit; 0 = none.
    pub max_memory_bytes: u64,
    /// Whether it is over its limit. It then refuses new jobs.
    pub is_full: bool,
    /// Keys of all its databases.
    pub keys: u64,
    /// Keys that expired since it started.
    pub expired_keys: u64,
    /// Keys that it evicted since it started.
    pub evicted_keys: u64,
    /// Commands that it executed since it started.
    pub commands: u64,
    /// Open connections.
    pub clients: u64,
    /// Time since it started, s.
    pub uptime_seconds: u64,
    /// The append-only file.
    pub aof: AofState,
    /// Whether it may evict keys when memory is short. Accepted jobs can then be lost.
    pub may_evict: bool,
}

/// State of the append-only file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AofState {
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether the last write to it succeeded.
    pub write_ok: bool,
    /// Whether its last rewrite succeeded.
    pub rewrite_ok: bool,
    /// Its size.
    pub bytes: u64,
}

impl Views {
    /// Reads the state of the Redis server; of a cluster, the sum over the primaries that answer.
    ///
    /// # Errors
    /// Any [`StoreError`], if no primary answers.
    pub async fn server_state(&self) -> Result<ServerState, StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg(&["server", "clients", "memory", "persistence", "stats", "keyspace"]);
        let mut servers = self.queue.servers();
        if servers.iter().any(|server| server.is_up()) {
            servers.retain(|server| server.is_up());
        }
        let mut sum = Err(StoreError::Disconnected);
        for reply in join_all(servers.iter().map(|server| server.run(&command))).await {
            let read = |reply| String::from_redis_value(reply).map_err(StoreError::unread);
            match (reply.and_then(read), sum) {
                (Ok(info), Ok(state)) => sum = Ok(server_state_from(&info).and(state)),
                (Ok(info), Err(_)) => sum = Ok(server_state_from(&info)),
                (Err(_), Ok(state)) => sum = Ok(state),
                (Err(error), Err(_)) => sum = Err(error),
            }
        }
        sum
    }
}

impl ServerState {
    /// The state of two servers together: what one lacks, both lack.
    fn and(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes + other.memory_bytes,
            // Without a limit on one of them, there is none.
            max_memory_bytes: match (self.max_memory_bytes, other.max_memory_bytes) {
                (0, _) | (_, 0) => 0,
                (one, other) => one + other,
            },
            is_full: self.is_full || other.is_full,
            keys: self.keys + other.keys,
            expired_keys: self.expired_keys + other.expired_keys,
            evicted_keys: self.evicted_keys + other.evicted_keys,
            commands: self.commands + other.commands,
            clients: self.clients + other.clients,
            uptime_seconds: self.uptime_seconds.min(other.uptime_seconds),
            aof: AofState {
                enabled: self.aof.enabled && other.aof.enabled,
                write_ok: self.aof.write_ok && other.aof.write_ok,
                rewrite_ok: self.aof.rewrite_ok && other.aof.rewrite_ok,
                bytes: self.aof.bytes + other.aof.bytes,
            },
            may_evict: self.may_evict || other.may_evict,
        }
    }
}

fn server_state_from(text: &str) -> ServerState {
    let info = Info::parse(text);
    let max_memory_bytes = info.number("maxmemory");
    // Redis does not count the buffers of its replicas and of the append-only file (`freeMemoryGetNotCountedMemory` in
    // src/evict.c).
    let counted_bytes = info.number("used_memory").saturating_sub(info.number("mem_not_counted_for_evict"));
    ServerState {
        memory_bytes: info.number("used_memory"),
        max_memory_bytes,
        is_full: max_memory_bytes > 0 && counted_bytes > max_memory_bytes,
        keys: info.keys(),
        expired_keys: info.number("expired_keys"),
        evicted_keys: info.number("evicted_keys"),
        commands: info.number("total_commands_processed"),
        clients: info.number("connected_clients"),
        uptime_seconds: info.number("uptime_in_seconds"),
        aof: AofState {
            enabled: info.number("aof_enabled") == 1,
            write_ok: info.get("aof_last_write_status") == Some("ok"),
            rewrite_ok: info.get("aof_last_bgrewrite_status") == Some("ok"),
            bytes: info.number("aof_current_size"),
        },
        may_evict: max_memory_bytes > 0
            && info.get("maxmemory_policy").is_some_and(|policy| policy != "noeviction"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_state_is_read_from_its_info() {
        let info = "# Server\r\nuptime_in_seconds:60\r\n# Clients\r\nconnected_clients:5\r\n\
                    # Memory\r\nused_memory:1024\r\nmaxmemory:2048\r\nmaxmemory_policy:allkeys-lru\r\n\
                    # Persistence\r\naof_enabled:1\r\naof_last_bgrewrite_status:ok\r\naof_last_write_status:err\r\n\
                    aof_current_size:99\r\n\
                    # Stats\r\ntotal_commands_processed:8\r\nexpired_keys:7\r\nevicted_keys:2\r\n\
                    # Keyspace\r\ndb0:keys=12,expires=3,avg_ttl=0\r\ndb1:keys=1,expires=0\r\n";
        let expected = ServerState {
            memory_bytes: 1024,
            max_memory_bytes: 2048,
            is_full: false,
            keys: 13,
            expired_keys: 7,
            evicted_keys: 2,
            commands: 8,
            clients: 5,
            uptime_seconds: 60,
            aof: AofState { enabled: true, write_ok: false, rewrite_ok: true, bytes: 99 },
            may_evict: true,
        };
        assert_eq!(server_state_from(info), expected);
        assert!(!server_state_from(&info.replace("allkeys-lru", "noeviction")).may_evict);
        assert!(!server_state_from(&info.replace("maxmemory:2048", "maxmemory:0")).may_evict);
    }

    #[test]
    fn redis_is_full_when_what_it_counts_is_over_its_limit() {
        let is_full = |used, not_counted, limit| {
            let info = format!(
                "used_memory:{used}\r\nmem_not_counted_for_evict:{not_counted}\r\nmaxmemory:{limit}\r\n"
            );
            server_state_from(&info).is_full
        };
        assert!(is_full(2049, 0, 2048));
        assert!(!is_full(2048, 0, 2048));
        assert!(!is_full(2049, 1, 2048));
        assert!(!is_full(2049, 0, 0));
    }
}
