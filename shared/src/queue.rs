//! The queue in Redis. The only folder that uses the crate `redis`.
//!
//! | module | owns |
//! | --- | --- |
//! | [`keys`] | every Redis key |
//! | [`scripts`], `lua/` | the Lua scripts, and their outcomes as types |
//! | [`error`] | failures between Tepal and Redis |
//! | [`link`] | the connection to Redis |
//! | [`store`] | one method for each transition of a job, plus the reads |
//! | [`work`] | blocking reads of the streams |
//! | [`views`] | the notifier: wakes whoever waits for a job that changed |
//! | [`worker_state`] | what a worker reports with its heartbeat |
//! | [`doctor`] | checks of Redis |

pub(crate) mod arguments;
pub mod doctor;
pub mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub mod keys;
pub mod link;
mod policy;
pub mod scripts;
pub mod store;
pub mod views;
pub mod work;
pub mod worker_state;

pub use policy::Policy;
pub use redis::RedisError;
