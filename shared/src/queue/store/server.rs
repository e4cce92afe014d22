//! What the Redis server says of itself: for health checks and metrics.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{FromRedisValue as _, Pipeline};
use tokio::time::Instant;

use super::{JobStore, reads::unreadable};
use crate::queue::error::StoreError;

/// What the Redis server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerState {
    /// Memory in use.
    pub memory_bytes: u64,
    /// Its limit; 0 = none.
    pub max_memory_bytes: u64,
    /// Whether it is over its limit: then it refuses new jobs.
    pub is_full: bool,
    /// Keys of all its databases.
    pub keys: u64,
    /// Keys that expired since it started.
    pub expired_keys: u64,
    /// Keys that it threw away since it started because memory was short.
    pub evicted_keys: u64,
    /// Commands that it executed since it started.
    pub commands: u64,
    /// Open connections.
    pub clients: u64,
    /// Time since it started, s.
    pub uptime_seconds: u64,
    /// The append-only file.
    pub aof: AofState,
    /// Whether it may throw away keys when memory is short: then accepted jobs can be lost.
    pub may_evict: bool,
}

/// How it is with the append-only file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AofState {
    /// Whether there is one.
    pub enabled: bool,
    /// Whether the last write to it succeeded.
    pub write_ok: bool,
    /// Whether its last rewrite succeeded.
    pub rewrite_ok: bool,
    /// Its size.
    pub bytes: u64,
}

/// When Redis last refused a job because its memory was full. Written only by a refusal; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct LastOutOfMemory(Arc<Mutex<Option<Instant>>>);

impl LastOutOfMemory {
    /// Notes the failure if it is such a refusal.
    pub(super) fn note(&self, error: &StoreError) {
        if matches!(error, StoreError::OutOfMemory(_)) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    fn is_within(&self, age: Duration) -> bool {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < age)
    }
}

impl JobStore {
    /// Whether Redis refused a job because its memory was full, at most `age` ago. Near its limit it refuses large jobs and
    /// still accepts small ones, and [`ServerState::is_full`] is not set.
    #[must_use]
    pub fn ran_out_of_memory_within(&self, age: Duration) -> bool {
        self.last_out_of_memory.is_within(age)
    }

    /// What the Redis server says of itself.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn server_state(&self) -> Result<ServerState, StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg(&["server", "clients", "memory", "persistence", "stats", "keyspace"]);
        let info = String::from_redis_value(self.redis.run(&command).await?).map_err(unreadable)?;
        Ok(server_state_from(&info))
    }

    /// Why the Redis server takes no changes at present, if it takes none: its disk fails, or too few replicas are in step.
    /// One at its memory limit takes some.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn refusal(&self) -> Result<Option<StoreError>, StoreError> {
        let mut pipeline = Pipeline::new();
        // Refused like all others, and changes nothing. In a pipeline, so that a refusal is told and not repeated.
        pipeline.ignore_errors().cmd("HDEL").arg(self.keys.workers()).arg("");
        let outcome = self.redis.run_all(&pipeline).await?.pop();
        let refusal = outcome.and_then(Result::err);
        Ok(refusal.filter(|error| matches!(error, StoreError::CannotPersist(_) | StoreError::NotReady(_))))
    }
}

fn server_state_from(info: &str) -> ServerState {
    let lines = || info.lines().filter_map(|line| line.trim_end().split_once(':'));
    let text = |name: &str| lines().find(|(field, _)| *field == name).map(|(_, value)| value);
    let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
    // `db0:keys=12,expires=3,avg_ttl=0`
    let databases = lines().filter(|(field, _)| field.starts_with("db"));
    let keys = databases
        .filter_map(|(_, value)| value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok());
    let max_memory_bytes = number("maxmemory");
    // Redis does not count the buffers of its replicas and of the append-only file (`freeMemoryGetNotCountedMemory` in
    // src/evict.c).
    let counted_bytes = number("used_memory").saturating_sub(number("mem_not_counted_for_evict"));
    ServerState {
        memory_bytes: number("used_memory"),
        max_memory_bytes,
        is_full: max_memory_bytes > 0 && counted_bytes > max_memory_bytes,
        keys: keys.sum(),
        expired_keys: number("expired_keys"),
        evicted_keys: number("evicted_keys"),
        commands: number("total_commands_processed"),
        clients: number("connected_clients"),
        uptime_seconds: number("uptime_in_seconds"),
        aof: AofState {
            enabled: number("aof_enabled") == 1,
            write_ok: text("aof_last_write_status") == Some("ok"),
            rewrite_ok: text("aof_last_bgrewrite_status") == Some("ok"),
            bytes: number("aof_current_size"),
        },
        may_evict: max_memory_bytes > 0
            && text("maxmemory_policy").is_some_and(|policy| policy != "noeviction"),
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
