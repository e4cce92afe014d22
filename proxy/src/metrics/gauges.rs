//! The metrics that the probe sets: the state of the queue, the workers and Redis.

use metrics::{Counter, Gauge, counter, gauge};
use tepal_shared::job::Priority;

use super::names::{
    DATA_LOSS, DEAD_LETTERS, IN_FLIGHT, JOBS_LOST, OLDEST_WAITING, QUEUE_LENGTH, REDIS_AOF_BYTES,
    REDIS_AOF_OK, REDIS_CLIENTS, REDIS_COMMANDS, REDIS_EVICTED, REDIS_EXPIRED, REDIS_KEYS, REDIS_MAX_MEMORY,
    REDIS_MEMORY, REDIS_UP, REDIS_UPTIME, WAITING_RETRY, WORKERS_LIVE,
};

/// The state that all proxies share.
pub(crate) struct Gauges {
    pub(crate) queue_length: [Gauge; 3],
    pub(crate) in_flight: Gauge,
    pub(crate) waiting_retry: Gauge,
    pub(crate) oldest_waiting: Gauge,
    pub(crate) dead_letters: Gauge,
    pub(crate) workers_live: Gauge,
    pub(crate) redis_up: Gauge,
    pub(crate) data_loss: Counter,
    pub(crate) jobs_lost: Counter,
    pub(crate) redis: RedisGauges,
}

/// The state of the Redis server.
pub(crate) struct RedisGauges {
    pub(crate) memory: Gauge,
    pub(crate) max_memory: Gauge,
    pub(crate) keys: Gauge,
    pub(crate) expired: Counter,
    pub(crate) evicted: Counter,
    pub(crate) commands: Counter,
    pub(crate) clients: Gauge,
    pub(crate) uptime: Gauge,
    pub(crate) aof_enabled: Gauge,
    pub(crate) aof_write_ok: Gauge,
    pub(crate) aof_rewrite_ok: Gauge,
    pub(crate) aof_bytes: Gauge,
}

impl Gauges {
    pub(super) fn new() -> Self {
        Self {
            queue_length: Priority::ALL.map(|priority| gauge!(QUEUE_LENGTH, "priority" => priority.as_str())),
            in_flight: gauge!(IN_FLIGHT),
            waiting_retry: gauge!(WAITING_RETRY),
            oldest_waiting: gauge!(OLDEST_WAITING),
            dead_letters: gauge!(DEAD_LETTERS),
            workers_live: gauge!(WORKERS_LIVE),
            redis_up: gauge!(REDIS_UP),
            data_loss: counter!(DATA_LOSS),
            jobs_lost: counter!(JOBS_LOST),
            redis: RedisGauges::new(),
        }
    }
}

impl RedisGauges {
    pub(super) fn new() -> Self {
        Self {
            memory: gauge!(REDIS_MEMORY),
            max_memory: gauge!(REDIS_MAX_MEMORY),
            keys: gauge!(REDIS_KEYS),
            expired: counter!(REDIS_EXPIRED),
            evicted: counter!(REDIS_EVICTED),
            commands: counter!(REDIS_COMMANDS),
            clients: gauge!(REDIS_CLIENTS),
            uptime: gauge!(REDIS_UPTIME),
            aof_enabled: gauge!(REDIS_AOF_OK, "check" => "enabled"),
            aof_write_ok: gauge!(REDIS_AOF_OK, "check" => "write"),
            aof_rewrite_ok: gauge!(REDIS_AOF_OK, "check" => "rewrite"),
            aof_bytes: gauge!(REDIS_AOF_BYTES),
        }
    }
}
