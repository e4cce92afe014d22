//! What both services share: the domain types, the model descriptions and the job store, the only code that talks
//! to Redis.
//!
//! | module | owns |
//! | --- | --- |
//! | [`job`], [`owner`] | a job, its id and its states; who may know of it; no I/O |
//! | [`tensor`], [`number`], [`model`] | typed rows, numbers that no type holds, and the description of a model: what it takes and what it answers |
//! | [`store`] | one method for each transition of a job, plus the reads |
//! | [`reader`] | blocking reads of the work streams |
//! | [`keys`], [`scripts`] | every Redis key; the Lua scripts and their typed outcomes |
//! | [`connection`], [`replication`] | how Redis is reached, and reached again; acknowledgement by replicas |
//! | [`tls`] | certificates and keys; why a handshake failed |
//! | [`watchers`] | tells waiters that a job has changed |
//! | [`doctor`] | what is wrong with Redis, and how to mend it |
//! | [`worker_state`] | what a worker says of itself with each heartbeat |
//! | [`config`], [`retry`], [`shutdown`] | settings, backoff, stopping |
//! | [`supervisor`] | background tasks that outlive a bug |
//! | [`telemetry`], [`trace`] | logs, and spans over OTLP |

pub mod config;
pub mod connection;
pub mod doctor;
pub mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod job;
pub mod keys;
pub mod model;
pub mod number;
pub mod owner;
pub mod reader;
pub mod replication;
pub mod retry;
pub mod scripts;
pub mod shutdown;
pub mod store;
pub mod supervisor;
pub mod telemetry;
pub mod tensor;
pub mod tls;
pub mod trace;
pub mod watchers;
pub mod worker_state;

pub use redis::RedisError;
