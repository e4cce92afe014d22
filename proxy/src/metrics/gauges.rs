//! The metrics that the probe sets: the state of the queue, the workers and Redis.

use metrics::{Counter, Gauge, counter, gauge};
use tepal_shared::job::{ModelName, Priority};

use super::names::{
    DATA_LOSS, DEAD_LETTERS, IN_FLIGHT, JOBS_LOST, MODEL_OUTSTANDING, OLDEST_WAITING, OUTSTANDING,
    QUEUE_LENGTH, REDIS_AOF_BYTES, REDIS_AOF_OK, REDIS_CLIENTS, REDIS_COMMANDS, REDIS_EVICTED, REDIS_EXPIRED,
    REDIS_KEYS, REDIS_MAX_MEMORY, REDIS_MEMORY, REDIS_UP, REDIS_UPTIME, WAITING_RETRY, WORKERS_EXPECTED,
    WORKERS_LIVE,
};

use crate::snapshot::ModelQueue;

/// The state that all proxies share.
pub(crate) struct Gauges {
    /// Of all models. An autoscaler reads it before the first job, so it is 0 from the start.
    pub(crate) outstanding: Gauge,
    pub(crate) workers_live: Gauge,
    pub(crate) workers_expected: Gauge,
    pub(crate) redis_up: Gauge,
    pub(crate) data_loss: Counter,
    pub(crate) jobs_lost: Counter,
    pub(crate) redis: RedisGauges,
}

/// Sets the gauges of a model's queue.
pub(super) fn set_queue(model: ModelName, queue: &ModelQueue, outstanding: u64) {
    let model = model.as_str();
    for (priority, waiting) in Priority::ALL.into_iter().zip(queue.by_priority) {
        gauge!(QUEUE_LENGTH, "model" => model, "priority" => priority.as_str()).set(waiting as f64);
    }
    gauge!(IN_FLIGHT, "model" => model).set(queue.running as f64);
    gauge!(MODEL_OUTSTANDING, "model" => model).set(outstanding as f64);
    gauge!(WAITING_RETRY, "model" => model).set(queue.waiting_retry as f64);
    gauge!(OLDEST_WAITING, "model" => model).set(queue.oldest.unwrap_or_default().as_secs_f64());
    gauge!(DEAD_LETTERS, "model" => model).set(queue.dead_letters as f64);
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
            outstanding: gauge!(OUTSTANDING),
            workers_live: gauge!(WORKERS_LIVE),
            workers_expected: gauge!(WORKERS_EXPECTED),
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
